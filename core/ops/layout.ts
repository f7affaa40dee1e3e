/**
 * Layout primitives. The first five are views (no byte moves on any backend); pad and concat copy.
 * Together they are closed under differentiation: each one's vjp is made of the others and `sum`.
 */
import { shapeError } from '../ir/errors.ts';
import { bind, type Primitive, type Shape, type Tensor } from '../ir/tensor.ts';
import { expandView, flipView, permuteView, reshapeView, sizeOf, sliceView, type View } from '../ir/view.ts';
import { flatten } from './elementwise.ts';
import { sumKeep } from './reduce.ts';

const same = (a: Shape, b: Shape): boolean => a.length === b.length && a.every((n, i) => n === b[i]);
const identity = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
/** the reference of every view: the backend applies `form.view`, so this only runs when a copy is needed */
const copy: Primitive<object>['cpu'] = ([x], _attrs, [y]) =>
  void (y!.data as Float64Array).set(flatten(x!) as Float64Array);

// ── reshape ────────────────────────────────────────────────────────────────────────────────────────────────────────
export interface ReshapeAttrs {
  readonly shape: Shape;
}
export const reshapeOp: Primitive<ReshapeAttrs> = {
  kind: 'primitive',
  name: 'reshape',
  doc: 'the same elements in row-major order under another shape',
  formula: 'y = x.reshape(shape), Π shape unchanged',
  form: { kind: 'layout', view: (v: View, a: ReshapeAttrs) => reshapeView(v, a.shape) },
  shape(inputs, a) {
    const x = inputs[0]!;
    if (a.shape.some((n) => !Number.isInteger(n) || n < 0))
      throw shapeError(
        'reshape',
        inputs,
        `cannot become [${a.shape.join(', ')}]: sizes must be whole, with at most one −1`,
      );
    if (sizeOf(x.shape) !== sizeOf(a.shape))
      throw shapeError(
        'reshape',
        inputs,
        `cannot become [${a.shape.join(', ')}]: ${sizeOf(x.shape)} ≠ ${sizeOf(a.shape)} elements`,
      );
    return { shape: a.shape, dtype: x.dtype };
  },
  vjp: ([g], [x]) => [reshape(g!, x!.shape)],
  batch: (size, [x], _mapped, a) => [reshape(x!, [size, ...a.shape])],
  cpu: copy,
  sample(pick) {
    const [p, q, r] = [pick(1, 3), pick(1, 3), pick(1, 4)];
    return { operands: [{ shape: [p, q, r] }], attrs: { shape: pick(0, 1) ? [p * q, r] : [r, q, p] } };
  },
};
/** `reshape(x[2,3,4], [6, 4])`; one −1 is worked out from the others. Cost: none. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  const hole = shape.indexOf(-1);
  const rest = shape.reduce((p, n) => (n === -1 ? p : p * n), 1);
  const to = hole < 0 ? shape : shape.map((n, i) => (i === hole ? sizeOf(x.shape) / rest : n));
  if (same(x.shape, to)) return x;
  // a reshape of a reshape is one reshape
  if (x.op === (reshapeOp as unknown)) return reshape(x.inputs[0]!, to);
  return bind(reshapeOp, [x], { shape: to });
}
export const unsqueezeFront = (x: Tensor): Tensor => reshape(x, [1, ...x.shape]);
export const squeeze = (x: Tensor, axis: number): Tensor => {
  const at = axis < 0 ? axis + x.shape.length : axis;
  return reshape(
    x,
    x.shape.filter((_, i) => i !== at),
  );
};
export const unsqueeze = (x: Tensor, axis: number): Tensor => {
  const at = axis < 0 ? axis + x.shape.length + 1 : axis;
  return reshape(x, [...x.shape.slice(0, at), 1, ...x.shape.slice(at)]);
};

// ── permute ────────────────────────────────────────────────────────────────────────────────────────────────────────
export interface PermuteAttrs {
  readonly perm: readonly number[];
}
export const permuteOp: Primitive<PermuteAttrs> = {
  kind: 'primitive',
  name: 'permute',
  doc: 'axes in another order',
  formula: 'y.shape[i] = x.shape[perm[i]]',
  form: { kind: 'layout', view: (v: View, a: PermuteAttrs) => permuteView(v, a.perm) },
  shape(inputs, a) {
    const x = inputs[0]!;
    if (
      !same(
        [...a.perm].sort((p, q) => p - q),
        identity(x.shape.length),
      )
    )
      throw shapeError('permute', inputs, `[${a.perm.join(', ')}] is not an order of ${x.shape.length} axes`);
    return { shape: a.perm.map((p) => x.shape[p]!), dtype: x.dtype };
  },
  vjp: ([g], _x, a) => [
    permute(
      g!,
      a.perm.map((_, i) => a.perm.indexOf(i)),
    ),
  ],
  batch: (_size, [x], _mapped, a) => [permute(x!, [0, ...a.perm.map((p) => p + 1)])],
  cpu: copy,
  sample(pick) {
    const perm = [
      [0, 1, 2],
      [2, 0, 1],
      [1, 0, 2],
      [2, 1, 0],
    ][pick(0, 3)]!;
    return { operands: [{ shape: [pick(1, 3), pick(1, 3), pick(1, 4)] }], attrs: { perm } };
  },
};
/** `permute(x[b,h,w,c], [0, 3, 1, 2])` → [b,c,h,w]. Cost: none. */
export function permute(x: Tensor, perm: readonly number[]): Tensor {
  if (same(perm, identity(x.shape.length))) return x;
  if (x.op === (permuteOp as unknown))
    return permute(
      x.inputs[0]!,
      perm.map((p) => (x.attrs as PermuteAttrs).perm[p]!),
    );
  return bind(permuteOp, [x], { perm });
}
/** Exchanges two axes, by default the last two. */
export function swap(x: Tensor, i = -2, j = -1): Tensor {
  const n = x.shape.length;
  const perm = identity(n);
  const [p, q] = [(i + n) % n, (j + n) % n];
  [perm[p], perm[q]] = [perm[q]!, perm[p]!];
  return permute(x, perm);
}

