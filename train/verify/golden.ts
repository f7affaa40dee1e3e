/**
 * Reading a directory of golden numbers: JSON beside safetensors, every tensor widened to f64.
 *
 * A check is a function from such a directory to a stream of cases; `npm run verify` prints them, tests assert them.
 */
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { z } from 'zod';

/** One comparison: passes when `error` ≤ `tolerance`. */
export type GoldenCase = {
  readonly case: string;
  readonly error: number;
  readonly tolerance: number;
  /** Why the tolerance is what it is. */
  readonly why: string;
};

export type GoldenTensor = { readonly dtype: string; readonly shape: readonly number[]; readonly data: Float64Array };
export type GoldenTensors = ReadonlyMap<string, GoldenTensor>;

/** The largest file that is read; the reference's own are below 2 MB. */
const MAX_BYTES = 2 ** 30;
const MAX_HEADER = 2 ** 24;

const READERS: Readonly<Record<string, readonly [bytes: number, read: (view: DataView, at: number) => number]>> = {
  F64: [8, (view, at) => view.getFloat64(at, true)],
  F32: [4, (view, at) => view.getFloat32(at, true)],
  I64: [8, (view, at) => Number(view.getBigInt64(at, true))],
  I32: [4, (view, at) => view.getInt32(at, true)],
  U8: [1, (view, at) => view.getUint8(at)],
};

type HeaderEntry = { dtype: string; shape: number[]; data_offsets: [number, number] };

function checkEntry(name: string, value: unknown, end: number): HeaderEntry {
  const entry = value as Partial<HeaderEntry> | null;
  const offsets = entry?.data_offsets;
  const whole = (x: unknown): x is number => Number.isSafeInteger(x) && (x as number) >= 0;
  if (!entry || typeof entry.dtype !== 'string' || !Array.isArray(entry.shape) || !Array.isArray(offsets))
    throw new Error(`${name}: expected dtype, shape and data_offsets`);
  const reader = Object.hasOwn(READERS, entry.dtype) ? READERS[entry.dtype]! : undefined;
  if (!reader) throw new Error(`${name}: dtype ${entry.dtype} is not one of ${Object.keys(READERS).join(', ')}`);
  const bytes = entry.shape.reduce((n, side) => n * side, reader[0]);
  if (!entry.shape.every(whole) || offsets.length !== 2 || !offsets.every(whole) || offsets[1] > end)
    throw new Error(`${name}: shape or data_offsets outside the file`);
  if (offsets[1] - offsets[0] !== bytes) throw new Error(`${name}: shape and data_offsets disagree`);
  return entry as HeaderEntry;
}

/** The bytes of a file of bounded size. @throws Error one line: file and limit */
async function readBounded(path: string): Promise<Buffer> {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    if (size > MAX_BYTES) throw new Error(`${path}: ${size} bytes, expected at most ${MAX_BYTES}`);
    return await file.readFile();
  } finally {
    await file.close();
  }
}

/**
 * All tensors of a safetensors file as f64.
 * @throws Error one line naming the file and the tensor
 */
export async function readGoldenTensors(path: string): Promise<GoldenTensors> {
  const bytes = await readBounded(path);
  if (bytes.length < 8) throw new Error(`${path}: too short for a safetensors file`);
  const length = Number(bytes.readBigUInt64LE(0));
  if (length > Math.min(MAX_HEADER, bytes.length - 8))
    throw new Error(`${path}: header of ${length} bytes is outside the file`);
  const body = bytes.subarray(8 + length);
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  try {
    const header = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as Record<string, unknown>;
    return new Map(
      Object.entries(header)
        .filter(([name]) => name !== '__metadata__')
        .map(([name, value]) => {
          const entry = checkEntry(name, value, body.length);
          const [size, read] = READERS[entry.dtype]!;
          const [from, to] = entry.data_offsets;
          const data = Float64Array.from({ length: (to - from) / size }, (_, i) => read(view, from + i * size));
          return [name, { dtype: entry.dtype, shape: entry.shape, data }] as const;
        }),
    );
  } catch (error) {
    throw new Error(`${path}: ${(error as Error).message}`);
  }
}

/** The checked content of a JSON file of the directory. @throws Error one line: file, field, what was expected */
export async function readGoldenJson<T>(directory: string, name: string, schema: z.ZodType<T>): Promise<T> {
  const path = join(directory, name);
  let json: unknown;
  try {
    json = JSON.parse((await readBounded(path)).toString('utf8'));
  } catch (error) {
    throw new Error(`${path}: ${(error as Error).message}`);
  }
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  throw new Error(`${path}: ${issue.path.join('.')}: ${issue.message}`);
}

/** @throws Error naming the tensor that is missing */
export function need(tensors: GoldenTensors, name: string): GoldenTensor {
  const tensor = tensors.get(name);
  if (!tensor) throw new Error(`golden tensor ${name} is missing`);
  return tensor;
}

/** Largest absolute difference over the larger of 1 and the largest expected value; ∞ for other lengths or NaN. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Infinity;
  let worst = 0;
  let scale = 1;
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(actual[i]! - expected[i]!);
    if (Number.isNaN(difference)) return Infinity;
    if (difference > worst) worst = difference;
    if (Math.abs(expected[i]!) > scale) scale = Math.abs(expected[i]!);
  }
  return worst / scale;
}

/** Text of a file of the directory, or undefined when there is none. */
export const readIfThere = (path: string): Promise<string | undefined> =>
  readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
