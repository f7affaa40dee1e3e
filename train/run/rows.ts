/** `metrics.jsonl` as typed rows, read line by line: a long run's file is never in memory as a whole. */
import { createReadStream } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { asFileError, FileError, printable } from '../../models/io/error.ts';
import { decodeText, type Json, parseJson } from '../../models/io/json.ts';
import { METRICS_FILE } from './metrics.ts';
import { expansionRow, measured, metricRow, validationLosses } from './record.ts';

/** An expansion test as it is logged: the decision. */
const testRow = expansionRow.omit({ step: true, tests: true, grown: true }).strip();
export type TestRow = z.output<typeof testRow>;
export const stepRow = metricRow
  .extend({
    // a step that was only a mark (an older run, another program) has none
    loss: measured.optional(),
    validation: validationLosses.strip().optional(),
    tests: z.array(testRow).optional(),
  })
  .strip();
export type StepRow = z.output<typeof stepRow>;

/** Bytes that are looked at together. */
const BLOCK = 2 ** 16;
const LINE_BREAK = 0x0a;

/**
 * The finished rows in their order; what follows the last line break is being written, or was when the run was killed.
 * @param bytes of the file that are read (default: all)
 * @throws FileError naming line and field, or the file that cannot be read
 */
export async function* readRows(folder: string, bytes = Number.POSITIVE_INFINITY): AsyncGenerator<StepRow> {
  const file = path.join(folder, METRICS_FILE);
  let number = 0;
  // blocks of a line that is longer than one
  let begun: Uint8Array[] = [];
  if (bytes === 0) return;
  try {
    for await (const block of createReadStream(file, { highWaterMark: BLOCK, end: bytes - 1 })) {
      const read = block as Uint8Array;
      const end = read.lastIndexOf(LINE_BREAK);
      if (end >= 0) {
        const lines = decodeText(Buffer.concat([...begun, read.subarray(0, end)]), file).split('\n');
        begun = [];
        for (const line of lines) yield rowOf(line, ++number, file);
      }
      begun.push(read.subarray(end + 1));
    }
  } catch (error) {
    throw asFileError(error, file);
  }
}

/** One line as a row. @throws FileError naming line and field */
export function rowOf(line: string, number: number, file: string): StepRow {
  const value = parseJson(line, file, { field: `line ${number}` });
  const plain = plainRow(value);
  if (plain !== undefined) return plain;
  const result = stepRow.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new FileError(file, [`line ${number}`, ...issue!.path.map(String)].join('.'), printable(issue!.message));
}

const isNumber = (v: Json | undefined): v is number => typeof v === 'number';
const isCount = (v: Json | undefined): v is number => Number.isSafeInteger(v) && (v as number) >= 0;
const missingOr = <T extends Json>(is: (v: Json | undefined) => v is T, v: Json | undefined): v is T | undefined =>
  v === undefined || is(v);

const MEASURED = [
  'fiOriginal',
  'fiExpanded',
  'ratio',
  'gain',
  'brought',
  'sigma',
  'caught',
  'missed',
  'expectedRatio',
] as const;
const COUNTED = ['added', 'cost', 'lost'] as const;

/** A test as this program writes it; undefined for any other. */
function plainTest(value: Json): TestRow | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  const test = value as Record<string, Json>;
  const { module, expanded, rankAfter, carried } = test;
  if (carried !== undefined || typeof module !== 'string' || typeof expanded !== 'boolean' || !isCount(rankAfter))
    return undefined;
  const row: Record<string, Json> = { module, expanded, rankAfter };
  for (const key of MEASURED) {
    const v = test[key];
    if (v === undefined) continue;
    if (!isNumber(v)) return undefined;
    row[key] = v;
  }
  for (const key of COUNTED) {
    const v = test[key];
    if (v === undefined) continue;
    if (!isCount(v)) return undefined;
    row[key] = v;
  }
  return row as TestRow;
}

/**
 * What {@link stepRow} makes of a row without anything out of the way, in a tenth of its time; undefined where it shall
 * look itself. A long run has a million tests.
 */
export function plainRow(value: Json): StepRow | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  const { step, loss, lr, gradNorm, totalRank, seconds, memory, validation, tests, asked } = value as Record<
    string,
    Json
  >;
  if (!isCount(step) || !missingOr(isCount, totalRank) || validation !== undefined || asked !== undefined)
    return undefined;
  if (![loss, lr, gradNorm, seconds, memory].every((v) => missingOr(isNumber, v))) return undefined;
  const row: Record<string, unknown> = { step };
  for (const [key, v] of Object.entries({ loss, lr, gradNorm, totalRank, seconds, memory }))
    if (v !== undefined) row[key] = v;
  if (tests !== undefined) {
    if (!Array.isArray(tests)) return undefined;
    const rows: TestRow[] = [];
    for (const test of tests) {
      const plain = plainTest(test as Json);
      if (plain === undefined) return undefined;
      rows.push(plain);
    }
    row.tests = rows;
  }
  return row as StepRow;
}
