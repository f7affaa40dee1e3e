/** What linear algebra here shares: matrices […, n, n] as a batch [b, n, n], blocks of them, products and masks. */
import { shapeError } from '../../ir/errors.ts';
import { checkDtypes } from '../../ir/rules.ts';
import type { Shape, Tensor } from '../../ir/tensor.ts';
import { sizeOf } from '../../ir/view.ts';
import { concat } from '../../ops/concat.ts';
import { reshape, squeeze, swap, unsqueeze } from '../../ops/layout.ts';
import { add, mul } from '../../ops/math.ts';
import { slice } from '../../ops/slice.ts';
import { tril } from '../arrays.ts';

/** a[…,m,n] as [b,m,n]. @throws ShapeError below rank 2 and for integers */
export function stacked(op: string, a: Tensor): Tensor {
  if (a.shape.length < 2) throw shapeError(op, [a], 'the operand must be matrices […, m, n]');
  checkDtypes(op, [a], 'float');
  return reshape(a, [sizeOf(a.shape.slice(0, -2)), ...a.shape.slice(-2)]);
}
/** [b,m,n] with the leading axes of a again */
export const unstacked = (y: Tensor, like: Tensor): Tensor =>
  reshape(y, [...like.shape.slice(0, -2), ...y.shape.slice(1)]);
/** @throws ShapeError when [b,m,n] are not square */
export function checkSquare(op: string, inputs: readonly Tensor[]): void {
  const [a] = inputs;
  checkDtypes(op, inputs, 'float');
  if (a!.shape.length !== 3 || a!.shape[1] !== a!.shape[2])
    throw shapeError(op, inputs, 'the first operand must be square matrices [b, n, n]');
}

/** rows r and columns c of [b,m,n], from the first up to the second number */
export const block = (a: Tensor, r: readonly [number, number], c: readonly [number, number]): Tensor =>
  slice(a, { axis: 1, start: r[0], stop: r[1] }, { axis: 2, start: c[0], stop: c[1] });
/** blocks side by side and below each other */
export const blocks = (rows: readonly (readonly Tensor[])[]): Tensor =>
  concat(
    rows.map((row) => concat(row, 2)),
    1,
  );
/** aᵀ */
export const transpose = (a: Tensor): Tensor => swap(a);
/** (a + aᵀ)/2 */
export const symmetric = (a: Tensor): Tensor => mul(add(a, transpose(a)), 0.5);
/** the lower triangle with half its diagonal: what is left of a symmetric matrix when only that is asked for */
export const halfLower = (a: Tensor): Tensor => mul(add(tril(a), tril(a, -1)), 0.5);
/** the number of elements of a batch of matrices to the power of ³⁄₂: flops of a factorisation but for its factor */
export const cubed = (shape: Shape): number => sizeOf(shape) * Math.min(shape.at(-1)!, shape.at(-2)!);

/** f(a[b,n,n], rhs[b,n,m]) for a[…,n,n] and b[…,n,m] with equal leading axes, or a vector b[n] */
export function matched(op: string, a: Tensor, b: Tensor, f: (a: Tensor, b: Tensor) => Tensor): Tensor {
  if (b.shape.length === 1) return squeeze(matched(op, a, unsqueeze(b, 1), f), -1);
  if (a.shape.slice(0, -2).join() !== b.shape.slice(0, -2).join() || a.shape.at(-1) !== b.shape.at(-2))
    throw shapeError(op, [a, b], 'operands must be a[…,n,n] and b[…,n,m] or b[n]');
  return unstacked(f(stacked(op, a), stacked(op, b)), b);
}

/** drawn values become symmetric, positive definite matrices with separate eigenvalues: (x + xᵀ)/2 + (2n + 3i)·[i = j] */
export function definite(values: readonly number[], shape: Shape): number[] {
  const n = shape.at(-1)!;
  return values.map((v, at) => {
    const [i, j] = [Math.floor(at / n) % n, at % n];
    const mirrored = values[at + (j - i) * (n - 1)]!;
    return (v + mirrored) / 2 + (i === j ? 2 * n + 3 * i : 0);
  });
}
/** drawn values become matrices whose columns are far from each other's span, with separate lengths */
export function independent(values: readonly number[], shape: Shape): number[] {
  const [m, n] = [shape.at(-2)!, shape.at(-1)!];
  return values.map((v, at) => {
    const [i, j] = [Math.floor(at / n) % m, at % n];
    return v / 2 + (i === j ? 4 + 3 * i : 0);
  });
}
