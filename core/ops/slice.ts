/**
 * slice takes every step-th element, pad puts elements (back) between and around: each is the other's derivative.
 * A slice is a view; a pad copies.
 */
import { shapeError } from '../ir/errors.ts';
import { flatten } from '../ir/flatten.ts';
import { axesOf, checkLiteral, checkWhole } from '../ir/rules.ts';
import { bind, type Primitive, type Tensor } from '../ir/tensor.ts';
import { same, sliceView, type View } from '../ir/view.ts';
import { copy } from './layout.ts';

export interface SliceAttrs {
  readonly start: readonly number[];
  readonly stop: readonly number[];
  readonly step: readonly number[];
}
const sliceShape = (a: SliceAttrs): number[] =>
  a.start.map((s, i) => Math.max(0, Math.ceil((a.stop[i]! - s) / a.step[i]!)));
export const sliceOp: Primitive<SliceAttrs> = {
  kind: 'primitive',
  name: 'slice',
  doc: 'every step-th element between start and stop on each axis',
  formula: 'y[i] = x[start + i·step]',
  form: { kind: 'layout', view: (v: View, a: SliceAttrs) => sliceView(v, a.start, sliceShape(a), a.step) },
  shape(inputs, a) {
    const x = inputs[0]!;
    for (const [what, values] of Object.entries(a)) checkWhole('slice', inputs, what, values, what === 'step' ? 1 : 0);
    const bad =
      a.start.length !== x.shape.length ||
      a.start.some((s, i) => s < 0 || a.stop[i]! > x.shape[i]! || s > a.stop[i]! || a.step[i]! < 1);
    if (bad)
      throw shapeError('slice', inputs, `[${a.start.join(', ')}]…[${a.stop.join(', ')}] lies outside the operand`);
    return { shape: sliceShape(a), dtype: x.dtype };
  },
  vjp: ([g], [x], a) => {
    const low = a.start;
    const interior = a.step.map((s) => s - 1);
    const high = x!.shape.map((n, i) => n - low[i]! - (g!.shape[i]! + Math.max(0, g!.shape[i]! - 1) * interior[i]!));
    return [padTo(g!, { low, high, interior, value: 0 })];
  },
  batch: (size, [x], _mapped, a) => [
    bind(sliceOp, [x!], { start: [0, ...a.start], stop: [size, ...a.stop], step: [1, ...a.step] }),
  ],
  cpu: copy,
  sample(pick) {
    const [p, q] = [pick(2, 5), pick(3, 6)];
    return {
      operands: [{ shape: [p, q] }],
      attrs: { start: [pick(0, 1), pick(0, 1)], stop: [p, q - pick(0, 1)], step: [1, pick(1, 2)] },
    };
  },
};
export interface Range {
  readonly axis: number;
  readonly start?: number;
  readonly stop?: number;
  readonly step?: number;
}
/**
 * `slice(x[4,8], { axis: 1, start: 2, stop: 5 })` → [4,3]; negative positions count from the end.
 * @throws ShapeError when a range lies outside. Cost: none.
 */
export function slice(x: Tensor, ...ranges: readonly Range[]): Tensor {
  const start = x.shape.map(() => 0);
  const stop = [...x.shape];
  const step = x.shape.map(() => 1);
  const axes = axesOf(
    'slice',
    [x],
    ranges.map((r) => r.axis),
  );
  for (const [i, r] of ranges.entries()) {
    const axis = axes[i]!;
    const n = x.shape[axis]!;
    start[axis] = r.start === undefined ? 0 : r.start < 0 ? r.start + n : r.start;
    stop[axis] = r.stop === undefined ? n : r.stop < 0 ? r.stop + n : r.stop;
    step[axis] = r.step ?? 1;
  }
  if (start.every((s) => s === 0) && step.every((s) => s === 1) && same(stop, x.shape)) return x;
  return bind(sliceOp, [x], { start, stop, step });
}

export interface PadAttrs {
  readonly low: readonly number[];
  readonly high: readonly number[];
  /** elements put between neighbours */
  readonly interior: readonly number[];
  readonly value: number;
}
export const padOp: Primitive<PadAttrs> = {
  kind: 'primitive',
  name: 'pad',
  doc: 'a value before, after and between the elements of each axis',
  formula: 'y[low + i·(interior+1)] = x[i], value elsewhere',
  form: { kind: 'kernel' },
  whenEmpty: (a) => a.value,
  shape(inputs, a) {
    const x = inputs[0]!;
    checkLiteral('pad', inputs, a.value, x.dtype);
    for (const what of ['low', 'high', 'interior'] as const)
      if (a[what].some((n) => !Number.isInteger(n) || n < 0))
        throw shapeError('pad', inputs, 'low, high and interior must be ≥ 0 and whole, one per axis');
    if ([a.low, a.high, a.interior].some((w) => w.length !== x.shape.length))
      throw shapeError('pad', inputs, 'low, high and interior must be ≥ 0, one per axis');
    return {
      shape: x.shape.map((n, i) => a.low[i]! + n + Math.max(0, n - 1) * a.interior[i]! + a.high[i]!),
      dtype: x.dtype,
    };
  },
  vjp: ([g], [x], a) => [
    bind(sliceOp, [g!], {
      start: a.low,
      stop: x!.shape.map((n, i) => a.low[i]! + n + Math.max(0, n - 1) * a.interior[i]!),
      step: a.interior.map((n) => n + 1),
    }),
  ],
  batch: (_size, [x], _mapped, a) => [
    padTo(x!, { low: [0, ...a.low], high: [0, ...a.high], interior: [0, ...a.interior], value: a.value }),
  ],
  cpu([x], a, [y]) {
    y!.data.fill(a.value);
    const flat = flatten(x!);
    const index = x!.shape.map(() => 0);
    for (let i = 0; i < flat.length; i++) {
      const at = index.reduce((o, p, axis) => o + (a.low[axis]! + p * (a.interior[axis]! + 1)) * y!.stride[axis]!, 0);
      y!.data[at] = flat[i]!;
      for (let axis = index.length - 1; axis >= 0 && ++index[axis]! === x!.shape[axis]; axis--) index[axis] = 0;
    }
  },
  sample: (pick) => ({
    operands: [{ shape: [pick(1, 3), pick(1, 4)] }],
    attrs: { low: [pick(0, 2), 0], high: [0, pick(0, 2)], interior: [0, pick(0, 1)], value: 0.5 },
  }),
};
/** pad with all attributes given; the tensor itself where nothing is added. */
export const padTo = (x: Tensor, a: PadAttrs): Tensor =>
  a.low.length === x.shape.length && [...a.low, ...a.high, ...a.interior].every((n) => n === 0)
    ? x
    : bind(padOp, [x], a);
/** `pad(x[2,3], [[0, 0], [1, 2]])` → [2,6]: [before, after] per axis. Cost: one read and one write. */
export const pad = (x: Tensor, widths: readonly (readonly [number, number])[], value = 0): Tensor =>
  padTo(x, { low: widths.map((w) => w[0]), high: widths.map((w) => w[1]), interior: widths.map(() => 0), value });
