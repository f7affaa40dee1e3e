/** All pages, in the order of the navigation: one file and one line each. */
import { check } from './check.ts';
import { yours } from './function.ts';
import { home } from './home.ts';
import { lesson } from './lesson.ts';
import { op } from './op.ts';
import type { Page } from './page.ts';
import { runs } from './runs.ts';
import { step } from './step.ts';
import { train } from './train.ts';

export const pages: readonly Page[] = [home, step, op, yours, train, runs, check, lesson];
