/** Reductions: sum and max. The primitives keep reduced axes with size 1, so every rule is one line. */
import { lowest } from '../ir/dtype.ts';
import { shapeError } from '../ir/errors.ts';
import { flatten } from '../ir/flatten.ts';
import { axesOf, checkDtypes } from '../ir/rules.ts';
import { bind, type Nd, type Primitive, type Shape, type Tensor } from '../ir/tensor.ts';
import { cast } from './cast.ts';
import { expandTo, reshape } from './layout.ts';
import { div, equal, mul } from './math.ts';

export interface ReduceAttrs {
  readonly axes: readonly number[];
}

function reduction(
  name: 'sum' | 'max',
  start: number | undefined,
  combine: (a: number, b: number) => number,
  rest: Pick<Primitive<ReduceAttrs>, 'doc' | 'formula' | 'vjp'>,
): Primitive<ReduceAttrs> {
  return {
    kind: 'primitive',
    name,
    ...rest,
    form: { kind: 'reduce', combine: name, axes: (a: ReduceAttrs) => a.axes },
    shape(inputs, a) {
      const x = inputs[0]!;
      checkDtypes(name, inputs, 'number');
      if (axesOf(name, inputs, a.axes).some((axis, i) => axis !== a.axes[i]))
        throw shapeError(name, inputs, `axes [${a.axes.join(', ')}] must lie within the operand`);
      return { shape: x.shape.map((n, i) => (a.axes.includes(i) ? 1 : n)), dtype: x.dtype };
    },
    batch: (_size, [x], _mapped, a) => [bind(name === 'sum' ? sumOp : maxOp, [x!], { axes: a.axes.map((i) => i + 1) })],
    cpu([x], a, [y]) {
      // f64 accumulation, so that the reference is the more exact side of every comparison
      const total = new Float64Array(y!.data.length).fill(start ?? least(y!.data));
      const flat = flatten(x!);
      const strides = y!.shape.map((n, i) => (n === 1 && a.axes.includes(i) ? 0 : y!.stride[i]!));
      const index = x!.shape.map(() => 0);
      let at = 0;
      for (let i = 0; i < flat.length; i++) {
        total[at] = combine(total[at]!, flat[i]!);
        for (let axis = index.length - 1; axis >= 0; axis--) {
          at += strides[axis]!;
          if (++index[axis]! < x!.shape[axis]!) break;
          at -= strides[axis]! * x!.shape[axis]!;
          index[axis] = 0;
        }
      }
      for (let i = 0; i < total.length; i++) y!.data[i] = total[i]!;
    },
    flops: ([x]) => x!.shape.reduce((p, n) => p * n, 1),
    sample: (pick) => ({
      operands: [{ shape: [pick(1, 4), pick(1, 5), pick(1, 3)] }],
      attrs: { axes: [[0], [1], [2], [0, 2], [0, 1, 2]][pick(0, 4)]! },
    }),
  };
}

export const sumOp = reduction('sum', 0, (a, b) => a + b, {
  doc: 'sum along axes, kept with size 1; of integers modulo 2³²',
  formula: 'y = Σ_axes x',
  // every element counts once  ⇒  dx = g, repeated along the axes
  vjp: ([g], [x]) => [expandTo(g!, x!.shape)],
});
/** of an array's dtype */
const least = (data: Nd['data']): number =>
  lowest(data instanceof Int32Array ? 'i32' : data instanceof Uint32Array ? 'u32' : 'f64');
export const maxOp = reduction('max', undefined, Math.max, {
  doc: 'maximum along axes, kept with size 1; the gradient is split among ties. Over nothing: −∞, of integers the least',
  formula: 'y = max_axes x',
  // dx = g·[x = y] / number of ties
  vjp([g], [x], a, [y]) {
    const hit = cast(equal(x!, y!), g!.dtype);
    return [mul(hit, div(g!, sumKeep(hit, a.axes)))];
  },
});

/** `sumKeep(x[2,3], [1])` → [2,1]: the primitive, for rules. Cost: one read. */
export const sumKeep = (x: Tensor, axes: readonly number[]): Tensor =>
  axes.length === 0 ? x : bind(sumOp, [x], { axes });

export type Axes = number | readonly number[] | undefined;
/** The axes of a reduction from the front: all where none is given. @throws ShapeError for one outside the operand, or twice */
export const reducedAxes = (name: string, x: Tensor, axes: Axes): number[] => {
  const all = axes === undefined ? x.shape.map((_, i) => i) : typeof axes === 'number' ? [axes] : [...axes];
  return axesOf(name, [x], all);
};
/** a shape without some axes */
export const drop = (shape: Shape, axes: readonly number[]): number[] => shape.filter((_, i) => !axes.includes(i));

/**
 * `sum(x[2,3,4], -1)` → [2,3]: y = Σ_axes x; all axes when none is given; `keepdims` keeps them with size 1.
 * @throws ShapeError for an axis outside the operand. Cost: one read.
 */
export function sum(x: Tensor, axes?: Axes, keepdims = false): Tensor {
  const at = reducedAxes('sum', x, axes);
  const y = sumKeep(x, at);
  return keepdims ? y : reshape(y, drop(y.shape, at));
}
/** `max(x[2,3], 1)` → [2]: y = max_axes x; ties share the gradient. @throws ShapeError for an axis outside the operand. */
export function max(x: Tensor, axes?: Axes, keepdims = false): Tensor {
  const at = reducedAxes('max', x, axes);
  const y = at.length === 0 ? x : bind(maxOp, [x], { axes: at });
  return keepdims ? y : reshape(y, drop(y.shape, at));
}
/** `mean(x[2,3], 1)` → [2]: Σ_axes x/n. @throws ShapeError for an axis outside the operand or twice, and for integers. */
export function mean(x: Tensor, axes?: Axes, keepdims = false): Tensor {
  const at = reducedAxes('mean', x, axes);
  checkDtypes('mean', [x], 'float');
  const n = at.reduce((p, i) => p * x.shape[i]!, 1);
  const y = sumKeep(x, at);
  const scaled = mul(y, 1 / n);
  return keepdims ? scaled : reshape(scaled, drop(y.shape, at));
}
