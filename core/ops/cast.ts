/** cast changes the dtype; the only way between numbers of different kinds, and from stored half floats. */
import { type DType, dtypes, highest, isFloat, isStored, lowest } from '../ir/dtype.ts';
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
  doc: 'conversion to another dtype; float → integer truncates towards zero, takes the nearest bound beyond the range and 0 for NaN; to bool x ≠ 0, NaN is false; i32 ↔ u32 modulo 2³²',
  formula: 'y = dtype(x)',
  form: { kind: 'elementwise', js: (x) => x!, converts: true },
  shape(inputs, a) {
    if (!(a.to in dtypes)) throw shapeError('cast', inputs, `there is no dtype ${a.to}`);
    return { shape: inputs[0]!.shape, dtype: a.to };
  },
  vjp: ([g], [x]) => [isFloat(x!.dtype) ? cast(g!, x!.dtype) : undefined],
  batch: (_size, [x], _mapped, a) => [bind(castOp, [x!], a)],
  cpu([x], a, [y]) {
    const flat = flatten(x!);
    const from = flat instanceof Float32Array || flat instanceof Float64Array;
    for (let i = 0; i < flat.length; i++) y!.data[i] = convert(flat[i]!, from, a.to);
  },
  sample: (pick) => ({ operands: [{ shape: [pick(1, 4), pick(1, 3)] }], attrs: { to: 'f32' } }),
};
/** One value in another dtype; `from`: it was a float. */
export function convert(x: number, from: boolean, to: DType): number {
  if (to === 'bool') return x ? 1 : 0;
  if (!from || (to !== 'i32' && to !== 'u32')) return x;
  return Number.isNaN(x) ? 0 : Math.max(lowest(to), Math.min(highest(to), Math.trunc(x)));
}
/**
 * `cast(x, 'i32')`: the same values in another dtype; to integers towards zero, beyond their range the nearest bound,
 * from NaN 0; to bool x ≠ 0 (NaN is false), from bool 0 or 1; between i32 and u32 modulo 2³².
 * Its derivative casts back; none flows to integers. Cost: one read and one write, nothing inside a cluster.
 * @throws ShapeError for stored types (f16), which are made on the host only
 * @example cast(tensor([1.7, -1.7]), 'i32') // [1, -1]
 */
export function cast(x: Tensor, to: DType): Tensor {
  if (x.dtype === to) return x;
  if (isStored(to)) throw shapeError('cast', [x], `${to} is for storage: make it on the host`);
  return isStored(x.dtype) ? cast(asFloat(x), to) : bind(castOp, [x], { to });
}
