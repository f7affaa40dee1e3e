/**
 * Jacobi's rotations in rounds: every round rotates n/2 pairs of columns at once, those at the same place of the left and
 * the right half, then the columns move on as in a tournament, so that after n − 1 rounds all pairs have met and everyone
 * stands where they began.
 */
import type { Tensor } from '../../ir/tensor.ts';
import { concat } from '../../ops/concat.ts';
import { abs, add, div, less, mul, neg, recip, rsqrt, select, sqrt, square, sub } from '../../ops/math.ts';
import { slice } from '../../ops/slice.ts';

/** cosine and sine of a rotation for each pair */
export interface Turn {
  readonly c: Tensor;
  readonly s: Tensor;
}
/**
 * Below this share of the difference on the diagonal a rotation changes nothing, while squares of its inverse may overflow,
 * and then derivatives are NaN.
 */
const NOTHING = { f64: 1e-20, f32: 1e-12 };
/** the smaller rotation that clears `off` between `one` and `other` on the diagonal of a symmetric 2×2 matrix */
export function turnOf(one: Tensor, other: Tensor, off: Tensor): Turn {
  const apart = sub(other, one);
  const turns = less(mul(abs(apart), off.dtype === 'f64' ? NOTHING.f64 : NOTHING.f32), abs(off));
  const ratio = div(mul(apart, 0.5), select(turns, off, add(mul(off, 0), 1)));
  const size = recip(add(abs(ratio), sqrt(add(square(ratio), 1))));
  const t = select(turns, select(less(ratio, 0), neg(size), size), 0);
  const c = rsqrt(add(square(t), 1));
  return { c, s: mul(t, c) };
}
/** both halves of an axis, turned against each other */
export function turn(x: Tensor, axis: number, { c, s }: Turn): Tensor {
  const h = x.shape[axis]! / 2;
  const [one, other] = [slice(x, { axis, stop: h }), slice(x, { axis, start: h })];
  return concat([sub(mul(c, one), mul(s, other)), add(mul(s, one), mul(c, other))], axis);
}
/** the tournament's next round: the first stays, the others move round one place */
export function moveOn(x: Tensor, axis: number): Tensor {
  const n = x.shape[axis]!;
  const h = n / 2;
  if (h === 1) return x;
  const part = (start: number, stop: number) => slice(x, { axis, start, stop });
  return concat([part(0, 1), part(h, h + 1), part(1, h - 1), part(h + 1, n), part(h - 1, h)], axis);
}
/** rounds after which rotations change nothing more: each sweep of n − 1 squares what is left */
export const roundsFor = (n: number): number => (n < 3 ? 1 : (n - 1) * (5 + Math.ceil(Math.log2(n))));
