import { isFloat } from '../ir/dtype.ts';
import { shapeError } from '../ir/errors.ts';
import { checkDtypes } from '../ir/rules.ts';
import { bind, type Nd, type Primitive, type Tensor } from '../ir/tensor.ts';
import { permute, reshape, swap, unsqueeze } from './layout.ts';
import { mul } from './math.ts';
import { sum } from './reduce.ts';

/**
 * dot: grouped matrix product     a[g,m,k] · b[g,k,n] → y[g,m,n]
 *
 * Every linear map of the library is this op: linear layers (g = 1), attention (g = batch·heads), 1×1 convolutions,
 * per-sample weight gradients (g = batch). Sums in f32 (f64 on the reference) whatever the order.
 *
 * @throws ShapeError when ranks are not 3, or g or k differ.
 * cost  2·g·m·k·n flop
 */
export const dotOp: Primitive<object> = {
  kind: 'primitive',
  name: 'dot',
  doc: 'grouped matrix product',
  formula: 'y[g,m,n] = Σ_k a[g,m,k]·b[g,k,n]',
  form: { kind: 'kernel' },
  whenEmpty: () => 0,
  shape(inputs) {
    const [a, b] = inputs;
    checkShapes(inputs);
    checkDtypes('dot', inputs, 'float');
    return { shape: [a!.shape[0]!, a!.shape[1]!, b!.shape[2]!], dtype: a!.dtype };
  },
  // y = a·b  ⇒  da = g·bᵀ,  db = aᵀ·g
  vjp: ([g], [a, b]) => [dot(g!, swap(b!)), dot(swap(a!), g!)],

  // A shared operand makes the samples rows (or columns) of ONE product; both mapped ⇒ more groups.
  batch(size, [a, b], [aMapped, bMapped]) {
    if (aMapped && bMapped) {
      const [, g, m, k] = a!.shape as [number, number, number, number];
      const n = b!.shape[3]!;
      return [reshape(dot(reshape(a!, [size * g, m, k]), reshape(b!, [size * g, k, n])), [size, g, m, n])];
    }
    if (aMapped) {
      const [, g, m, k] = a!.shape as [number, number, number, number];
      const n = b!.shape[2]!;
      const y = dot(reshape(permute(a!, [1, 0, 2, 3]), [g, size * m, k]), b!);
      return [permute(reshape(y, [g, size, m, n]), [1, 0, 2, 3])];
    }
    const [, g, k, n] = b!.shape as [number, number, number, number];
    const m = a!.shape[1]!;
    const y = dot(a!, reshape(permute(b!, [1, 2, 0, 3]), [g, k, size * n]));
    return [permute(reshape(y, [g, m, size, n]), [2, 0, 1, 3])];
  },

  // the definition, as loops; every other kernel is tested against this one (in f64)
  cpu([a, b], _attrs, [y]) {
    const [groups, m, n] = y!.shape as [number, number, number];
    const k = a!.shape[2]!;
    const [ag, am, ak] = a!.stride as [number, number, number];
    const [bg, bk, bn] = b!.stride as [number, number, number];
    const row = new Float64Array(n);
    for (let g = 0; g < groups; g++)
      for (let i = 0; i < m; i++) {
        row.fill(0);
        for (let p = 0; p < k; p++) {
          const x = a!.data[a!.offset + g * ag + i * am + p * ak]!;
          let at = b!.offset + g * bg + p * bk;
          for (let j = 0; j < n; j++, at += bn) row[j] = row[j]! + x * b!.data[at]!;
        }
        store(y!, (g * m + i) * n, row);
      }
  },
  flops: ([a, b]) => 2 * a!.shape.reduce((p, n) => p * n, 1) * b!.shape[2]!,
  sample(pick) {
    const [g, m, k, n] = [pick(1, 3), pick(1, 5), pick(1, 6), pick(1, 5)];
    return { operands: [{ shape: [g, m, k] }, { shape: [g, k, n] }], attrs: {} };
  },
};
function checkShapes(inputs: readonly Tensor[]): void {
  const [a, b] = inputs;
  if (a!.shape.length !== 3 || b!.shape.length !== 3)
    throw shapeError('dot', inputs, 'operands must be a[g,m,k] and b[g,k,n]');
  const [ga, , ka] = a!.shape;
  const [gb, kb] = b!.shape;
  if (ga !== gb) throw shapeError('dot', inputs, `needs equal g: ${ga} ≠ ${gb}  (a[g,m,k] · b[g,k,n])`);
  if (ka !== kb) throw shapeError('dot', inputs, `needs equal k: ${ka} ≠ ${kb}  (a[g,m,k] · b[g,k,n])`);
}
function store(y: Nd, at: number, row: Float64Array): void {
  for (let j = 0; j < row.length; j++) y.data[at + j] = row[j]!;
}

/**
 * `dot(a[g,m,k], b[g,k,n])` → [g,m,n]. Products of integers are exact modulo 2³² (as a fused sum, without the op's kernels).
 * @example dot(x[1, 6, 18], W[1, 18, 5]) // [1, 6, 5]
 */
export function dot(a: Tensor, b: Tensor): Tensor {
  checkShapes([a, b]);
  checkDtypes('dot', [a, b], 'number');
  return isFloat(a.dtype) ? bind(dotOp, [a, b], {}) : sum(mul(unsqueeze(a, 3), unsqueeze(b, 1)), 2);
}
