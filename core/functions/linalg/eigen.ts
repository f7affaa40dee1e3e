/** Eigenvalues of symmetric matrices and singular values, by Jacobi's rotations (two- and one-sided). */
import { shapeError } from '../../ir/errors.ts';
import { checkDtypes } from '../../ir/rules.ts';
import { type Attrs, bindAll, type Composite, type OutSpec, type Tensor } from '../../ir/tensor.ts';
import { fold, unfold } from '../../ops/batching.ts';
import { cast } from '../../ops/cast.ts';
import { dot } from '../../ops/dot.ts';
import { full, iota, zeros } from '../../ops/fill.ts';
import { expandTo, reshape, unsqueeze } from '../../ops/layout.ts';
import { add, div, equal, mul, recip, select, sqrt, square, sub } from '../../ops/math.ts';
import { sum } from '../../ops/reduce.ts';
import { pad, slice } from '../../ops/slice.ts';
import { diag, diagonalOf, eye } from '../arrays.ts';
import { argsort } from '../sorting.ts';
import {
  block,
  checkSquare,
  cubed,
  definite,
  independent,
  stacked,
  symmetric,
  transpose,
  unstacked,
} from './matrices.ts';
import { moveOn, roundsFor, turn, turnOf } from './rotations.ts';

const oneOf = (b: number, n: number, dtype: Tensor['dtype']): Tensor =>
  expandTo(unsqueeze(eye(n, { dtype }), 0), [b, n, n]);
/** columns in the order of rows of positions: a product with a matrix of zeros and ones */
function reorder(x: Tensor, order: Tensor): Tensor {
  const [b, n] = order.shape as [number, number];
  const chosen = equal(iota([b, n, n], 1, 'i32'), expandTo(unsqueeze(order, 1), [b, n, n]));
  return dot(x, cast(chosen, x.dtype));
}
/** 1/(v_j − v_i) off the diagonal, 0 on it */
function gaps(v: Tensor): Tensor {
  const [b, n] = v.shape as [number, number];
  const gap = sub(unsqueeze(v, 1), unsqueeze(v, 2));
  const same = equal(iota([b, n, n], 1, 'i32'), iota([b, n, n], 2, 'i32'));
  return select(same, 0, recip(select(same, full(gap.shape, 1, gap.dtype), gap)));
}

/** eigh: a[b,n,n] symmetric → values w[b,n], rising, and vectors v[b,n,n] as columns. */
export const eighOp: Composite<Attrs> = {
  kind: 'composite',
  name: 'eigh',
  aliases: ['eigenvalues', 'eig'],
  doc: 'eigenvalues, rising, and eigenvectors of symmetric matrices',
  formula: 'a·v = v·diag(w), vᵀ·v = 1',
  shape(inputs): OutSpec[] {
    checkSquare('eigh', inputs);
    const [a] = inputs;
    return [
      { shape: a!.shape.slice(0, 2), dtype: a!.dtype },
      { shape: a!.shape, dtype: a!.dtype },
    ];
  },
  body([given]) {
    const [b, n] = given!.shape as [number, number, number];
    if (n === 0) return [zeros([b, 0], given!.dtype), given!];
    const even = n + (n % 2);
    // an odd one out meets a row of zeros, which never turns
    const more = [0, even - n] as const;
    let a = pad(symmetric(given!), [[0, 0], more, more]);
    let v = oneOf(b, even, a.dtype);
    const h = even / 2;
    for (let round = 0; round < roundsFor(even); round++) {
      const t = turnOf(
        diagonalOf(block(a, [0, h], [0, h])),
        diagonalOf(block(a, [h, even], [h, even])),
        diagonalOf(block(a, [0, h], [h, even])),
      );
      const [rows, columns] = [2, 1].map((axis) => ({ c: unsqueeze(t.c, axis), s: unsqueeze(t.s, axis) })) as [
        typeof t,
        typeof t,
      ];
      a = moveOn(moveOn(turn(turn(a, 1, rows), 2, columns), 1), 2);
      v = moveOn(turn(v, 2, columns), 2);
    }
    const w = diagonalOf(block(a, [0, n], [0, n]));
    const order = argsort(w);
    return [reshape(reorder(unsqueeze(w, 1), order), [b, n]), reorder(block(v, [0, n], [0, n]), order)];
  },
  // da = v·(diag(gw) + F∘(vᵀ·gv))·vᵀ made symmetric, F[i,j] = 1/(w_j − w_i)
  vjp([gw, gv], _x, _attrs, [w, v]) {
    let inner = diag(gw ?? zeros(w!.shape, w!.dtype));
    if (gv) inner = add(inner, mul(gaps(w!), dot(transpose(v!), gv)));
    return [symmetric(dot(dot(v!, inner), transpose(v!)))];
  },
  batch: (size, [a]) => bindAll(eighOp, [fold(a!)], {}).map((y) => unfold(y, size)),
  flops: ([a]) => 12 * cubed(a!.shape) * (5 + Math.ceil(Math.log2(a!.shape[1]! + 1))),
  sample: (pick) => {
    const [b, n] = [pick(1, 2), pick(1, 3)];
    return { operands: [{ shape: [b, n, n], make: definite }], attrs: {} };
  },
};
/**
 * `eigh(a[…,n,n])` → [w[…,n], v[…,n,n]]: eigenvalues of symmetric matrices, rising, and eigenvectors as columns
 * ((a + aᵀ)/2 is taken, as jax.numpy.linalg.eigh does). The derivative of vectors is infinite where eigenvalues are equal.
 * @throws ShapeError when matrices are not square. Cost: about 12n³·(5 + log₂ n) flop in as many rounds as n − 1 times
 * that: a graph of some 60 nodes a round, meant for n up to about 64.
 */
