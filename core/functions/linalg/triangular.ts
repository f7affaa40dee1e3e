/**
 * Cholesky factors and triangular systems, by halves: a matrix of size n is four blocks of size n/2, most of the work is
 * in the products between them. Both have closed derivatives in terms of each other.
 */
import { shapeError } from '../../ir/errors.ts';
import { type Attrs, bind, type Composite, type Tensor } from '../../ir/tensor.ts';
import { fold, mapAll, unfold } from '../../ops/batching.ts';
import { concat } from '../../ops/concat.ts';
import { dot } from '../../ops/dot.ts';
import { zeros } from '../../ops/fill.ts';
import { flip } from '../../ops/layout.ts';
import { div, neg, sqrt, sub } from '../../ops/math.ts';
import { tril } from '../arrays.ts';
import {
  block,
  blocks,
  checkSquare,
  cubed,
  definite,
  halfLower,
  matched,
  stacked,
  symmetric,
  transpose,
  unstacked,
} from './matrices.ts';

/** x of l·x = b for lower triangular l[b,n,n], b[b,n,m] */
function forward(l: Tensor, b: Tensor): Tensor {
  const n = l.shape[1]!;
  if (n === 1) return div(b, l);
  const h = Math.ceil(n / 2);
  const top = forward(block(l, [0, h], [0, h]), block(b, [0, h], [0, b.shape[2]!]));
  const rest = sub(block(b, [h, n], [0, b.shape[2]!]), dot(block(l, [h, n], [0, h]), top));
  return concat([top, forward(block(l, [h, n], [h, n]), rest)], 1);
}

/** triangularSolve: l[b,n,n] lower triangular, b[b,n,m] → x[b,n,m] with l·x = b. What stands above the diagonal is not read. */
export const triangularSolveOp: Composite<Attrs> = {
  kind: 'composite',
  name: 'triangularSolve',
  aliases: ['solve_triangular', 'trsm', 'forward substitution'],
  doc: 'solution of lower triangular systems',
  formula: 'l·x = b',
  shape(inputs) {
    checkSquare('triangularSolve', inputs);
    const [l, b] = inputs;
    if (b!.shape.length !== 3 || b!.shape[0] !== l!.shape[0] || b!.shape[1] !== l!.shape[1])
      throw shapeError('triangularSolve', inputs, 'operands must be l[b,n,n] and b[b,n,m]');
    return { shape: b!.shape, dtype: b!.dtype };
  },
  body: ([l, b]) => [b!.shape[1] === 0 ? b! : forward(l!, b!)],
  // db = l⁻ᵀ·g, dl = −tril(db·xᵀ)
  vjp([g], [l], _attrs, [x]) {
    const db = backward(l!, g!);
    return [neg(tril(dot(db, transpose(x!)))), db];
  },
  batch: (size, inputs, mapped) => [unfold(bind(triangularSolveOp, mapAll(size, inputs, mapped).map(fold), {}), size)],
  flops: ([l, b]) => l!.shape[1]! * b!.shape.reduce((p, n) => p * n, 1),
  sample(pick) {
    const [b, n] = [pick(1, 2), pick(1, 4)];
    // diagonals that are not near zero
    return { operands: [{ shape: [b, n, n], range: [1, 2] }, { shape: [b, n, pick(1, 3)] }], attrs: {} };
  },
};
/** x of u·x = b for upper triangular u[b,n,n], which read backwards is lower triangular */
export const solveUpper = (u: Tensor, b: Tensor): Tensor =>
  flip(bind(triangularSolveOp, [flip(u, [1, 2]), flip(b, [1])], {}), [1]);
/** x of lᵀ·x = b */
const backward = (l: Tensor, b: Tensor): Tensor => solveUpper(transpose(l), b);

/** l of a = l·lᵀ */
function factor(a: Tensor): Tensor {
  const n = a.shape[1]!;
  if (n === 1) return sqrt(a);
  const h = Math.ceil(n / 2);
  const one = factor(block(a, [0, h], [0, h]));
  const side = transpose(forward(one, transpose(block(a, [h, n], [0, h]))));
  const other = factor(sub(block(a, [h, n], [h, n]), dot(side, transpose(side))));
  return blocks([
    [one, zeros([a.shape[0]!, h, n - h], a.dtype)],
    [side, other],
  ]);
}

/** cholesky: a[b,n,n] symmetric and positive definite → l[b,n,n] lower triangular. Reads the lower triangle; otherwise NaN. */
export const choleskyOp: Composite<Attrs> = {
  kind: 'composite',
  name: 'cholesky',
  doc: 'lower triangular factor of symmetric positive definite matrices',
  formula: 'a = l·lᵀ',
  shape(inputs) {
    checkSquare('cholesky', inputs);
    return { shape: inputs[0]!.shape, dtype: inputs[0]!.dtype };
  },
  body: ([a]) => [a!.shape[1] === 0 ? a! : factor(symmetric(a!))],
  // da = l⁻ᵀ·Φ(lᵀ·g)·l⁻¹ made symmetric, Φ the lower triangle with half its diagonal (Murray 2016)
  vjp([g], _x, _attrs, [l]) {
    const inner = halfLower(dot(transpose(l!), tril(g!)));
    const left = backward(l!, inner);
    return [symmetric(transpose(backward(l!, transpose(left))))];
  },
  batch: (size, [a]) => [unfold(bind(choleskyOp, [fold(a!)], {}), size)],
  flops: ([a]) => cubed(a!.shape) / 3,
  sample(pick) {
    const [b, n] = [pick(1, 2), pick(1, 4)];
    return { operands: [{ shape: [b, n, n], make: definite }], attrs: {} };
  },
};

/** Which triangle a system is read from, and whether it is turned. */
export interface TriangularOptions {
  /** a is lower triangular (default) or upper; the other triangle is not read */
  readonly lower?: boolean;
  /** solve aᵀ·x = b */
  readonly transposed?: boolean;
}
/**
 * `triangularSolve(a[…,n,n], b[…,n,m])` → x[…,n,m] with a·x = b, or b[n] → x[n] (jax.scipy.linalg.solve_triangular).
 * @throws ShapeError when matrices are not square or sizes differ. Cost: n²·m flop; a zero on the diagonal gives infinities.
 */
export function triangularSolve(
  a: Tensor,
  b: Tensor,
  { lower = true, transposed = false }: TriangularOptions = {},
): Tensor {
  return matched('triangularSolve', a, b, (m, rhs) => {
    const turned = transposed ? transpose(m) : m;
    return lower !== transposed ? bind(triangularSolveOp, [turned, rhs], {}) : solveUpper(turned, rhs);
  });
}
/**
 * `cholesky(a[…,n,n])` → l[…,n,n], lower triangular with a = l·lᵀ, of symmetric positive definite matrices ((a + aᵀ)/2 is
 * taken, as jax.numpy.linalg.cholesky does); of others NaN. @throws ShapeError when matrices are not square. Cost: n³/3 flop.
 */
export const cholesky = (a: Tensor): Tensor => unstacked(bind(choleskyOp, [stacked('cholesky', a)], {}), a);
