/** cast changes the dtype; the only way between numbers of different kinds, and from stored half floats. */
import { type DType, isFloat, isStored } from '../ir/dtype.ts';
import { shapeError } from '../ir/errors.ts';
import { flatten } from '../ir/flatten.ts';
import { bind, type Primitive, type Tensor } from '../ir/tensor.ts';
import { asFloat } from './stored.ts';

export interface CastAttrs {
  readonly to: DType;
}
export const castOp: Primitive<CastAttrs> = {
  kind: 'primitive',
  name: 'cast',
  doc: 'conversion to another dtype; float → integer truncates towards zero',
  formula: 'y = dtype(x)',
  form: { kind: 'elementwise', js: (x) => x!, converts: true },
  shape: ([x], a) => ({ shape: x!.shape, dtype: a.to }),
  vjp: ([g], [x]) => [isFloat(x!.dtype) ? cast(g!, x!.dtype) : undefined],
  batch: (_size, [x], _mapped, a) => [bind(castOp, [x!], a)],
  cpu([x], a, [y]) {
    const flat = flatten(x!);
    for (let i = 0; i < flat.length; i++)
      y!.data[i] = a.to === 'bool' ? (flat[i] ? 1 : 0) : isFloat(a.to) ? flat[i]! : Math.trunc(flat[i]!);
  },
  sample: (pick) => ({ operands: [{ shape: [pick(1, 4), pick(1, 3)] }], attrs: { to: 'f32' } }),
};
/**
 * `cast(x, 'i32')`: the same values in another dtype; to integers towards zero, to bool x ≠ 0, from bool 0 or 1.
 * Its derivative casts back; none flows to integers. Cost: one read and one write, nothing inside a cluster.
 * @throws ShapeError for stored types (f16), which are made on the host only
 * @example cast(tensor([1.7, -1.7]), 'i32') // [1, -1]
 */
export function cast(x: Tensor, to: DType): Tensor {
  if (x.dtype === to) return x;
  if (isStored(to)) throw shapeError('cast', [x], `${to} is for storage: make it on the host`);
  return isStored(x.dtype) ? cast(asFloat(x), to) : bind(castOp, [x], { to });
}
