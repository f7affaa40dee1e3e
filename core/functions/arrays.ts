/** Making, cutting and rearranging arrays: views, `concat`, and comparisons of coordinates. Names follow jax.numpy. */
import type { DType } from '../ir/dtype.ts';
import { shapeError } from '../ir/errors.ts';
import { axisOf, checkIds, checkWhole } from '../ir/rules.ts';
import type { Shape, Tensor } from '../ir/tensor.ts';
import { cast } from '../ops/cast.ts';
import { concat } from '../ops/concat.ts';
import { iota } from '../ops/fill.ts';
import { expandTo, reshape, unsqueeze } from '../ops/layout.ts';
import { add, equal, less, mul, select } from '../ops/math.ts';
import { sum } from '../ops/reduce.ts';
import { slice } from '../ops/slice.ts';

/** `arange(2, 8, 2)` → [2, 4, 6]: from start below stop by steps. @throws ShapeError for a step of 0. Cost: none. */
export function arange(start: number, stop: number, step = 1, dtype: DType = 'f32'): Tensor {
  if (!(Math.abs(step) > 0)) throw shapeError('arange', [], `the step must not be ${step}`);
  const n = Math.max(0, Math.ceil((stop - start) / step));
  return add(mul(iota([n], 0, dtype), step), start);
}
/** `linspace(0, 1, 5)` → [0, ¼, ½, ¾, 1]: n numbers at equal distances, both ends included. Cost: none. */
export function linspace(start: number, stop: number, n = 50, dtype: DType = 'f32'): Tensor {
  checkWhole('linspace', [], 'the number of points', [n]);
  const i = iota([n], 0, dtype);
  const between = add(mul(i, n > 1 ? (stop - start) / (n - 1) : 0), start);
  // the last one exactly
  return n > 1 ? select(equal(i, n - 1), stop, between) : between;
}
/** where the coordinate along the last axis is that of the one before it, and `k` more */
const diagonal = (shape: Shape, k: number): Tensor => equal(add(iota(shape, -2, 'i32'), k), iota(shape, -1, 'i32'));
/** `eye(3)` → [3,3]: ones on the diagonal (the k-th above it), zeros elsewhere; `eye(2, { columns: 3 })` → [2,3]. Cost: none. */
export function eye(
  n: number,
  {
    columns = n,
    k = 0,
    dtype = 'f32',
  }: { readonly columns?: number; readonly k?: number; readonly dtype?: DType } = {},
): Tensor {
  checkWhole('eye', [], 'sizes', [n, columns]);
  return cast(diagonal([n, columns], k), dtype);
}
/** `diag(v[3])` → [3,3] with v on the diagonal; leading axes are kept: v[…,n] → […,n,n]. Cost: none inside a cluster. */
export function diag(v: Tensor): Tensor {
  axisOf('diag', [v], -1);
  const shape = [...v.shape, v.shape.at(-1)!];
  return select(diagonal(shape, 0), expandTo(unsqueeze(v, -1), shape), 0);
}
/** `diagonalOf(a[…,m,n])` → […,min(m,n)]: the elements on the diagonal (jax.numpy.diagonal of the last two axes). Cost: one read. */
export function diagonalOf(a: Tensor): Tensor {
  axisOf('diagonalOf', [a], -2);
  const n = Math.min(...a.shape.slice(-2));
  const square = slice(a, { axis: -1, stop: n }, { axis: -2, stop: n });
  return sum(select(diagonal(square.shape, 0), square, 0), -1);
}
/** `tril(a[…,m,n], k)`: zeros above the k-th diagonal. @throws ShapeError below rank 2. Cost: one pass. */
export function tril(a: Tensor, k = 0): Tensor {
  axisOf('tril', [a], -2);
  return select(less(add(iota(a.shape, -2, 'i32'), k), iota(a.shape, -1, 'i32')), 0, a);
}
/** `triu(a[…,m,n], k)`: zeros below the k-th diagonal. @throws ShapeError below rank 2. Cost: one pass. */
export function triu(a: Tensor, k = 0): Tensor {
  axisOf('triu', [a], -2);
  return select(less(iota(a.shape, -1, 'i32'), add(iota(a.shape, -2, 'i32'), k)), 0, a);
}
/**
 * `oneHot(ids[2,3], 5)` → f32[2,3,5]: 1 where the last coordinate is the id; ids outside [0, n) make rows of zeros.
 * @throws ShapeError when ids are not integers. Cost: none inside a cluster.
 */
export function oneHot(ids: Tensor, n: number, dtype: DType = 'f32'): Tensor {
  checkIds('oneHot', [ids], ids);
  checkWhole('oneHot', [ids], 'the number of classes', [n]);
  const shape = [...ids.shape, n];
  return cast(equal(expandTo(unsqueeze(ids, -1), shape), iota(shape, -1, ids.dtype)), dtype);
}

/** `tile(x[2], [2, 3])` → [2,6]: the whole array repeated along each axis; missing axes are put in front. Cost: one write. */
export function tile(x: Tensor, times: readonly number[]): Tensor {
  checkWhole('tile', [x], 'times', times);
  const rank = Math.max(times.length, x.shape.length);
  const shape = [...new Array<number>(rank - x.shape.length).fill(1), ...x.shape];
  const by = [...new Array<number>(rank - times.length).fill(1), ...times];
  const apart = expandTo(
    reshape(
      x,
      shape.flatMap((n) => [1, n]),
    ),
    shape.flatMap((n, i) => [by[i]!, n]),
  );
  return reshape(
    apart,
    shape.map((n, i) => n * by[i]!),
  );
}
/** `repeat(x[2,3], 2, 1)` → [2,6]: every element `times` times in a row along an axis (jax.numpy.repeat). Cost: one write. */
export function repeat(x: Tensor, times: number, axis: number): Tensor {
  checkWhole('repeat', [x], 'times', [times]);
  const at = axisOf('repeat', [x], axis);
  const apart = unsqueeze(x, at + 1);
  const wide = expandTo(
    apart,
    apart.shape.map((n, i) => (i === at + 1 ? times : n)),
  );
  return reshape(
    wide,
    x.shape.map((n, i) => (i === at ? n * times : n)),
  );
}
/** `roll(x[4], 1, 0)`: [x₃, x₀, x₁, x₂]: elements moved along an axis, round its end. Cost: one read and one write. */
export function roll(x: Tensor, by: number, axis: number): Tensor {
  if (!Number.isInteger(by)) throw shapeError('roll', [x], `moves by whole numbers, not ${by}`);
  const at = axisOf('roll', [x], axis);
  const n = x.shape[at]!;
  const cut = n === 0 ? 0 : ((-by % n) + n) % n;
  return cut === 0 ? x : concat([slice(x, { axis: at, start: cut }), slice(x, { axis: at, stop: cut })], at);
}
