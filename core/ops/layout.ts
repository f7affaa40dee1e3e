/**
 * Layout primitives: other views of the same elements. No byte moves on any backend, except where strides cannot say it.
 * Closed under differentiation: each one's vjp is one of them, or `sum` for expand. See also slice.ts and concat.ts.
 */
import { shapeError } from '../ir/errors.ts';
import { flatten } from '../ir/flatten.ts';
import { axesOf, axisOf } from '../ir/rules.ts';
import { bind, type Primitive, type Shape, type Tensor } from '../ir/tensor.ts';
import { expandView, flipView, permuteView, reshapeView, same, sizeOf, type View } from '../ir/view.ts';
import { sumKeep } from './reduce.ts';

const identity = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
/** the reference of every view: the backend applies `form.view`, so this only runs when a copy is needed */
export const copy: Primitive<object>['cpu'] = ([x], _attrs, [y]) =>
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
/**
 * `reshape(x[2,3,4], [6, 4])` → [6,4]; one −1 is worked out from the others.
 * @throws ShapeError when the number of elements would change. Cost: none.
 */
export function reshape(x: Tensor, shape: Shape): Tensor {
  if (same(x.shape, shape)) return x;
  const hole = shape.indexOf(-1);
  const rest = shape.reduce((p, n) => (n === -1 ? p : p * n), 1);
  if (hole >= 0 && rest === 0)
    throw shapeError('reshape', [x], `cannot become [${shape.join(', ')}]: −1 beside a size of 0 can be anything`);
  const to = hole < 0 ? shape : shape.map((n, i) => (i === hole ? sizeOf(x.shape) / rest : n));
  if (same(x.shape, to)) return x;
  // a reshape of a reshape is one reshape
  if (x.op === (reshapeOp as unknown)) return reshape(x.inputs[0]!, to);
  return bind(reshapeOp, [x], { shape: to });
}
/** A new axis of size 1 in front. */
export const unsqueezeFront = (x: Tensor): Tensor => reshape(x, [1, ...x.shape]);
/** `squeeze(x[2,1,3], 1)` → [2,3]: drops an axis of size 1. @throws ShapeError when it is larger */
export const squeeze = (x: Tensor, axis: number): Tensor => {
  const at = axisOf('squeeze', [x], axis);
  if (x.shape[at] !== 1) throw shapeError('squeeze', [x], `axis ${axis} has size ${x.shape[at]}, only size 1 can go`);
  return reshape(
    x,
    x.shape.filter((_, i) => i !== at),
  );
};
/** `unsqueeze(x[2,3], 1)` → [2,1,3]; −1 puts the new axis last. */
export const unsqueeze = (x: Tensor, axis: number): Tensor => {
  const at = axisOf('unsqueeze', [x], axis, x.shape.length + 1);
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
/** `permute(x[b,h,w,c], [0, 3, 1, 2])` → [b,c,h,w]: y.shape[i] = x.shape[perm[i]]. @throws ShapeError when perm is no order of the axes. Cost: none. */
export function permute(x: Tensor, perm: readonly number[]): Tensor {
  if (same(perm, identity(x.shape.length))) return x;
  if (x.op === (permuteOp as unknown))
    return permute(
      x.inputs[0]!,
      perm.map((p) => (x.attrs as PermuteAttrs).perm[p]!),
    );
  return bind(permuteOp, [x], { perm });
}
/** `swap(x[2,3,4])` → [2,4,3]: exchanges two axes, by default the last two. Cost: none. */
export function swap(x: Tensor, i = -2, j = -1): Tensor {
  const n = x.shape.length;
  const perm = identity(n);
  const [p, q] = [axisOf('swap', [x], i), axisOf('swap', [x], j)];
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
/** `expandTo(x[2,1], [2,5])` → [2,5]: axes of size 1 repeat (stride 0). @throws ShapeError when another axis would grow. Cost: none. */
export const expandTo = (x: Tensor, shape: Shape): Tensor =>
  same(x.shape, shape) ? x : bind(expandOp, [x], { shape });
/** `broadcastTo(x[3], [2,3])` → [2,3]: numpy broadcasting of one operand, new axes in front, then size-1 axes repeat. */
export function broadcastTo(x: Tensor, shape: Shape): Tensor {
  if (same(x.shape, shape)) return x;
  const lead = shape.length - x.shape.length;
  if (lead < 0) throw shapeError('broadcastTo', [x], `cannot become [${shape.join(', ')}]: it has fewer axes`);
  return expandTo(reshape(x, [...new Array<number>(lead).fill(1), ...x.shape]), shape);
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
  shape(inputs, a) {
    axesOf('flip', inputs, a.axes);
    return { shape: inputs[0]!.shape, dtype: inputs[0]!.dtype };
  },
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
/** `flip(x[n], [0])`: y[i] = x[n−1−i]. Cost: none. */
export const flip = (x: Tensor, axes: readonly number[]): Tensor =>
  bind(flipOp, [x], { axes: axesOf('flip', [x], axes) });
