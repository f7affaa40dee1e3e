/** What vitest runs before each test file. */
import './same-bits.ts';
import { renew } from './scratch.ts';

renew();
