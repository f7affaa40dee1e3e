/** All pages, in the order of the navigation: one file and one line each. */
import { check } from './check.ts';
import { yours } from './function.ts';
import { home } from './home.ts';
import { op } from './op.ts';
import type { Page } from './page.ts';

export const pages: readonly Page[] = [home, op, yours, check];
