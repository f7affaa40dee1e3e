/**
 * Comparisons, logic and rounding, written in `less`, `equal`, `not` and `floor`. Bools carry no gradient. Common to
 * all: numpy broadcasting, a plain number may stand for one operand; @throws ShapeError when shapes do not broadcast or
 * dtypes differ; cost one pass, nothing but the arithmetic inside a cluster.
 */
import { isFloat } from '../ir/dtype.ts';
import { checkDtypes } from '../ir/rules.ts';
import type { Tensor } from '../ir/tensor.ts';
import { stopGradient } from '../ops/control.ts';
import { full } from '../ops/fill.ts';
import {
  abs,
  add,
  div,
  equal,
  finite,
  floor,
  less,
  maximum,
  mul,
  neg,
  not,
  type Operand,
  select,
  sub,
} from '../ops/math.ts';

/** `greater(a[2,3], b[3])` → bool[2,3]: y = a > b; false beside NaN. @example greater(x, 0) */
export const greater = (a: Operand, b: Operand): Tensor => less(b, a);
/** `lessEqual(a, b)` → bool: y = a ≤ b; false beside NaN. */
export const lessEqual = (a: Operand, b: Operand): Tensor => maximum(less(a, b), equal(a, b));
/** `greaterEqual(a, b)` → bool: y = a ≥ b; false beside NaN. */
export const greaterEqual = (a: Operand, b: Operand): Tensor => lessEqual(b, a);
/** `notEqual(a, b)` → bool: y = (a ≠ b); true beside NaN. */
export const notEqual = (a: Operand, b: Operand): Tensor => not(equal(a, b));

const bools = (name: string, ...xs: readonly Tensor[]): void => checkDtypes(name, xs, 'bool');
/** `logicalAnd(a, b)` of bools: y = a ∧ b. @throws ShapeError for numbers: compare them first. */
export function logicalAnd(a: Tensor, b: Tensor): Tensor {
  bools('logicalAnd', a, b);
  return mul(a, b);
}
/** `logicalOr(a, b)` of bools: y = a ∨ b. @throws ShapeError for numbers: compare them first. */
export function logicalOr(a: Tensor, b: Tensor): Tensor {
  bools('logicalOr', a, b);
  return maximum(a, b);
}
/** `logicalXor(a, b)` of bools: y = (a ≠ b). @throws ShapeError for numbers: compare them first. */
export function logicalXor(a: Tensor, b: Tensor): Tensor {
  bools('logicalXor', a, b);
  return notEqual(a, b);
}
/** `logicalNot(a)` of bools: y = ¬a, the same as `not`. @throws ShapeError for numbers. */
export const logicalNot = not;

/** `where(c[2,3], a[2,3], b)` → [2,3]: a where c holds, b elsewhere: `select` by its name in numpy. The gradient goes where the value came from. */
export const where = select;
/** `isInf(x[…])` → bool[…]: infinite, of either sign. */
export const isInf = (x: Tensor): Tensor =>
  isFloat(x.dtype)
    ? maximum(equal(x, Number.POSITIVE_INFINITY), equal(x, Number.NEGATIVE_INFINITY))
    : full(x.shape, 0, 'bool');
/** `isNan(x[…])` → bool[…]: not a number; integers and bools never are. */
export const isNan = (x: Tensor): Tensor => not(maximum(finite(x), isInf(x)));

/** What differentiating a step function means: `refuse` (default) is a MissingRuleError, `zero` its derivative, 0 almost everywhere. */
export interface StepOptions {
  /** default `refuse` */
  readonly gradient?: 'refuse' | 'zero';
}
const constant = (x: Tensor, { gradient = 'refuse' }: StepOptions): Tensor =>
  gradient === 'zero' ? stopGradient(x) : x;
/** `ceil(x[…])` → […]: y = ⌈x⌉, the smallest integer not below x; integers stay. Differentiation: see StepOptions. */
export const ceil = (x: Tensor, options: StepOptions = {}): Tensor =>
  isFloat(x.dtype) ? neg(floor(neg(constant(x, options)))) : floor(x);
/** `round(x[…])` → […]: the nearest integer, halves to the even one, as numpy does. Differentiation: see StepOptions. @example round(tensor([0.5, 1.5])) // [0, 2] */
export function round(x: Tensor, options: StepOptions = {}): Tensor {
  if (!isFloat(x.dtype)) return floor(x);
  const from = constant(x, options);
  const low = floor(from);
  const rest = sub(from, low);
  const odd = notEqual(mul(low, 0.5), floor(mul(low, 0.5)));
  const up = maximum(less(0.5, rest), mul(equal(rest, 0.5), odd));
  return add(low, select(up, full(x.shape, 1, x.dtype), 0));
}
/** `trunc(x[…])` → […]: the integer part, towards 0. Differentiation: see StepOptions. */
export const trunc = (x: Tensor, options: StepOptions = {}): Tensor =>
  isFloat(x.dtype) ? mul(sign(x, options), floor(abs(constant(x, options)))) : floor(x);
/** `sign(x[…])` → […]: −1, 0 or 1; NaN of NaN. Differentiation: see StepOptions. */
export function sign(x: Tensor, options: StepOptions = {}): Tensor {
  const from = constant(x, options);
  // what is neither above nor below 0 is 0 or NaN, and stays so under floor, which is what refuses a derivative
  const above = select(less(0, from), full(x.shape, 1, x.dtype), floor(from));
  return x.dtype === 'u32' ? above : select(less(from, 0), full(x.shape, -1, x.dtype), above);
}
/**
 * `remainder(a, b)`: a − b·⌊a/b⌋, which has the sign of b (numpy.remainder); of integers exact, 0 for b = 0.
 * @throws MissingRuleError when differentiated
 */
export function remainder(a: Tensor, b: Operand): Tensor {
  const divisor = typeof b === 'number' ? full(a.shape, b, a.dtype) : b;
  checkDtypes('remainder', [a, divisor], 'number');
  const quotient = floor(div(a, divisor));
  const rest = sub(a, mul(quotient, divisor));
  if (isFloat(a.dtype)) return rest;
  if (a.dtype === 'u32') return select(equal(divisor, 0), 0, rest);
  // integer division goes towards zero
  const off = mul(notEqual(rest, 0), notEqual(less(rest, 0), less(divisor, 0)));
  return select(equal(divisor, 0), 0, add(rest, select(off, divisor, 0)));
}
