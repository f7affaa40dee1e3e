/** QR by Householder's reflections, and with it the solution of square systems. */
import { shapeError } from '../../ir/errors.ts';
import { checkDtypes } from '../../ir/rules.ts';
import { type Attrs, bind, bindAll, type Composite, type OutSpec, type Tensor } from '../../ir/tensor.ts';
import { fold, mapAll, unfold } from '../../ops/batching.ts';
import { concat } from '../../ops/concat.ts';
import { dot } from '../../ops/dot.ts';
import { full, iota } from '../../ops/fill.ts';
import { expandTo } from '../../ops/layout.ts';
import { add, div, equal, less, mul, neg, select, sqrt, square, sub } from '../../ops/math.ts';
import { sum } from '../../ops/reduce.ts';
import { eye, tril, triu } from '../arrays.ts';
import { block, checkSquare, cubed, independent, matched, stacked, transpose, unstacked } from './matrices.ts';
import { solveUpper } from './triangular.ts';

/** the reflection that clears column j below its diagonal: x → x − scale·v·(vᵀ·x) */
interface Reflection {
  readonly v: Tensor;
  readonly scale: Tensor;
}
function reflection(r: Tensor, j: number): Reflection {
  const [b, m] = r.shape as [number, number, number];
  const row = iota([b, m, 1], 1, 'i32');
  const x = select(less(row, j), 0, block(r, [0, m], [j, j + 1]));
  const length = sqrt(sum(square(x), 1, true));
  const head = block(x, [j, j + 1], [0, 1]);
  // away from the head, so that nothing cancels
  const far = select(less(head, 0), neg(length), length);
  const v = select(expandTo(equal(row, j), x.shape), add(x, far), x);
  const norm = sum(square(v), 1, true);
  return { v, scale: select(equal(norm, 0), 0, div(full(norm.shape, 2, norm.dtype), norm)) };
}
const reflect = (x: Tensor, { v, scale }: Reflection): Tensor => sub(x, mul(scale, dot(v, dot(transpose(v), x))));

/** qr: a[b,m,n] with m ≥ n → q[b,m,n] with orthonormal columns, r[b,n,n] upper triangular. */
export const qrOp: Composite<Attrs> = {
  kind: 'composite',
  name: 'qr',
  doc: 'orthonormal and upper triangular factor of tall matrices',
  formula: 'a = q·r, qᵀ·q = 1',
  shape(inputs): OutSpec[] {
    const [a] = inputs;
    if (a!.shape.length !== 3 || a!.shape[1]! < a!.shape[2]!)
      throw shapeError('qr', inputs, 'the operand must be a[b,m,n] with m ≥ n');
    checkDtypes('qr', inputs, 'float');
    const [b, , n] = a!.shape as [number, number, number];
    return [
      { shape: a!.shape, dtype: a!.dtype },
      { shape: [b, n, n], dtype: a!.dtype },
    ];
  },
  body([a]) {
    const [b, m, n] = a!.shape as [number, number, number];
    const steps: Reflection[] = [];
    let r = a!;
    for (let j = 0; j < n; j++) {
      steps.push(reflection(r, j));
      r = reflect(r, steps.at(-1)!);
    }
    const start = expandTo(stacked('qr', eye(m, { columns: n, dtype: a!.dtype })), [b, m, n]);
    return [steps.reduceRight(reflect, start), triu(block(r, [0, n], [0, n]))];
  },
  // da = (gq + q·M)·r⁻ᵀ, M the lower triangle of r·grᵀ − gqᵀ·q mirrored (Seeger et al. 2017)
  vjp([gq, gr], [a], _attrs, [q, r]) {
    const [fromQ, fromR] = [gq ?? mul(q!, 0), gr ?? mul(r!, 0)];
    const m = sub(dot(r!, transpose(triu(fromR))), dot(transpose(fromQ), q!));
    const mirrored = add(tril(m), transpose(tril(m, -1)));
    const da = transpose(solveUpper(r!, transpose(add(fromQ, dot(q!, mirrored)))));
    return [da.dtype === a!.dtype ? da : undefined];
  },
  batch: (size, [a]) => bindAll(qrOp, [fold(a!)], {}).map((y) => unfold(y, size)),
  flops: ([a]) => 4 * cubed(a!.shape),
  sample(pick) {
    const n = pick(1, 3);
    return { operands: [{ shape: [pick(1, 2), n + pick(0, 2), n], make: independent }], attrs: {} };
  },
};
/**
 * `qr(a[…,m,n])` → [q[…,m,k], r[…,k,n]] with k = min(m, n): a = q·r, q with orthonormal columns, r upper triangular
 * (jax.numpy.linalg.qr, mode reduced). Signs are those of reflections: the diagonal of r may be negative.
 * @throws ShapeError below rank 2 and for integers. Cost: 4·m·n·k flop in k rounds.
 */
