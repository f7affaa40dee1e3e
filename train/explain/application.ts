/** One application of an op that a page shows: the record's own sample with values from a seed. */
import { type Random, randomOf, seedKey, type Tensor, tensor } from '../../core/index.ts';
import { type DType, dtypes, isFloat } from '../../core/ir/dtype.ts';
import { type Attrs, bindAll, type Op, type OperandSample, type Pick, type Sample } from '../../core/ir/tensor.ts';

export type Applied = {
  readonly op: Op;
  readonly attrs: Attrs;
  readonly inputs: readonly Tensor[];
  readonly outs: readonly Tensor[];
};

const largest: Pick = (_lo, hi) => hi;

/**
 * A sample of what the record offers, the largest unless `pick` says otherwise, with float operands and attributes in
 * `float` unless it insists on f64.
 */
export function sampleOf(op: Op, float: 'f32' | 'f64', pick = largest): Sample<Attrs> {
  const { operands, attrs } = op.sample(pick) as Sample<Attrs>;
  const other = float === 'f32' ? 'f64' : 'f32';
  const type = (dtype: DType | undefined): DType =>
    dtype === undefined || dtype === 'f32' || (isFloat(dtype) && float === 'f64') ? float : dtype;
  return {
    operands: operands.map((o) => ({ ...o, dtype: type(o.dtype) })),
    attrs: Object.fromEntries(Object.entries(attrs).map(([k, v]) => [k, v === other ? float : v])),
  };
}

/** Values of one operand: uniform in its range, whole numbers where the dtype is. */
export function valuesOf(
  { shape, dtype, range: [lo, hi] = [-2, 2], make }: OperandSample,
  random: Random,
): Float64Array {
  const whole = dtype !== undefined && !dtypes[dtype].float;
  const drawn = Array.from({ length: shape.reduce((n, side) => n * side, 1) }, () => {
    const v = lo + random.uniform() * (hi - lo);
    return whole ? Math.floor(v) : v;
  });
  // f32 values on every backend: all of them see the very same numbers
  return Float64Array.from(make?.(drawn, shape) ?? drawn, (v) => (whole ? v : Math.fround(v)));
}

export const bindTo = (op: Op, inputs: readonly Tensor[], attrs: Attrs): readonly Tensor[] =>
  bindAll(op as never, inputs, attrs);

/** Applies an op to its sample; the same seed gives the same numbers in f32 and f64. */
export function applySample(op: Op, float: 'f32' | 'f64', seed: number): Applied {
  const random = randomOf(seedKey(seed));
  const { operands, attrs } = sampleOf(op, float);
  const inputs = operands.map((o) => tensor(valuesOf(o, random) as unknown as number[], o.shape, o.dtype));
  return { op, attrs, inputs, outs: bindTo(op, inputs, attrs) };
}
