/**
 * `metrics.jsonl`: one JSON object per line, appended while the run goes on. Rows are written in the order of their
 * steps, all rows of a step before its checkpoint; the checkpoint remembers the mark that `sync` gives. A resumed run so
 * cuts off exactly what it will write again, and notices when what it keeps was changed.
 */
import { createHash, type Hash } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { asFileError, FileError, systemCode } from '../../models/io/error.ts';
import { decodeText, type Json, parseJson, readBytes } from '../../models/io/json.ts';
import { PRIVATE_FILE, syncFolder, writeRunFile } from './atomic.ts';
import { lineJson } from './canonical.ts';
import type { RunFolder } from './folder.ts';

export const METRICS_FILE = 'metrics.jsonl';

/** A run of a million steps stays far below. */
const LIMIT_BYTES = 2 ** 30;

/** What happened at one step. */
export type Row = { readonly step: number; readonly [key: string]: Json };
const rowSchema = z.looseObject({ step: z.int().min(0) });

/** How far the file goes, for the checkpoint: bytes and their SHA-256. */
const markSchema = z.strictObject({ bytes: z.int().min(0), sha256: z.string().regex(/^[0-9a-f]{64}$/) });
export type Mark = z.output<typeof markSchema>;

export interface Metrics {
  /**
   * Appends one line; infinite numbers are written as 1e999.
   * @throws RangeError for a row before the last one or a value JSON cannot hold (NaN); FileError from the disk
   */
  write(row: Record<string, unknown> & { readonly step: number }): Promise<void>;
  /** All rows as the file has them, those of before a resume included. */
  rows(): readonly Row[];
  /** Returns when everything written is safe from a power failure. */
  sync(): Promise<Mark>;
  close(): Promise<void>;
}

type Kept = { readonly rows: Row[]; readonly bytes: Uint8Array };

/**
 * Opens the file for appending; rows after `upToStep` and a line that a kill left unfinished are cut off.
 * @param mark what `sync` returned before the checkpoint of that step was saved: the kept part is compared with it
 * @throws FileError naming the line that is no row, or the file if it is missing although steps were done
 * @example const metrics = await openMetrics(run, 0); await metrics.write({ step: 1, loss: 0.5 })
 */
export async function openMetrics(run: RunFolder, upToStep: number, mark?: Json): Promise<Metrics> {
  const file = path.join(run.path, METRICS_FILE);
  const kept = await keep(file, upToStep, mark);
  let handle: FileHandle | undefined;
  try {
    // O_NOFOLLOW: nobody's file behind a link is written to.
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND | (constants.O_NOFOLLOW ?? 0);
    handle = await open(file, flags, PRIVATE_FILE);
    await syncFolder(run.path);
    const opened = handle;
    run.atClose(() => opened.close());
    return appender(run, handle, file, kept);
  } catch (error) {
    await handle?.close().catch(() => undefined);
    throw asFileError(error, file);
  }
}

/** The rows up to a step; the file is rewritten, atomically, if it holds more. */
async function keep(file: string, upToStep: number, mark: Json | undefined): Promise<Kept> {
  const bytes = await readBytes(file, LIMIT_BYTES).catch((error) => {
    if (upToStep === 0 && systemCode(error.cause) === 'ENOENT') return new Uint8Array(0);
    throw error;
  });
  const kept = mark === undefined ? rowsUntil(bytes, file, upToStep) : rowsOf(bytes, file, mark);
  if (kept.bytes.length < bytes.length) await writeRunFile(file, kept.bytes);
  return kept;
}

/** Rows of the part that a mark describes. */
function rowsOf(bytes: Uint8Array, file: string, mark: Json): Kept {
  const parsed = markSchema.safeParse(mark);
  if (!parsed.success) throw new FileError(file, '', 'the checkpoint does not say how far it went');
  const part = bytes.subarray(0, parsed.data.bytes);
  if (part.length < parsed.data.bytes || createHash('sha256').update(part).digest('hex') !== parsed.data.sha256) {
    throw new FileError(file, '', 'was changed since the checkpoint was saved');
  }
  return rowsUntil(part, file, Number.POSITIVE_INFINITY);
}

function rowsUntil(bytes: Uint8Array, file: string, upToStep: number): Kept {
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
  return { rows, bytes: bytes.subarray(0, end) };
}

function parseRow(line: Uint8Array, file: string): Row | undefined {
  try {
    const row = parseJson(decodeText(line, file), file);
    return isRow(row) ? row : undefined;
  } catch (error) {
    if (error instanceof FileError) return undefined;
    throw error;
  }
}

function isRow(row: Json): row is Row {
  return rowSchema.safeParse(row).success;
}

function appender(run: RunFolder, handle: FileHandle, file: string, kept: Kept): Metrics {
  const rows = kept.rows;
  const hash: Hash = createHash('sha256').update(kept.bytes);
  let length = kept.bytes.length;
  let lastStep = rows.at(-1)?.step ?? 0;
  // Each call waits for the one before, so that lines never mix.
  let last: Promise<unknown> = Promise.resolve();
  const queue = <T>(work: () => Promise<T>): Promise<T> => {
    const next = last.then(work);
    last = next.catch(() => undefined);
    return next;
  };
  const append = async (line: string) => {
    await run.check();
    const bytes = new TextEncoder().encode(line);
    try {
      for (let done = 0; done < bytes.length; ) {
        done += (await handle.write(bytes, done, bytes.length - done)).bytesWritten;
      }
    } catch (error) {
      // Half a line would spoil the next one.
      await handle.truncate(length).catch(() => undefined);
      throw asFileError(error, file, 'writing');
    }
    length += bytes.length;
    hash.update(bytes);
    rows.push(JSON.parse(line));
  };
  const sync = async (): Promise<Mark> => {
    try {
      await handle.sync();
    } catch (error) {
      throw asFileError(error, file, 'writing');
    }
    return { bytes: length, sha256: hash.copy().digest('hex') };
  };
  return {
    write: async (row) => {
      const line = lineOf(row, lastStep);
      lastStep = row.step;
      await queue(() => append(line));
    },
    rows: () => rows,
    sync: () => queue(sync),
    close: () =>
      queue(() =>
        handle.close().catch((error) => {
          throw asFileError(error, file, 'writing');
        }),
      ),
  };
}

function lineOf(row: Record<string, unknown> & { readonly step: number }, lastStep: number): string {
  if (!Number.isSafeInteger(row.step) || row.step < lastStep) {
    throw new RangeError(`metrics: step ${row.step} after step ${lastStep}`);
  }
  try {
    return `${lineJson(row)}\n`;
  } catch (error) {
    throw new RangeError(`metrics of step ${row.step}: ${(error as Error).message}`);
  }
}
