/**
 * `metrics.jsonl`: one JSON object per line, appended while the run goes on. Rows are written in the order of their
 * steps; all rows of a step are written and synced before the checkpoint of that step, so that a resumed run cuts off
 * exactly what it will write again.
 */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { asFileError, FileError, systemCode } from '../../models/io/error.ts';
import { decodeText, parseJson, readBytes } from '../../models/io/json.ts';
import { PRIVATE_FILE, syncFolder, writeRunFile } from './atomic.ts';
import type { RunFolder } from './folder.ts';

export const METRICS_FILE = 'metrics.jsonl';
/** A run of a million steps stays far below. */
const LIMIT_BYTES = 2 ** 30;

const rowSchema = z.looseObject({ step: z.int().min(0) });
/** What happened at one step. */
export type Row = Readonly<z.output<typeof rowSchema>>;

export interface Metrics {
  /** Appends one line. @throws RangeError for a row before the last one or a value JSON cannot hold; FileError from the disk */
  write(row: Record<string, unknown> & { readonly step: number }): Promise<void>;
  /** All rows, earlier ones of a resumed run included. */
  rows(): readonly Row[];
  /** Returns when everything written is safe from a power failure. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

/**
 * Opens the file for appending; rows after `upToStep` and a line that a kill left unfinished are cut off.
 * @throws FileError naming the line that is no row, or the file if it is missing although steps were done
 * @example const metrics = await openMetrics(run, 0); await metrics.write({ step: 1, loss: 0.5 })
 */
export async function openMetrics(run: RunFolder, upToStep: number): Promise<Metrics> {
  const file = path.join(run.path, METRICS_FILE);
  const kept = await keepUntil(file, upToStep);
  try {
    // O_NOFOLLOW: nobody's file behind a link is written to.
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND | (constants.O_NOFOLLOW ?? 0);
    const handle = await open(file, flags, PRIVATE_FILE);
    await syncFolder(run.path);
    return appender(handle, file, kept.rows, kept.bytes);
  } catch (error) {
    throw asFileError(error, file);
  }
}

/** The rows up to a step; the file is rewritten, atomically, if it holds more. */
async function keepUntil(file: string, upToStep: number): Promise<{ readonly rows: Row[]; readonly bytes: number }> {
  const bytes = await readBytes(file, LIMIT_BYTES).catch((error) => {
    if (upToStep === 0 && error instanceof FileError && error.message.endsWith('no such file')) return undefined;
    throw error;
  });
  if (bytes === undefined) return { rows: [], bytes: 0 };
  const rows: Row[] = [];
  let end = 0;
  for (let line = 1; end < bytes.length; line++) {
    const next = bytes.indexOf(0x0a, end);
    const row = next < 0 ? undefined : parseRow(bytes.subarray(end, next), file);
    if (row === undefined) {
      // What follows the checkpoint's rows was never promised; an unfinished last line is what a kill leaves.
      if (next < 0 || (rows.at(-1)?.step ?? 0) >= upToStep) break;
      throw new FileError(file, `line ${line}`, 'is not a row: expected a JSON object with an integer step');
    }
    if (row.step > upToStep) break;
    rows.push(row);
    end = next + 1;
  }
  if (end < bytes.length) await writeRunFile(file, bytes.subarray(0, end));
  return { rows, bytes: end };
}

function parseRow(line: Uint8Array, file: string): Row | undefined {
  try {
    return rowSchema.parse(parseJson(decodeText(line, file), file));
  } catch {
    return undefined;
  }
}

function appender(handle: FileHandle, file: string, rows: Row[], start: number): Metrics {
  let length = start;
  // Each call waits for the one before, so that lines never mix.
  let last: Promise<void> = Promise.resolve();
  const queue = (work: () => Promise<void>): Promise<void> => {
    const next = last.then(work);
    last = next.catch(() => undefined);
    return next;
  };
  const append = async (bytes: Uint8Array) => {
    try {
      for (let done = 0; done < bytes.length; ) {
        done += (await handle.write(bytes, done, bytes.length - done)).bytesWritten;
      }
      length += bytes.length;
    } catch (error) {
      // Half a line would spoil the next one.
      await handle.truncate(length).catch(() => undefined);
      throw asFileError(error, file, 'writing');
    }
  };
  return {
    write: async (row) => {
      const line = lineOf(row, rows.at(-1)?.step ?? 0);
      rows.push(row);
      await queue(() => append(new TextEncoder().encode(line)));
    },
    rows: () => rows,
    sync: () =>
      queue(async () => {
        await handle.sync().catch((error) => {
          // Some network and memory file systems have no fsync; there is nothing more that could be done.
          if (systemCode(error) !== 'EINVAL') throw asFileError(error, file, 'writing');
        });
      }),
    close: () => queue(() => handle.close()),
  };
}

/** A row as its line; what JSON would silently turn into null is refused. */
function lineOf(row: Record<string, unknown> & { readonly step: number }, lastStep: number): string {
  if (!Number.isSafeInteger(row.step) || row.step < lastStep) {
    throw new RangeError(`metrics: step ${row.step} after step ${lastStep}`);
  }
  const text = JSON.stringify(row, (key, value) => {
    if (typeof value === 'number' && !Number.isFinite(value)) {
      throw new RangeError(`metrics: ${key} of step ${row.step} is ${value}`);
    }
    return value;
  });
  return `${text}\n`;
}
