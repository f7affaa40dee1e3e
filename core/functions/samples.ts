/** How a function written in ops becomes a record: its name and formula, its body, and samples of what it may be called with. */
import type { Attrs, Composite, OperandSample, Pick, Sample, Shape, Tensor } from '../ir/tensor.ts';
import type { StepOptions } from './comparisons.ts';

/** names people type, what it is, the formula */
type Page = readonly [name: string, doc: string, formula: string, aliases?: readonly string[]];

/** a function as an op: `call` on operands and attributes, both of which a sample gives */
export function written<A extends Attrs>(
  [name, doc, formula, aliases = []]: Page,
  call: (x: readonly Tensor[], a: A) => Tensor | readonly Tensor[],
  sample: (pick: Pick) => Sample<A>,
): Composite<A> {
  const body = (x: readonly Tensor[], a: A): readonly Tensor[] => {
    const y = call(x, a);
    return Array.isArray(y) ? (y as readonly Tensor[]) : [y as Tensor];
  };
  const shape = (x: readonly Tensor[], a: A) => body(x, a).map((y) => ({ shape: y.shape, dtype: y.dtype }));
  return { kind: 'composite', name, aliases, doc, formula, shape, body, sample };
}

export const some = (pick: Pick, rank = 2): Shape => Array.from({ length: rank }, () => pick(1, 4));
export const floats = (shape: Shape, range?: readonly [number, number]): OperandSample => ({
  shape,
  ...(range ? { range } : {}),
});
export const ids = (shape: Shape, n: number): OperandSample => ({ shape, dtype: 'i32', range: [0, n] });
export const conditions = (shape: Shape): OperandSample => ({ shape, dtype: 'bool', range: [0, 2] });
export const keyed = (): OperandSample => ({ shape: [2], dtype: 'u32', range: [0, 1e6] });

/** of one tensor of floats */
export const one = (page: Page, f: (x: Tensor) => Tensor, range?: readonly [number, number]) =>
  written(
    page,
    ([x]) => f(x!),
    (pick) => ({ operands: [floats(some(pick), range)], attrs: {} }),
  );
/** of one tensor along an axis */
export const along = (page: Page, f: (x: Tensor, axis: number) => Tensor | readonly Tensor[], least = 1) =>
  written<{ readonly axis: number }>(
    page,
    ([x], a) => f(x!, a.axis),
    (pick) => ({
      operands: [floats([pick(least, 5), pick(least, 4), pick(least, 3)])],
      attrs: { axis: pick(-3, 2) },
    }),
  );
/** of two tensors of one kind that broadcast */
export const two = (
  page: Page,
  f: (a: Tensor, b: Tensor) => Tensor,
  operand: (shape: Shape) => OperandSample = floats,
) =>
  written(
    page,
    ([a, b]) => f(a!, b!),
    (pick) => {
      const shape = some(pick);
      return { operands: [operand(shape), operand(shape.slice(1))], attrs: {} };
    },
  );
const zero = { gradient: 'zero' } as const;
/** a step function; its derivative is refused unless asked to be zero */
export const step = (page: Page, f: (x: Tensor, o: StepOptions) => Tensor) =>
  written<StepOptions>(
    page,
    ([x], o) => f(x!, o),
    (pick) => ({ operands: [floats(some(pick))], attrs: zero }),
  );
/** of a key */
export const drawn = (page: Page, f: (k: Tensor) => Tensor) =>
  written(
    page,
    ([k]) => f(k!),
    () => ({ operands: [keyed()], attrs: {} }),
  );
