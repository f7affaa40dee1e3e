/** `metrics.jsonl` as typed rows, read line by line: a long run's file is never in memory as a whole. */
import { createReadStream } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { asFileError, FileError, printable } from '../../models/io/error.ts';
import { parseJson } from '../../models/io/json.ts';
import { METRICS_FILE } from './metrics.ts';
import { expansionRow, measured, metricRow, validationLosses } from './record.ts';

/** An expansion test as it is logged: the decision and the key of the candidate's random numbers. */
const testRow = expansionRow.omit({ step: true, keyHash: true }).extend({ key: z.string().optional() }).strip();
const stepRow = metricRow
  .extend({
    // a step that was only a mark (an older run, another program) has none
    loss: measured.optional(),
    validation: validationLosses.strip().optional(),
    tests: z.array(testRow).optional(),
  })
  .strip();
export type StepRow = z.output<typeof stepRow>;

/**
 * The finished rows in their order; what follows the last line break is being written, or was when the run was killed.
 * @throws FileError naming line and field, or the file that cannot be read
 */
export async function* readRows(folder: string): AsyncGenerator<StepRow> {
  const file = path.join(folder, METRICS_FILE);
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let [number, begun] = [0, ''];
  try {
    for await (const bytes of createReadStream(file, { highWaterMark: 2 ** 20 })) {
      const lines = (begun + decodeWith(decoder, bytes as Uint8Array, file)).split('\n');
      begun = lines.pop()!;
      for (const line of lines) yield rowOf(line, ++number, file);
    }
  } catch (error) {
    throw asFileError(error, file);
  }
}

function decodeWith(decoder: InstanceType<typeof TextDecoder>, bytes: Uint8Array, file: string): string {
  try {
    return decoder.decode(bytes, { stream: true });
  } catch (error) {
    throw new FileError(file, '', 'is not UTF-8 text', { cause: error });
  }
}

function rowOf(line: string, number: number, file: string): StepRow {
  const result = stepRow.safeParse(parseJson(line, file, { field: `line ${number}` }));
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new FileError(file, [`line ${number}`, ...issue!.path.map(String)].join('.'), printable(issue!.message));
}
