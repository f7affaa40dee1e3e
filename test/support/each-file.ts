/** What vitest runs before each test file. */
import { renew } from './scratch.ts';

renew();
