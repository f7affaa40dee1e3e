/**
 * Long tests repeat on another backend, size or setting what quicker ones beside them show. `SELORA_LONG=1` runs them, as
 * CI does; without it they are counted as skipped, their rows are left out of a table, or, where a file is nothing else
 * (`*.long.test.ts`), it is not loaded. The runner says so.
 */
import { test } from 'vitest';

/** Whether the long tests run. A long form of a driver takes them along. */
export const LONG = process.env.SELORA_LONG === '1' || process.env.SELORA_SOAK !== undefined;

/** `test` where the long ones run. */
export const longTest = test.runIf(LONG);
/** All rows of a table, or those that `short` keeps. */
export const longRows = <T>(rows: readonly T[], short: (row: T) => boolean): readonly T[] =>
  LONG ? rows : rows.filter(short);