// ── expand ─────────────────────────────────────────────────────────────────────────────────────────────────────────
export interface ExpandAttrs {
  readonly shape: Shape;
}
export const expandOp: Primitive<ExpandAttrs> = {
  kind: 'primitive',
  name: 'expand',
  doc: 'axes of size 1 repeated to another size (stride 0)',
  formula: 'y[…, i, …] = x[…, 0, …]',
  form: { kind: 'layout', view: (v: View, a: ExpandAttrs) => expandView(v, a.shape) },
  shape(inputs, a) {
    const x = inputs[0]!;
    if (x.shape.length !== a.shape.length || x.shape.some((n, i) => n !== 1 && n !== a.shape[i]))
      throw shapeError('expand', inputs, `cannot become [${a.shape.join(', ')}]: only axes of size 1 may grow`);
    return { shape: a.shape, dtype: x.dtype };
  },
  vjp: ([g], [x]) => [
    sumKeep(
      g!,
      identity(x!.shape.length).filter((i) => x!.shape[i] !== g!.shape[i]),
    ),
  ],
  batch: (size, [x], _mapped, a) => [expandTo(x!, [size, ...a.shape])],
  cpu: copy,
  sample(pick) {
    const [p, q] = [pick(1, 3), pick(1, 4)];
    return { operands: [{ shape: [p, 1, q] }], attrs: { shape: [p, pick(1, 3), q] } };
  },
};
export const expandTo = (x: Tensor, shape: Shape): Tensor =>
  same(x.shape, shape) ? x : bind(expandOp, [x], { shape });
/** numpy broadcasting of one operand: new axes in front, then size-1 axes repeat. */
export function broadcastTo(x: Tensor, shape: Shape): Tensor {
  const lead = shape.length - x.shape.length;
  return expandTo(reshape(x, [...new Array<number>(lead).fill(1), ...x.shape]), shape);
}

