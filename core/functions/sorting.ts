/**
 * Sorting by a bitonic network (Batcher 1968): log₂²n/2 rounds in which every element meets one other, the same on every
 * backend. Pairs (key, position) are compared, so that no two are equal, the order is stable and NaN comes after all
 * numbers: it carries the key of ∞ and a later position.
 */
import { highest, isFloat, lowest } from '../ir/dtype.ts';
import { shapeError } from '../ir/errors.ts';
import { axisOf, checkWhole } from '../ir/rules.ts';
import type { Tensor } from '../ir/tensor.ts';
import { sizeOf } from '../ir/view.ts';
import { cast } from '../ops/cast.ts';
import { concat } from '../ops/concat.ts';
import { stopGradient } from '../ops/control.ts';
import { full, iota } from '../ops/fill.ts';
import { takeAlong } from '../ops/gather.ts';
import { flip, permute, reshape } from '../ops/layout.ts';
import { add, equal, less, maximum, mul, select } from '../ops/math.ts';
import { slice } from '../ops/slice.ts';
import { isNan } from './comparisons.ts';

/** key and position of each element, [rows, n] with n a power of two */
interface Pairs {
  readonly key: Tensor;
  readonly at: Tensor;
}
const each = (f: (t: Tensor) => Tensor, { key, at }: Pairs): Pairs => ({ key: f(key), at: f(at) });

/** every element of a block meets one of its other half: the mirrored one, or that at the same place */
function meet(pairs: Pairs, half: number, mirrored: boolean, descending: boolean): Pairs {
  const [rows, n] = pairs.key.shape as [number, number];
  const blocks = each((t) => reshape(t, [rows, n / (2 * half), 2, half]), pairs);
  const turn = (p: Pairs): Pairs => (mirrored ? each((t) => flip(t, [-1]), p) : p);
  const low = each((t) => slice(t, { axis: 2, stop: 1 }), blocks);
  const high = turn(each((t) => slice(t, { axis: 2, start: 1 }), blocks));
  const before = descending ? less(low.key, high.key) : less(high.key, low.key);
  const swap = maximum(before, mul(equal(low.key, high.key), less(high.at, low.at)));
  const first: Pairs = { key: select(swap, high.key, low.key), at: select(swap, high.at, low.at) };
  const second = turn({ key: select(swap, low.key, high.key), at: select(swap, low.at, high.at) });
  const joined = (a: Tensor, b: Tensor): Tensor => reshape(concat([a, b], 2), [rows, n]);
  return { key: joined(first.key, second.key), at: joined(first.at, second.at) };
}

/** the order of each row: i32[rows, n] */
function orderOf(x: Tensor, descending: boolean): Tensor {
  const [rows, n] = x.shape as [number, number];
  const values = x.dtype === 'bool' ? cast(x, 'u32') : x;
  const [least, most] = [lowest(values.dtype), highest(values.dtype)];
  let width = 1;
  while (width < n) width *= 2;
  const here = iota([rows, n], 1, 'i32');
  const nan = isNan(values);
  const spare = [rows, width - n];
  let pairs: Pairs = {
    key: isFloat(values.dtype) ? select(nan, most, values) : values,
    // NaN after ∞, or before it when the order is turned round
    at: isFloat(values.dtype) ? add(here, select(nan, full([rows, n], descending ? -width : width, 'i32'), 0)) : here,
  };
  if (width > n)
    pairs = {
      key: concat([pairs.key, full(spare, descending ? least : most, values.dtype)], 1),
      at: concat([pairs.at, full(spare, 2 * width, 'i32')], 1),
    };
  for (let block = 1; block < width; block *= 2)
    for (let half = block; half >= 1; half /= 2) pairs = meet(pairs, half, half === block, descending);
  const at = slice(pairs.at, { axis: 1, stop: n });
  return add(
    at,
    select(less(at, 0), full(at.shape, width, 'i32'), select(less(at, width), 0, full(at.shape, -width, 'i32'))),
  );
}

/** The direction of a sort. */
export interface SortOptions {
  /** largest first; equal elements keep their order, NaN comes first */
  readonly descending?: boolean;
}
/**
 * `argsort(x[2,5], 1)` → i32[2,5]: the positions in rising order along an axis, the last by default; stable, NaN last
 * (jax.numpy.argsort). No gradient flows through positions. Cost: log₂²n/2 passes.
 */
export function argsort(x: Tensor, axis = -1, { descending = false }: SortOptions = {}): Tensor {
  const at = axisOf('argsort', [x], axis);
  const front = x.shape.map((_, i) => i).filter((i) => i !== at);
  const perm = [...front, at];
  const n = x.shape[at]!;
  if (sizeOf(x.shape) === 0) return full(x.shape, 0, 'i32');
  const rows = reshape(permute(stopGradient(x), perm), [sizeOf(front.map((i) => x.shape[i]!)), n]);
  const order = reshape(
    orderOf(rows, descending),
    perm.map((i) => x.shape[i]!),
  );
  return permute(
    order,
    perm.map((_, i) => perm.indexOf(i)),
  );
}
/**
 * `sort(x[2,5], 1)` → [2,5] in rising order along an axis, the last by default; NaN last (jax.numpy.sort). The gradient
 * goes back to where each value came from. Cost: log₂²n/2 passes.
 */
export const sort = (x: Tensor, axis = -1, options: SortOptions = {}): Tensor =>
  takeAlong(x, argsort(x, axis, options), axis);
/**
 * `topK(x[2,5], 3)` → [values[2,3], positions i32[2,3]]: the k largest along an axis, largest first, the earlier of equals
 * first (jax.lax.top_k). @throws ShapeError when there are fewer than k. Cost: that of `sort`.
 */
export function topK(x: Tensor, k: number, axis = -1): [Tensor, Tensor] {
  const at = axisOf('topK', [x], axis);
  checkWhole('topK', [x], 'k', [k]);
  if (k > x.shape[at]!) throw shapeError('topK', [x], `there are no ${k} along axis ${at}`);
  const places = slice(argsort(x, at, { descending: true }), { axis: at, stop: k });
  return [takeAlong(x, places, at), places];
}
