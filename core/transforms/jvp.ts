/**
 * Forward mode without rules of its own: the pullback is linear in its cotangent, so its own pullback, at any point, is the
 * derivative itself. What only the first of the two needs is never computed.
 */
import { isFloat } from '../ir/dtype.ts';
import { shapeError } from '../ir/errors.ts';
import type { Tensor } from '../ir/tensor.ts';
import { leaves, mapTree, type Tree, unflatten } from '../ir/tree.ts';
import { sizeOf } from '../ir/view.ts';
import { cast } from '../ops/cast.ts';
import { alias } from '../ops/control.ts';
import { iota, zeros } from '../ops/fill.ts';
import { permute, reshape } from '../ops/layout.ts';
import { equal } from '../ops/math.ts';
import { grad, pullback, vjp } from './grad.ts';
import { vmap } from './vmap.ts';

/**
 * `linearize(f, x)` → [f(x), push]: push maps a tangent of x to the tangent of the result, dy = ∂f/∂x·v. Trees in, trees out.
 * @throws ShapeError when a tangent's shape is not that of its leaf. Cost: one trace; every push builds one pass over it.
 */
export function linearize<X extends Tree<Tensor>, Y extends Tree<Tensor>>(f: (x: X) => Y, x: X): [Y, (v: X) => Y] {
  const fresh = mapTree((t: Tensor) => alias(t), x) as X;
  const y = f(fresh);
  const [xs, ys] = [leaves<Tensor>(fresh), leaves<Tensor>(y)];
  const zero = ys.map((t) => alias(zeros(t.shape, t.dtype)));
  const back = pullback(
    ys,
    ys.map((t, i) => (isFloat(t.dtype) ? zero[i] : undefined)),
    xs,
  );
  const push = (v: X): Y => {
    const vs = leaves<Tensor>(v);
    const bad = xs.findIndex((t, i) => vs[i]?.shape.join() !== t.shape.join());
    if (bad >= 0 || vs.length !== xs.length)
      throw shapeError(
        'jvp',
        [xs[bad] ?? xs[0]!, ...(vs[bad] ? [vs[bad]] : [])],
        'tangents must have the shapes of what they are tangents of',
      );
    const there = back.flatMap((g, i) => (g ? [{ g, v: vs[i] }] : []));
    const dys = pullback(
      there.map(({ g }) => g),
      there.map(({ v: t }) => t),
      zero,
    );
    return unflatten(
      y,
      dys.map((d, i) => d ?? zeros(ys[i]!.shape, ys[i]!.dtype)),
    );
  };
  return [y, push];
}

/**
 * `jvp(f, x, v)` → [f(x), ∂f/∂x·v]: the derivative along the tangent v, a tree like x.
 * @throws ShapeError when a tangent's shape is not that of its leaf. Cost: about two evaluations of f.
 * @example jvp((x: Tensor) => sin(x), x, v) // [sin x, cos x · v]
 */
export function jvp<X extends Tree<Tensor>, Y extends Tree<Tensor>>(f: (x: X) => Y, x: X, v: X): [Y, Y] {
  const [y, push] = linearize(f, x);
  return [y, push(v)];
}

/** A tree like Y with R at its leaves. */
export type Leafwise<Y, R> = Y extends Tensor ? R : { [K in keyof Y]: Leafwise<Y[K], R> };

/** a tangent for every element: [n, …shape], one of which is 1 in each */
const basis = (t: Tensor): Tensor => {
  const n = sizeOf(t.shape);
  return reshape(cast(equal(iota([n, n], 0, 'i32'), iota([n, n], 1, 'i32')), t.dtype), [n, ...t.shape]);
};
/** a tree like `like` that is zero but for leaf k */
const only = <P extends Tree<Tensor>>(like: P, k: number, x: Tensor): P =>
  unflatten(
    like,
    leaves<Tensor>(like).map((t, i) => (i === k ? x : zeros(t.shape, t.dtype))),
  );

/** How a Jacobian is worked out: row by row from the results, or column by column from the arguments. */
export type JacobianMode = 'reverse' | 'forward';
/**
 * `jacobian(f)(x, ...rest)` → ∂f/∂x: for tensors y[…m] and x[…n] a tensor [...m, ...n]; for trees a tree like the result
 * with a tree like x at every leaf (jax.jacrev). Mode 'forward' costs a pass for every element of x instead of y
 * (jax.jacfwd); all passes run as one mapped computation.
 * @example jacobian((x: Tensor) => mul(x, x))(x) // x[3] → [3,3] with 2x on the diagonal
 */
export function jacobian<X extends Tree<Tensor>, R extends readonly unknown[], Y extends Tree<Tensor>>(
  f: (x: X, ...rest: R) => Y,
  mode: JacobianMode = 'reverse',
): (x: X, ...rest: R) => Leafwise<Y, X> {
  return (x, ...rest) => {
    const xs = leaves<Tensor>(x);
    if (mode === 'reverse') {
      const [y, pull] = vjp((fresh: X) => f(fresh, ...rest), x);
      const rows = leaves<Tensor>(y).map((t, k) => {
        const parts = vmap((ct: Tensor) => leaves<Tensor>(pull(only(y, k, ct))), [0])(basis(t));
        return unflatten(
          x,
          parts.map((p, i) => reshape(p, [...t.shape, ...xs[i]!.shape])),
        );
      });
      return unflatten<unknown>(y, rows) as Leafwise<Y, X>;
    }
    const [y, push] = linearize((fresh: X) => f(fresh, ...rest), x);
    const ys = leaves<Tensor>(y);
    const columns = xs.map((t, k) => {
      const parts = vmap((v: Tensor) => leaves<Tensor>(push(only(x, k, v))), [0])(basis(t));
      // [n, …y] → […y, …x]
      return parts.map((p, i) => {
        const last = [...p.shape.keys()].slice(1);
        return reshape(permute(p, [...last, 0]), [...ys[i]!.shape, ...t.shape]);
      });
    });
    const rows = ys.map((_, i) =>
      unflatten(
        x,
        columns.map((c) => c[i]!),
      ),
    );
    return unflatten<unknown>(y, rows) as Leafwise<Y, X>;
  };
}

/**
 * `hessian(f)(x, ...rest)` → ∂²f/∂x² of a scalar f: for a tensor x[n] a tensor [n, n]; for a tree a tree of trees.
 * @throws ShapeError when f's result is not a scalar. Cost: a pass over the gradient for every element of x.
 */
export const hessian = <X extends Tree<Tensor>, R extends readonly unknown[]>(
  f: (x: X, ...rest: R) => Tensor,
): ((x: X, ...rest: R) => Leafwise<X, X>) => jacobian<X, R, X>(grad(f), 'forward');