export function eigh(a: Tensor): [Tensor, Tensor] {
  const [w, v] = bindAll(eighOp, [stacked('eigh', a)], {}) as [Tensor, Tensor];
  return [reshape(w, a.shape.slice(0, -1)), unstacked(v, a)];
}

/** svd: a[b,m,n] with m ≥ n → u[b,m,n], s[b,n], falling, vt[b,n,n]. */
export const svdOp: Composite<Attrs> = {
  kind: 'composite',
  name: 'svd',
  aliases: ['singular values'],
  doc: 'thin singular value decomposition of tall matrices',
  formula: 'a = u·diag(s)·vt, uᵀ·u = vt·vtᵀ = 1',
  shape(inputs): OutSpec[] {
    const [a] = inputs;
    if (a!.shape.length !== 3 || a!.shape[1]! < a!.shape[2]!)
      throw shapeError('svd', inputs, 'the operand must be a[b,m,n] with m ≥ n');
    checkDtypes('svd', inputs, 'float');
    const [b, , n] = a!.shape as [number, number, number];
    return [a!.shape, [b, n], [b, n, n]].map((shape) => ({ shape, dtype: a!.dtype }));
  },
  body([a]) {
    const [b, m, n] = a!.shape as [number, number, number];
    if (n === 0) return [a!, zeros([b, 0], a!.dtype), zeros([b, 0, 0], a!.dtype)];
    const even = n + (n % 2);
    let u = pad(a!, [
      [0, 0],
      [0, 0],
      [0, even - n],
    ]);
    let v = oneOf(b, even, a!.dtype);
    for (let round = 0; round < roundsFor(even); round++) {
      const [one, other] = [slice(u, { axis: 2, stop: even / 2 }), slice(u, { axis: 2, start: even / 2 })];
      const t = turnOf(sum(square(one), 1, true), sum(square(other), 1, true), sum(mul(one, other), 1, true));
      [u, v] = [moveOn(turn(u, 2, t), 2), moveOn(turn(v, 2, t), 2)];
    }
    const [scaled, vectors] = [block(u, [0, m], [0, n]), block(v, [0, n], [0, n])];
    const s = sqrt(sum(square(scaled), 1));
    const order = argsort(s, -1, { descending: true });
    const length = select(equal(s, 0), full(s.shape, 1, s.dtype), s);
    return [
      reorder(div(scaled, unsqueeze(length, 1)), order),
      reshape(reorder(unsqueeze(s, 1), order), [b, n]),
      transpose(reorder(vectors, order)),
    ];
  },
  // J. Townsend 2016, Differentiating the singular value decomposition; F[i,j] = 1/(s_j² − s_i²)
  vjp([gu, gs, gvt], _x, _attrs, [u, s, vt]) {
    const [row, v] = [unsqueeze(s!, 1), transpose(vt!)];
    const f = gaps(square(s!));
    const skew = (x: Tensor, g: Tensor): Tensor => {
      const p = dot(transpose(x), g);
      return mul(f, sub(p, transpose(p)));
    };
    let inner = diag(gs ?? zeros(s!.shape, s!.dtype));
    let outside: Tensor | undefined;
    if (gu) {
      inner = add(inner, mul(skew(u!, gu), row));
      outside = dot(div(sub(gu, dot(u!, dot(transpose(u!), gu))), row), vt!);
    }
    if (gvt) inner = add(inner, mul(unsqueeze(s!, 2), skew(v, transpose(gvt))));
    const da = dot(dot(u!, inner), vt!);
    return [outside ? add(da, outside) : da];
  },
  batch: (size, [a]) => bindAll(svdOp, [fold(a!)], {}).map((y) => unfold(y, size)),
  flops: ([a]) => 12 * cubed(a!.shape) * (5 + Math.ceil(Math.log2(a!.shape[2]! + 1))),
  sample: (pick) => {
    const n = pick(1, 3);
    return { operands: [{ shape: [pick(1, 2), n + pick(0, 2), n], make: independent }], attrs: {} };
  },
};
/**
 * `svd(a[…,m,n])` → [u[…,m,k], s[…,k], vt[…,k,n]] with k = min(m, n): a = u·diag(s)·vt, singular values falling (the thin
 * form of jax.numpy.linalg.svd). Vectors of a singular value 0 are 0 on the longer side; derivatives of vectors are infinite
 * where values are equal. @throws ShapeError below rank 2 and for integers. Cost: as `eigh`.
 */
export function svd(a: Tensor): [Tensor, Tensor, Tensor] {
  const all = stacked('svd', a);
  const wide = all.shape[1]! < all.shape[2]!;
  const [u, s, vt] = bindAll(svdOp, [wide ? transpose(all) : all], {}) as [Tensor, Tensor, Tensor];
  const values = reshape(s, [...a.shape.slice(0, -2), s.shape[1]!]);
  return wide
    ? [unstacked(transpose(vt), a), values, unstacked(transpose(u), a)]
    : [unstacked(u, a), values, unstacked(vt, a)];
}
