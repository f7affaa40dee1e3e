/** Reading and writing pieces whose place is a tensor, written in `gather`: ids outside read zeros, its derivative is `scatterAdd`. */
import { shapeError } from '../ir/errors.ts';
import { checkIds, checkWhole } from '../ir/rules.ts';
import type { Shape, Tensor } from '../ir/tensor.ts';
import { sizeOf } from '../ir/view.ts';
import { cast } from '../ops/cast.ts';
import { full, iota } from '../ops/fill.ts';
import { gather, take } from '../ops/gather.ts';
import { expandTo, reshape, unsqueeze } from '../ops/layout.ts';
import { add, equal, less, maximum, minimum, mul, not, select, sub } from '../ops/math.ts';
import { max } from '../ops/reduce.ts';

/**
 * `scatterSet(x[v,d], ids[n], rows[n,d])` → [v,d]: x with rows in the place of those the ids name; of rows for one place
 * the last stays, ids outside [0, v) are left out (x.at[ids].set(rows) in jax.numpy). No gradient flows to what was
 * replaced. @throws ShapeError when ids are not integers or shapes do not fit. Cost: v·n comparisons, one pass over x.
 */
export function scatterSet(x: Tensor, ids: Tensor, rows: Tensor): Tensor {
  checkIds('scatterSet', [x, ids, rows], ids);
  const tail = x.shape.slice(1);
  if (x.shape.length === 0 || rows.shape.join() !== [...ids.shape, ...tail].join() || rows.dtype !== x.dtype)
    throw shapeError(
      'scatterSet',
      [x, ids, rows],
      'operands must be x[v, …d], integer ids […i] and rows […i, …d] of the dtype of x',
    );
  const [v, n] = [x.shape[0]!, sizeOf(ids.shape)];
  if (n === 0) return x;
  const names = equal(expandTo(reshape(cast(ids, 'i32'), [1, n]), [v, n]), iota([v, n], 0, 'i32'));
  // the last of the rows that name each place, −1 where none does
  const last = max(select(names, iota([v, n], 1, 'i32'), -1), 1);
  const placed = gather(reshape(rows, [n, ...tail]), last);
  const kept = reshape(less(last, 0), [v, ...tail.map(() => 1)]);
  return select(expandTo(kept, x.shape), x, placed);
}

/** the first position of a piece, moved so that the piece lies inside (as jax.lax does) */
const clamped = (start: Tensor | number, n: number, size: number): Tensor => {
  const at = typeof start === 'number' ? full([], start, 'i32') : cast(start, 'i32');
  return minimum(maximum(at, 0), n - size);
};
function checkPiece(op: string, x: Tensor, starts: readonly (Tensor | number)[], sizes: Shape): void {
  checkWhole(op, [x], 'sizes', sizes);
  const places = starts.filter((s) => typeof s !== 'number');
  if (starts.length !== x.shape.length || sizes.length !== x.shape.length || sizes.some((n, i) => n > x.shape[i]!))
    throw shapeError(
      op,
      [x],
      `needs a start and a size within the operand for each of its ${x.shape.length} axes, not sizes [${sizes.join(', ')}]`,
    );
  for (const s of places) {
    checkIds(op, [x, ...places], s);
    if (s.shape.length > 0) throw shapeError(op, [x, ...places], 'starts must be scalars');
  }
}
/**
 * `dynamicSlice(x[8,4], [i, 0], [2, 4])` → [2,4]: the piece of these sizes that starts at [i, 0]; starts are integer
 * scalars, tensors or numbers, moved so that the piece lies inside (jax.lax.dynamic_slice).
 * @throws ShapeError when sizes do not fit or starts are no integers. Cost: one read and one write of the piece for each axis cut.
 */
export function dynamicSlice(x: Tensor, starts: readonly (Tensor | number)[], sizes: Shape): Tensor {
  checkPiece('dynamicSlice', x, starts, sizes);
  return sizes.reduce<Tensor>(
    (y, size, axis) =>
      size === x.shape[axis]
        ? y
        : take(y, add(iota([size], 0, 'i32'), clamped(starts[axis]!, x.shape[axis]!, size)), axis),
    x,
  );
}
/**
 * `dynamicUpdateSlice(x[8,4], piece[2,4], [i, 0])` → [8,4]: x with the piece written where it starts; starts as in
 * `dynamicSlice`. No gradient flows to what was replaced. @throws ShapeError as there. Cost: one pass over x for each axis.
 */
export function dynamicUpdateSlice(x: Tensor, piece: Tensor, starts: readonly (Tensor | number)[]): Tensor {
  checkPiece('dynamicUpdateSlice', x, starts, piece.shape);
  let inside: Tensor = full(x.shape, 1, 'bool');
  let wide = piece;
  for (const [axis, n] of x.shape.entries()) {
    const size = piece.shape[axis]!;
    const at = sub(iota([n], 0, 'i32'), clamped(starts[axis]!, n, size));
    wide = take(wide, at, axis);
    const here = mul(not(less(at, 0)), less(at, size));
    const apart = x.shape.slice(axis + 1).reduce<Tensor>((t) => unsqueeze(t, -1), here);
    inside = mul(inside, apart);
  }
  return select(inside, wide, x);
}
