/** Sources without inputs: constants and coordinates. Free to recompute, so the compiler never stores them. */
import type { DType } from '../ir/dtype.ts';
import { shapeError } from '../ir/errors.ts';
import { axisOf, checkLiteral } from '../ir/rules.ts';
import { bind, type Primitive, type Shape, type Tensor } from '../ir/tensor.ts';

export interface FullAttrs {
  readonly shape: Shape;
  readonly value: number;
  readonly dtype: DType;
}
export const fullOp: Primitive<FullAttrs> = {
  kind: 'primitive',
  name: 'full',
  doc: 'one value everywhere',
  formula: 'y[…] = value',
  form: { kind: 'fill', at: ({ value }: FullAttrs) => ({ value }) },
  shape(inputs, a) {
    checkLiteral('full', inputs, a.value, a.dtype);
    return { shape: a.shape, dtype: a.dtype };
  },
  vjp: () => [],
  batch: (size, _inputs, _mapped, a) => [full([size, ...a.shape], a.value, a.dtype)],
  cpu: (_inputs, a, [y]) => void y!.data.fill(a.value),
  sample: (pick) => ({ operands: [], attrs: { shape: [pick(1, 3), pick(1, 3)], value: 1.5, dtype: 'f32' } }),
};
/** `full([2, 3], 0.5)` → f32[2,3] with one value everywhere. Cost: none, kernels write the number itself. */
export const full = (shape: Shape, value: number, dtype: DType = 'f32'): Tensor =>
  bind(fullOp, [], { shape, value, dtype });
/** `zeros([2, 3])` → f32[2,3] of 0. */
export const zeros = (shape: Shape, dtype: DType = 'f32'): Tensor => full(shape, 0, dtype);
/** `ones([2, 3])` → f32[2,3] of 1. */
export const ones = (shape: Shape, dtype: DType = 'f32'): Tensor => full(shape, 1, dtype);

export interface IotaAttrs {
  readonly shape: Shape;
  readonly axis: number;
  readonly dtype: DType;
}
export const iotaOp: Primitive<IotaAttrs> = {
  kind: 'primitive',
  name: 'iota',
  doc: 'the coordinate along one axis',
  formula: 'y[…, i, …] = i',
  form: { kind: 'fill', at: ({ axis }: IotaAttrs) => ({ axis }) },
  shape(inputs, a) {
    axisOf('iota', inputs, a.axis, a.shape.length);
    if (a.dtype === 'bool') throw shapeError('iota', inputs, 'coordinates are numbers, not bool');
    return { shape: a.shape, dtype: a.dtype };
  },
  vjp: () => [],
  batch: (size, _inputs, _mapped, a) => [bind(iotaOp, [], { ...a, shape: [size, ...a.shape], axis: a.axis + 1 })],
  cpu(_inputs, a, [y]) {
    const inner = a.shape.slice(a.axis + 1).reduce((p, n) => p * n, 1);
    const n = a.shape[a.axis]!;
    for (let i = 0; i < y!.data.length; i++) y!.data[i] = Math.floor(i / inner) % n;
  },
  sample: (pick) => ({ operands: [], attrs: { shape: [pick(1, 3), pick(1, 3)], axis: pick(0, 1), dtype: 'f32' } }),
};
/** `iota([4])` = [0, 1, 2, 3]; with more axes y[…, i, …] = i, the coordinate along `axis`. Cost: none. */
export const iota = (shape: Shape, axis = 0, dtype: DType = 'f32'): Tensor =>
  bind(iotaOp, [], { shape, axis: axisOf('iota', [], axis, shape.length), dtype });
