/** Identities with a purpose: fresh names for differentiation, walls for gradients and for the optimiser. */

import { flatten } from '../ir/flatten.ts';
import { type Attrs, bind, bindAll, type Primitive, type Tensor } from '../ir/tensor.ts';
import { mapAll } from './batching.ts';

const copyAll: Primitive['cpu'] = (inputs, _attrs, outs) => {
  for (const [i, x] of inputs.entries()) (outs[i]!.data as Float64Array).set(flatten(x) as Float64Array);
};

/** alias: the same value as a new node. `grad` differentiates by aliases, so f may also close over the value itself. */
export const aliasOp: Primitive<Attrs> = {
  kind: 'primitive',
  name: 'alias',
  doc: 'the same value under another identity',
  formula: 'y = x',
  form: { kind: 'identity' },
  shape: ([x]) => ({ shape: x!.shape, dtype: x!.dtype }),
  vjp: ([g]) => [g],
  batch: (_size, [x]) => [alias(x!)],
  cpu: copyAll,
  sample: (pick) => ({ operands: [{ shape: [pick(1, 4)] }], attrs: {} }),
};
/** `alias(x)`: y = x as a new node. Vanishes in compiled programs. */
export const alias = (x: Tensor): Tensor => bind(aliasOp, [x], {});

/** stopGradient: the same value, constant to differentiation. */
export const stopGradientOp: Primitive<Attrs> = {
  ...aliasOp,
  name: 'stopGradient',
  doc: 'the same value, constant to differentiation',
  vjp: () => [undefined],
  stops: true,
  batch: (_size, [x]) => [stopGradient(x!)],
};
/**
 * `stopGradient(x)`: y = x whose derivative is zero. Vanishes in compiled programs.
 * @example grad((x) => mul(stopGradient(x), x))(a) // a, not 2a
 */
export const stopGradient = (x: Tensor): Tensor => bind(stopGradientOp, [x], {});

export interface MarkAttrs {
  readonly path: string;
}
/** mark: the same value under a path that `capture` and `print` know. */
export const markOp: Primitive<MarkAttrs> = {
  ...aliasOp,
  name: 'mark',
  aliases: ['sow', 'checkpoint_name', 'tag'],
  doc: 'the same value under a path that can be asked for',
  path: (a) => a.path,
  batch: (_size, [x], _mapped, a) => [mark(x!, a.path)],
  sample: (pick) => ({ operands: [{ shape: [pick(1, 4)] }], attrs: { path: 'hidden' } }),
};
/**
 * `mark(x, 'block1.out')`: y = x, found again by `capture(f, ['block1.out'])` and shown by `print`. Vanishes in compiled
 * programs.
 */
export const mark = (x: Tensor, path: string): Tensor => bind(markOp, [x], { path });

/** barrier: the same values, but only after all of them exist, and never merged with equal nodes (rematerialisation). */
export const barrierOp: Primitive<Attrs> = {
  kind: 'primitive',
  name: 'barrier',
  doc: 'the same values, available only after all of them, never merged with equal nodes',
  formula: 'y_i = x_i',
  form: { kind: 'identity' },
  shape: (inputs) => inputs.map((x) => ({ shape: x.shape, dtype: x.dtype })),
  vjp: (gs) => gs,
  batch: (size, inputs, mapped) => barrier(mapAll(size, inputs, mapped)),
  cpu: copyAll,
  sample: (pick) => ({ operands: [{ shape: [pick(1, 4)] }, { shape: [2] }], attrs: {} }),
};
/** `barrier([a, b])` → [a, b]: what reads the results is computed after both, and never merged with what reads a or b. Cost: none. */
export const barrier = (xs: readonly Tensor[]): readonly Tensor[] => bindAll(barrierOp, xs, {});
