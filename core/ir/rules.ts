/** The rules arguments must keep, said once: axes, whole numbers, sizes, dtypes. Every breach names op, argument and rule. */
import { type DType, isFloat, isStored } from './dtype.ts';
import { type Described, shapeError } from './errors.ts';

/** Whole numbers of at least `least`. */
export function checkWhole(
  op: string,
  inputs: readonly Described[],
  what: string,
  values: readonly number[],
  least = 0,
): void {
  const bad = values.find((n) => !Number.isInteger(n) || n < least);
  if (bad !== undefined) throw shapeError(op, inputs, `${what} must be whole numbers of at least ${least}, not ${bad}`);
}

/** An axis from the front; negative ones count from the end. `rank` is the number of axes there are to choose from. */
export function axisOf(op: string, inputs: readonly Described[], axis: number, rank = inputs[0]!.shape.length): number {
  if (!Number.isInteger(axis) || axis < -rank || axis >= rank)
    throw shapeError(op, inputs, `axis ${axis} must lie within the ${rank} axes of the first operand`);
  return axis < 0 ? axis + rank : axis;
}

/** Several axes from the front, each once. */
export function axesOf(op: string, inputs: readonly Described[], axes: readonly number[]): number[] {
  const rank = inputs[0]!.shape.length;
  if (axes.some((a) => !Number.isInteger(a) || a < -rank || a >= rank))
    throw shapeError(op, inputs, `axes [${axes.join(', ')}] must lie within the operand`);
  const all = axes.map((a) => (a < 0 ? a + rank : a));
  if (new Set(all).size !== all.length)
    throw shapeError(op, inputs, `axes [${axes.join(', ')}] must be different: one stands twice`);
  return all;
}

/** What an op computes with. `number`: floats and integers. */
export type Kind = 'float' | 'number' | 'bool' | 'any';
const words: Readonly<Record<Kind, string>> = {
  float: 'floats: cast integers and bools first',
  number: 'numbers: cast bools first',
  bool: 'bool',
  any: 'any dtype',
};
const isOf: Readonly<Record<Kind, (d: DType) => boolean>> = {
  float: isFloat,
  number: (d) => d !== 'bool',
  bool: (d) => d === 'bool',
  any: () => true,
};
/** Operands of one kind and, among themselves, of one dtype. `which` of the inputs; default all. */
export function checkDtypes(
  op: string,
  inputs: readonly Described[],
  kind: Kind,
  which: readonly Described[] = inputs,
): void {
  const stored = which.find((x) => isStored(x.dtype));
  if (stored) throw shapeError(op, inputs, `${stored.dtype} is for storage: use cast(x, 'f32')`);
  if (which.some((x) => x.dtype !== which[0]!.dtype)) throw shapeError(op, inputs, 'operands must have equal dtypes');
  const bad = which.find((x) => !isOf[kind](x.dtype));
  if (bad) throw shapeError(op, inputs, `takes ${words[kind]}, not ${bad.dtype}`);
}

/** Numbers of rows by which tables are read. */
export function checkIds(op: string, inputs: readonly Described[], ids: Described): void {
  if (ids.dtype !== 'i32' && ids.dtype !== 'u32')
    throw shapeError(op, inputs, `operands must be x[v, …] and integer ids (i32 or u32), not ${ids.dtype}`);
}

/** A number that a dtype holds: whole beside integers, 0 or 1 beside bools. */
export function checkLiteral(op: string, inputs: readonly Described[], value: number, dtype: DType): void {
  if (isFloat(dtype)) return;
  const fits =
    dtype === 'bool' ? value === 0 || value === 1 : Number.isInteger(value) && value >= -(2 ** 31) && value < 2 ** 32;
  if (!fits)
    throw shapeError(
      op,
      inputs,
      dtype === 'bool'
        ? `beside bools a number must be 0 or 1, not ${value}`
        : `beside ${dtype} a number must be whole and of 32 bits, not ${value}: cast the tensor to a float first`,
    );
}

/** The shape of a result. */
export function checkShape(op: string, inputs: readonly Described[], shape: readonly number[]): void {
  for (const n of shape)
    if (!Number.isInteger(n) || n < 0)
      throw shapeError(
        op,
        inputs,
        `the result would be [${shape.join(', ')}]: sizes must be whole numbers of at least 0`,
      );
}
