/** A change in the form of a singular value decomposition, s·(A ⊙ E)·B: its fields, start, importance and penalty. */
import {
  abs,
  add,
  dot,
  eye,
  less,
  mean,
  mul,
  reshape,
  sqrt,
  square,
  sub,
  sum,
  swap,
  type Tensor,
  tensor,
  where,
  zeros,
} from '../../core/index.ts';
import { foldKey, type HostKey, normalNumbers } from '../adapter.ts';
import { inputsOf } from './low-rank.ts';
import { Field, type Place } from './method.ts';

export type Triplet = { readonly A: Tensor; readonly E: Tensor; readonly B: Tensor };
/** Smoothed sensitivity and its smoothed deviation, entry by entry. */
export type Sensed = { readonly ipt: Triplet; readonly unc: Triplet };

const each = (f: (key: keyof Triplet) => Tensor): Triplet => ({ A: f('A'), E: f('E'), B: f('B') });

/** A[d_in, r], E[r], B[r, d_out] */
export const tripletFields = (place: Place, rank: number, trained = true) => ({
  A: new Field([inputsOf(place), rank], 1, trained),
  E: new Field([rank], 0, trained),
  B: new Field([rank, place[0]], 0, trained),
});
/** E = 0, A and B ~ N(0, 0.02²) by a module's path. */
export function drawnTriplet(key: HostKey, path: string, place: Place, rank: number): Triplet {
  const draw = (what: string, shape: readonly [number, number]) =>
    tensor(normalNumbers(foldKey(key, path, what), shape[0] * shape[1], 0.02), shape);
  return { A: draw('A', [inputsOf(place), rank]), E: zeros([rank]), B: draw('B', [rank, place[0]]) };
}
/** What is sensed before the first step: nothing. */
export function unsensed(place: Place, rank: number): Sensed {
  const none = () => ({ A: zeros([inputsOf(place), rank]), E: zeros([rank]), B: zeros([rank, place[0]]) });
  return { ipt: none(), unc: none() };
}

/** A score of every triplet: s(E) + mean s(A) + mean s(B), s = smoothed sensitivity · uncertainty. */
export function scoresOf({ ipt, unc }: Sensed): Tensor {
  const s = each((key) => mul(ipt[key], unc[key]));
  return add(s.E, add(mean(s.A, 0), mean(s.B, 1)));
}

/** The smoothed sensitivities after an update with gradient g, where it `learns`. */
export function smoothed(
  p: Triplet & Sensed,
  g: Triplet,
  learns: Tensor,
  c: { readonly sensitivityDecay: number; readonly uncertaintyDecay: number },
): Sensed {
  const sensitivity = each((key) => abs(mul(p[key], g[key])));
  const moved = (before: Triplet, now: Triplet, beta: number) =>
    each((key) => where(learns, add(mul(before[key], beta), mul(now[key], 1 - beta)), before[key]));
  const ipt = moved(p.ipt, sensitivity, c.sensitivityDecay);
  const unc = moved(
    p.unc,
    each((key) => abs(sub(sensitivity[key], ipt[key]))),
    c.uncertaintyDecay,
  );
  return { ipt, unc };
}

/** XᵀX − D of columns X[n, r], D diagonal: 1, or what is given for each. */
export function offIdentity(X: Tensor, diagonal: Tensor | number = 1): Tensor {
  const r = X.shape[1]!;
  const rows = reshape(X, [1, ...X.shape]);
  return sub(reshape(dot(swap(rows), rows), [r, r]), mul(eye(r, { dtype: X.dtype }), diagonal));
}
/** √x of sums of squares, whose derivative at 0 is 0, not ∞·0: columns do come to be orthonormal to the last bit. */
export function rootOf(x: Tensor): Tensor {
  const some = where(less(0, x), 1, mul(x, 0));
  return mul(sqrt(where(less(0, x), x, 1)), some);
}
/** w times the mean over all A and B of ‖AᵀA − 1‖_F and ‖BBᵀ − 1‖_F, `own` is 1 for the ranks there are */
export function orthogonality(modules: readonly (Triplet & { readonly own: Tensor })[], w: number): Tensor {
  const all = modules.flatMap(({ A, B, own }) => [A, swap(B)].map((X) => rootOf(sum(square(offIdentity(X, own))))));
  return mul(
    all.reduce((x, y) => add(x, y)),
    w / all.length,
  );
}