export function qr(a: Tensor): [Tensor, Tensor] {
  const all = stacked('qr', a);
  const [, m, n] = all.shape as [number, number, number];
  const [q, r] = bindAll(qrOp, [block(all, [0, m], [0, Math.min(m, n)])], {}) as [Tensor, Tensor];
  const wide = n > m ? concat([r, dot(transpose(q), block(all, [0, m], [m, n]))], 2) : r;
  return [unstacked(q, a), unstacked(wide, a)];
}

/** solve: a[b,n,n], rhs[b,n,m] → x[b,n,m] with a·x = rhs, by QR. */
export const solveOp: Composite<Attrs> = {
  kind: 'composite',
  name: 'solve',
  aliases: ['lstsq', 'linear system'],
  doc: 'solution of square linear systems',
  formula: 'a·x = b',
  shape(inputs) {
    checkSquare('solve', inputs);
    const [a, b] = inputs;
    if (b!.shape.length !== 3 || b!.shape[0] !== a!.shape[0] || b!.shape[1] !== a!.shape[1])
      throw shapeError('solve', inputs, 'operands must be a[b,n,n] and rhs[b,n,m]');
    return { shape: b!.shape, dtype: b!.dtype };
  },
  body([a, b]) {
    const [q, r] = bindAll(qrOp, [a!], {}) as [Tensor, Tensor];
    return [solveUpper(r, dot(transpose(q), b!))];
  },
  // db = a⁻ᵀ·g, da = −db·xᵀ
  vjp([g], [a], _attrs, [x]) {
    const db = bind(solveOp, [transpose(a!), g!], {});
    return [neg(dot(db, transpose(x!))), db];
  },
  batch: (size, inputs, mapped) => [unfold(bind(solveOp, mapAll(size, inputs, mapped).map(fold), {}), size)],
  flops: ([a]) => 4 * cubed(a!.shape),
  sample(pick) {
    const [b, n] = [pick(1, 2), pick(1, 3)];
    return { operands: [{ shape: [b, n, n], make: independent }, { shape: [b, n, pick(1, 2)] }], attrs: {} };
  },
};
/**
 * `solve(a[…,n,n], b[…,n,m])` → x[…,n,m] with a·x = b, or b[n] → x[n], by QR; a singular matrix gives infinities or NaN
 * (jax.numpy.linalg.solve). @throws ShapeError when matrices are not square or sizes differ. Cost: 4n³ + 3n²·m flop.
 */
export const solve = (a: Tensor, b: Tensor): Tensor => matched('solve', a, b, (m, rhs) => bind(solveOp, [m, rhs], {}));
/** `inv(a[…,n,n])` → […,n,n]: a·y = 1; use `solve` where a product with it is wanted. Cost: 7n³ flop. */
export function inv(a: Tensor): Tensor {
  const all = stacked('inv', a);
  checkSquare('inv', [all]);
  const one = expandTo(stacked('inv', eye(all.shape[1]!, { dtype: a.dtype })), all.shape);
  return unstacked(bind(solveOp, [all, one], {}), a);
}