// ── slice ──────────────────────────────────────────────────────────────────────────────────────────────────────────
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
/** `slice(x, {axis: 1, start: 2, stop: 5})`; negative positions count from the end. Cost: none. */
export function slice(x: Tensor, ...ranges: readonly Range[]): Tensor {
  const start = x.shape.map(() => 0);
  const stop = [...x.shape];
  const step = x.shape.map(() => 1);
  for (const r of ranges) {
    const axis = r.axis < 0 ? r.axis + x.shape.length : r.axis;
    const n = x.shape[axis]!;
    start[axis] = r.start === undefined ? 0 : r.start < 0 ? r.start + n : r.start;
    stop[axis] = r.stop === undefined ? n : r.stop < 0 ? r.stop + n : r.stop;
    step[axis] = r.step ?? 1;
  }
  if (start.every((s) => s === 0) && step.every((s) => s === 1) && same(stop, x.shape)) return x;
  return bind(sliceOp, [x], { start, stop, step });
}

// ── flip ───────────────────────────────────────────────────────────────────────────────────────────────────────────
export interface FlipAttrs {
  readonly axes: readonly number[];
}
export const flipOp: Primitive<FlipAttrs> = {
  kind: 'primitive',
  name: 'flip',
  doc: 'axes read backwards; its own inverse',
  formula: 'y[…, i, …] = x[…, n−1−i, …]',
  form: { kind: 'layout', view: (v: View, a: FlipAttrs) => flipView(v, a.axes) },
  shape: ([x]) => ({ shape: x!.shape, dtype: x!.dtype }),
  vjp: ([g], _x, a) => [flip(g!, a.axes)],
  batch: (_size, [x], _mapped, a) => [
    flip(
      x!,
      a.axes.map((i) => i + 1),
    ),
  ],
  cpu: copy,
  sample: (pick) => ({
    operands: [{ shape: [pick(1, 3), pick(1, 4)] }],
    attrs: { axes: [[0], [1], [0, 1]][pick(0, 2)]! },
  }),
};
export const flip = (x: Tensor, axes: readonly number[]): Tensor =>
  bind(flipOp, [x], { axes: axes.map((a) => (a < 0 ? a + x.shape.length : a)) });

// ── pad ────────────────────────────────────────────────────────────────────────────────────────────────────────────
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
  shape(inputs, a) {
    const x = inputs[0]!;
    if (a.low.length !== x.shape.length || [...a.low, ...a.high, ...a.interior].some((n) => n < 0))
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
export const padTo = (x: Tensor, a: PadAttrs): Tensor =>
  [...a.low, ...a.high, ...a.interior].every((n) => n === 0) ? x : bind(padOp, [x], a);
/** `pad(x, [[0, 0], [1, 2]])`: [before, after] per axis. */
export const pad = (x: Tensor, widths: readonly (readonly [number, number])[], value = 0): Tensor =>
  padTo(x, { low: widths.map((w) => w[0]), high: widths.map((w) => w[1]), interior: widths.map(() => 0), value });

// ── concat ─────────────────────────────────────────────────────────────────────────────────────────────────────────
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
  batch: (size, inputs, mapped, a) => [
    bind(
      concatOp,
      inputs.map((x, i) => (mapped[i] ? x : expandTo(unsqueezeFront(x), [size, ...x.shape]))),
      { axis: a.axis + 1 },
    ),
  ],
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
/** `concat([a[2,3], b[2,5]], 1)` → [2,8]. Cost: one read and one write of everything. */
export function concat(inputs: readonly Tensor[], axis: number): Tensor {
  if (inputs.length === 1) return inputs[0]!;
  return bind(concatOp, inputs, { axis: axis < 0 ? axis + inputs[0]!.shape.length : axis });
}
/** `stack([a, b], 0)`: a new axis that counts the operands. */
export const stack = (inputs: readonly Tensor[], axis = 0): Tensor =>
  concat(
    inputs.map((x) => unsqueeze(x, axis)),
    axis < 0 ? axis + inputs[0]!.shape.length + 1 : axis,
  );
