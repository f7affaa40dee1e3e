/** concat puts operands one after the other along an axis; its derivative slices. */
import { shapeError } from '../ir/errors.ts';
import { flatten } from '../ir/flatten.ts';
import { axisOf } from '../ir/rules.ts';
import { bind, type Primitive, type Tensor } from '../ir/tensor.ts';
import { mapAll } from './batching.ts';
import { unsqueeze } from './layout.ts';
import { slice } from './slice.ts';

export interface ConcatAttrs {
  readonly axis: number;
}
export const concatOp: Primitive<ConcatAttrs> = {
  kind: 'primitive',
  name: 'concat',
  doc: 'operands one after the other along an axis',
  formula: 'y.shape[axis] = Σ x_k.shape[axis]',
  form: { kind: 'kernel' },
  shape(inputs, a) {
    const [first] = inputs;
    if (!first) throw shapeError('concat', inputs, 'needs at least one operand');
    axisOf('concat', inputs, a.axis);
    for (const x of inputs)
      if (
        x.shape.length !== first!.shape.length ||
        x.dtype !== first!.dtype ||
        x.shape.some((n, i) => i !== a.axis && n !== first!.shape[i])
      )
        throw shapeError('concat', inputs, `operands must agree in dtype and on every axis but ${a.axis}`);
    return {
      shape: first!.shape.map((n, i) => (i === a.axis ? inputs.reduce((s, x) => s + x.shape[i]!, 0) : n)),
      dtype: first!.dtype,
    };
  },
  vjp([g], inputs, a) {
    let at = 0;
    return inputs.map((x) => {
      const start = at;
      at += x.shape[a.axis]!;
      return slice(g!, { axis: a.axis, start, stop: at });
    });
  },
  batch: (size, inputs, mapped, a) => [bind(concatOp, mapAll(size, inputs, mapped), { axis: a.axis + 1 })],
  cpu(inputs, a, [y]) {
    const outer = y!.shape.slice(0, a.axis).reduce((p, n) => p * n, 1);
    const row = y!.size / outer;
    let at = 0;
    for (const x of inputs) {
      const flat = flatten(x);
      const width = flat.length / outer;
      for (let o = 0; o < outer; o++) for (let i = 0; i < width; i++) y!.data[o * row + at + i] = flat[o * width + i]!;
      at += width;
    }
  },
  sample(pick) {
    const [p, q] = [pick(1, 3), pick(1, 3)];
    return { operands: [{ shape: [p, q, 2] }, { shape: [p, pick(1, 4), 2] }], attrs: { axis: 1 } };
  },
};
/** `concat([a[2,3], b[2,5]], 1)` → [2,8]. @throws ShapeError when other axes or dtypes differ. Cost: one read and one write of everything. */
export function concat(inputs: readonly Tensor[], axis: number): Tensor {
  if (inputs.length === 0) throw shapeError('concat', inputs, 'needs at least one operand');
  const at = axisOf('concat', inputs, axis);
  return inputs.length === 1 ? inputs[0]! : bind(concatOp, inputs, { axis: at });
}
/** `stack([a[3], b[3]], 0)` → [2,3]: a new axis that counts the operands. */
export function stack(inputs: readonly Tensor[], axis = 0): Tensor {
  if (inputs.length === 0) throw shapeError('stack', inputs, 'needs at least one operand');
  const at = axisOf('stack', inputs, axis, inputs[0]!.shape.length + 1);
  return concat(
    inputs.map((x) => unsqueeze(x, at)),
    at,
  );
}
