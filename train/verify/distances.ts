/** Comparing what a backend computes with golden tensors: how far they lie apart, and how far they may. */
import { type Backend, evaluate, permute, read, type Tensor, tensor } from '../../core/index.ts';
import type { GoldenCase, GoldenTensor } from './golden.ts';

export type Precision = 'f32' | 'f64';

/** f64 where the backend has it (the reference backend), f32 elsewhere. */
export const precisionOf = (backend: Backend): Precision => (backend.supports('f64') ? 'f64' : 'f32');

/** A golden tensor as floats of the given precision. */
export const floats = ({ data, shape }: GoldenTensor, precision: Precision): Tensor =>
  tensor(precision === 'f64' ? data : Float32Array.from(data), shape, precision);

/** A golden tensor of integers, as i32. */
export const integers = ({ data, shape }: GoldenTensor): Tensor => tensor(Int32Array.from(data), shape, 'i32');

export const toChannelsLast = (x: Tensor): Tensor => permute(x, [0, 2, 3, 1]);
export const toChannelsFirst = (x: Tensor): Tensor => permute(x, [0, 3, 1, 2]);

/** Computes all tensors of a record in one program and reads them. */
export async function results<K extends string>(
  tensors: Readonly<Record<K, Tensor>>,
  backend: Backend,
): Promise<Readonly<Record<K, ArrayLike<number>>>> {
  const done = evaluate(tensors, backend);
  const values: [string, ArrayLike<number>][] = [];
  for (const [name, value] of Object.entries<Tensor>(done)) values.push([name, await read(value)]);
  return Object.fromEntries(values) as Record<K, ArrayLike<number>>;
}

/** max |a|. */
export const largest = (values: ArrayLike<number>): number => {
  let worst = 0;
  for (let i = 0; i < values.length; i++) worst = Math.max(worst, Math.abs(values[i]!));
  return worst;
};

/** max |a − b|; ∞ for other lengths or NaN. */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let worst = 0;
  for (let i = 0; i < a.length; i++) {
    const d = Math.abs(a[i]! - b[i]!);
    if (!(d <= worst)) worst = Number.isNaN(d) ? Number.POSITIVE_INFINITY : d;
  }
  return worst;
}

export type Limits = {
  readonly precision: Precision;
  /** largest difference between the reference's own float32 and float64 runs, where known */
  readonly float32Error?: number | undefined;
  /** relative L2 distance of the reference's two runs in its worst parameter's gradient, where known */
  readonly gradientError?: number | undefined;
  /** what the error is relative to, where the largest expected value is nothing but rounding */
  readonly scale?: number;
  /** a wider limit for f64, where the reference itself is not f64 throughout */
  readonly f64?: { readonly tolerance: number; readonly why: string };
};

const F64 = { tolerance: 1e-10, why: 'f64, another order of summation' };
const STORED_F32 = { tolerance: 1e-7, why: 'f64, but stored as f32 (2⁻²⁴ of a value)' };
/** Eight roundings: what is left to a correct f32 implementation where the reference happened to make no error. */
const FEW_ROUNDINGS = 8 * 2 ** -24;
/** Where no f32 run was stored: gradients of tiny U-Nets differ by up to 1e-5 between the reference's two runs, times ten. */
const F32_UNKNOWN = 1e-4;
/** For gradients in f32. @param float32 relative L2 distance between the reference's two runs, where known */
export const gradientLimit = (float32 = 0): Pick<GoldenCase, 'tolerance' | 'why'> => ({
  tolerance: Math.max(F32_UNKNOWN, 10 * float32),
  why: 'f32; ten times the error of the float32 reference on comparable sums',
});

/** Error and tolerance, both relative to the largest expected value. */
export function compared(
  name: string,
  actual: ArrayLike<number>,
  expected: Pick<GoldenTensor, 'data' | 'dtype'>,
  { precision, float32Error, gradientError, f64, scale: given }: Limits,
): GoldenCase {
  const scale = given ?? (largest(expected.data) || 1);
  const error = distance(actual, expected.data) / scale;
  if (precision === 'f64') return { case: name, error, ...(f64 ?? (expected.dtype === 'F64' ? F64 : STORED_F32)) };
  if (float32Error === undefined) return { case: name, error, ...gradientLimit(gradientError) };
  const tolerance = Math.max((10 * float32Error) / scale, FEW_ROUNDINGS);
  return {
    case: name,
    error,
    tolerance,
    why: 'f32; ten times the error of the float32 reference, at least 8 roundings',
  };
}
