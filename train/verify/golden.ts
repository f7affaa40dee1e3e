/**
 * Reading a directory of golden numbers: JSON beside safetensors, every tensor widened to f64.
 *
 * A check is a function from such a directory to a stream of cases; `npm run verify` prints them, tests assert them.
 */
import { join } from 'node:path';
import type { z } from 'zod';
import { parseConfig } from '../../models/config.ts';
import { readBytes, readJson } from '../../models/io/json.ts';
import { parseSafetensors } from '../../models/io/safetensors.ts';

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

/**
 * All tensors of a safetensors file as f64.
 * @throws FileError naming the file and the tensor
 */
export async function readGoldenTensors(path: string): Promise<GoldenTensors> {
  const file = parseSafetensors(await readBytes(path, MAX_BYTES), path);
  const tensors = new Map<string, GoldenTensor>();
  for (const [name, { dtype, shape }] of file.tensors)
    tensors.set(name, { dtype, shape, data: await file.float64(name) });
  return tensors;
}

/** The checked content of a JSON file of the directory. @throws FileError naming file and field */
export async function readGoldenJson<T>(directory: string, name: string, schema: z.ZodType<T>): Promise<T> {
  const path = join(directory, name);
  return parseConfig(schema, await readJson(path, MAX_BYTES), path);
}

/** @throws Error naming the tensor that is missing */
export function need(tensors: GoldenTensors, name: string): GoldenTensor {
  const tensor = tensors.get(name);
  if (!tensor) throw new Error(`golden tensor ${name} is missing`);
  return tensor;
}

/** A case that could not be computed: it fails with the reason, and the cases after it are still checked. */
export const failedCase = (name: string, error: unknown): GoldenCase => ({
  case: name,
  error: Infinity,
  tolerance: 0,
  why: (error instanceof Error ? error.message : String(error)).split('\n')[0]!,
});

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
