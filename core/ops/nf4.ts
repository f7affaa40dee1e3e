/** fromNf4: frozen weights of 4.13 bits (ir/nf4.ts) as f32. Packed on the host, before anything is computed. */
import { shapeError } from '../ir/errors.ts';
import { nf4Value, packNf4 } from '../ir/nf4.ts';
import { type Attrs, bind, type Nd, type Primitive } from '../ir/tensor.ts';

/** numbers of the elements that a view reads, in row-major order */
function* placesOf({ shape, stride, offset, size }: Nd): Generator<number> {
  const index = new Array<number>(shape.length).fill(0);
  let at = offset;
  for (let i = 0; i < size; i++) {
    yield at;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += stride[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      at -= stride[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
}

export const fromNf4Op: Primitive<Attrs> = {
  kind: 'primitive',
  name: 'fromNf4',
  doc: 'weights stored as NF4 with doubly quantised scales, as f32; run again for every reader, so that no wide copy of the weights lives on',
  formula: 'y[i] = level[code[i]]·(scale[i/64] + mean),  scale[b] = tree[c[b]]·s[b/256]',
  form: { kind: 'kernel' },
  takesStored: true,
  repeat: true,
  widens: true,
  shape(inputs) {
    if (inputs[0]!.dtype !== 'nf4') throw shapeError('fromNf4', inputs, 'takes nf4');
    return { shape: inputs[0]!.shape, dtype: 'f32' };
  },
  // storage is frozen
  vjp: () => [undefined],
  batch: (_size, [x]) => [bind(fromNf4Op, [x!], {})],
  cpu([x], _attrs, [y]) {
    let i = 0;
    for (const at of placesOf(x!)) y!.data[i++] = nf4Value(x!.data as unknown as ArrayLike<number>, at);
  },
  flops: ([x]) => x!.shape.reduce((a, b) => a * b, 1),
  sample: (pick) => ({
    operands: [
      {
        shape: [pick(1, 4), pick(1, 70)],
        dtype: 'nf4',
        range: [-100, 101],
        make: (values) => Array.from(packNf4(values.map((x) => x / 64))),
      },
    ],
    attrs: {},
  }),
};
