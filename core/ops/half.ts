/**
 * Half floats (f16: 1 sign, 5 exponent, 10 fraction bits), for the storage of frozen weights: half the memory of f32, the
 * same arithmetic. There is one op, the way to f32; halves are made on the host, before anything is computed.
 */
import { shapeError } from '../ir/errors.ts';
import { flatten } from '../ir/flatten.ts';
import { type Attrs, bind, type Primitive } from '../ir/tensor.ts';

/** The number a half-float pattern stands for; exact. */
export function halfValue(pattern: number): number {
  const sign = pattern & 0x8000 ? -1 : 1;
  const exponent = (pattern >> 10) & 31;
  const fraction = pattern & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15));
}

export const fromHalfOp: Primitive<Attrs> = {
  kind: 'primitive',
  name: 'fromHalf',
  doc: 'stored half floats as f32, exact; run again for every reader, so that no wide copy of the weights lives on',
  formula: 'y = (−1)^s·2^(e−15)·(1 + f/1024)',
  form: { kind: 'kernel' },
  takesStored: true,
  repeat: true,
  widens: true,
  shape(inputs) {
    if (inputs[0]!.dtype !== 'f16') throw shapeError('fromHalf', inputs, 'takes f16');
    return { shape: inputs[0]!.shape, dtype: 'f32' };
  },
  // storage is frozen
  vjp: () => [undefined],
  batch: (_size, [x]) => [bind(fromHalfOp, [x!], {})],
  cpu([x], _attrs, [y]) {
    const flat = flatten(x!);
    for (let i = 0; i < flat.length; i++) y!.data[i] = halfValue(flat[i]!);
  },
  flops: ([x]) => x!.shape.reduce((a, b) => a * b, 1),
  sample: (pick) => ({
    operands: [{ shape: [pick(1, 4), pick(1, 5)], dtype: 'f16', range: [0, 0x7c00] }],
    attrs: {},
  }),
};
