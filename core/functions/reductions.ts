/**
 * Reductions beside `sum`, `max` and `mean`. Common to all: all axes when none is given, negative ones count from the
 * end, `keepdims` keeps them with size 1; @throws ShapeError for an axis that does not exist or stands twice.
 */
import { isFloat } from '../ir/dtype.ts';
import { shapeError } from '../ir/errors.ts';
import { axisOf, checkDtypes } from '../ir/rules.ts';
import type { Tensor } from '../ir/tensor.ts';
import { sizeOf } from '../ir/view.ts';
import { cast } from '../ops/cast.ts';
import { stopGradient } from '../ops/control.ts';
import { full, iota } from '../ops/fill.ts';
import { expandTo, permute, reshape } from '../ops/layout.ts';
import { abs, add, equal, exp, finite, log, mul, neg, not, select, sqrt, square, sub } from '../ops/math.ts';
import { type Axes, drop, max, mean, reducedAxes, sum } from '../ops/reduce.ts';
import { padTo, slice } from '../ops/slice.ts';
import { oneHot } from './arrays.ts';
import { isNan } from './comparisons.ts';

/** x in the opposite order; that of integers is turned round by −1 − x, which does not overflow */
const opposite = (x: Tensor): Tensor => (isFloat(x.dtype) ? neg(x) : sub(x.dtype === 'i32' ? -1 : 2 ** 32 - 1, x));

/** `min(x[2,3], 1)` → [2]: y = min_axes x; ties share the gradient. Over nothing: ∞, of integers the greatest. Cost: one read. */
export function min(x: Tensor, axes?: Axes, keepdims = false): Tensor {
  checkDtypes('min', [x], 'number');
  return opposite(max(opposite(x), axes, keepdims));
}
/** `any(c[2,3], 1)` → bool[2]: whether one of them holds; of none, false. @throws ShapeError for numbers. Cost: one read. */
export function any(c: Tensor, axes?: Axes, keepdims = false): Tensor {
  checkDtypes('any', [c], 'bool');
  return cast(max(cast(c, 'u32'), axes, keepdims), 'bool');
}
/** `all(c[2,3], 1)` → bool[2]: whether all of them hold; of none, true. @throws ShapeError for numbers. Cost: one read. */
export function all(c: Tensor, axes?: Axes, keepdims = false): Tensor {
  checkDtypes('all', [c], 'bool');
  return not(any(not(c), axes, keepdims));
}

/** `prod(x[2,3], 1)` → [2]: y = Π_axes x, by halves; the derivative is right at zeros too. Cost: log₂ n passes, each over half as much. */
export function prod(x: Tensor, axes?: Axes, keepdims = false): Tensor {
  const at = reducedAxes('prod', x, axes);
  checkDtypes('prod', [x], 'number');
  const kept = x.shape.map((_, i) => i).filter((i) => !at.includes(i));
  const outer = kept.map((i) => x.shape[i]!);
  const rows = [sizeOf(outer), sizeOf(at.map((i) => x.shape[i]!))];
  let y = reshape(permute(x, [...kept, ...at]), rows);
  if (rows[1] === 0) y = full([rows[0]!, 1], 1, x.dtype);
  while (y.shape[1]! > 1) {
    const n = y.shape[1]!;
    const even = padTo(y, { low: [0, 0], high: [0, n % 2], interior: [0, 0], value: 1 });
    const half = Math.ceil(n / 2);
    y = mul(slice(even, { axis: 1, stop: half }), slice(even, { axis: 1, start: half }));
  }
  return reshape(y, keepdims ? x.shape.map((n, i) => (at.includes(i) ? 1 : n)) : outer);
}

/** √x whose derivative at 0 is 0: of a length, which has none there */
const rootOf = (x: Tensor): Tensor => select(equal(x, 0), 0, sqrt(select(equal(x, 0), full(x.shape, 1, x.dtype), x)));

/** How `variance` and `std` divide, and whether they keep reduced axes. */
export interface VarianceOptions {
  /** taken off the number of values that is divided by; 1 for the unbiased estimate */
  readonly correction?: number;
  /** keep reduced axes with size 1; default false */
  readonly keepdims?: boolean;
}
/** `variance(x[2,3], 1)` → [2]: y = Σ(x − mean x)²/(n − correction) (numpy.var). @throws ShapeError for integers. Cost: two reads. */
export function variance(x: Tensor, axes?: Axes, { correction = 0, keepdims = false }: VarianceOptions = {}): Tensor {
  const at = reducedAxes('variance', x, axes);
  const n = at.reduce((p, i) => p * x.shape[i]!, 1);
  const off = sub(x, mean(x, at, true));
  return mul(sum(square(off), at, keepdims), 1 / (n - correction));
}
/** `std(x[2,3], 1)` → [2]: y = √variance; the derivative of equal values is 0. @throws ShapeError for integers. Cost: two reads. */
export const std = (x: Tensor, axes?: Axes, options: VarianceOptions = {}): Tensor =>
  rootOf(variance(x, axes, options));

/**
 * `vectorNorm(x[2,3], 1)` → [2], exported as `norm` too: the length √Σx² of vectors (of all elements when no axes are given); `ord` 1 sums |x|, ∞ takes
 * the largest. The derivative of a length 0 is 0. @throws ShapeError for integers. Cost: one read.
 */
export function vectorNorm(
  x: Tensor,
  axes?: Axes,
  { ord = 2, keepdims = false }: { readonly ord?: 1 | 2 | typeof Infinity; readonly keepdims?: boolean } = {},
): Tensor {
  checkDtypes('vectorNorm', [x], 'float');
  if (ord === 1) return sum(abs(x), axes, keepdims);
  if (ord === Number.POSITIVE_INFINITY) return max(abs(x), axes, keepdims);
  if (ord !== 2) throw shapeError('vectorNorm', [x], `ord must be 1, 2 or Infinity, not ${ord}`);
  return rootOf(sum(square(x), axes, keepdims));
}

/**
 * `logsumexp(x[2,3], 1)` → [2]: y = ln Σ_axes eˣ without overflow, dx = g·softmax(x); of −∞ only, −∞.
 * @throws ShapeError for integers. Cost: three reads.
 */
export function logsumexp(x: Tensor, axes?: Axes, keepdims = false): Tensor {
  const at = reducedAxes('logsumexp', x, axes);
  checkDtypes('logsumexp', [x], 'float');
  const top = stopGradient(max(x, at, true));
  const shift = select(finite(top), top, 0);
  const y = add(log(sum(exp(sub(x, shift)), at, true)), shift);
  return keepdims ? y : reshape(y, drop(y.shape, at));
}
/** `logSoftmax(x[2,5])` → [2,5]: y = x − ln Σ eˣ along an axis, the last by default. @throws ShapeError for integers. Cost: four passes. */
export const logSoftmax = (x: Tensor, axis = -1): Tensor => sub(x, logsumexp(x, axis, true));
/**
 * `crossEntropy(logits[b,c], labels[b])` → [b]: −ln softmax(logits)[label] for integer labels, −Σ p·ln softmax(logits)
 * for probabilities p[b,c]. One loss for every sample: take the mean yourself. Labels outside [0, c) give ln Σ eˣ.
 * @throws ShapeError when labels fit neither form. Cost: four passes over the logits.
 * @example mean(crossEntropy(dot(x, w), labels))
 */
export function crossEntropy(logits: Tensor, labels: Tensor): Tensor {
  checkDtypes('crossEntropy', [logits], 'float');
  const classes = logits.shape.at(-1);
  const lead = logits.shape.slice(0, -1);
  if (isFloat(labels.dtype) && labels.shape.join() === logits.shape.join())
    return neg(sum(mul(labels, logSoftmax(logits)), -1));
  if (classes === undefined || !['i32', 'u32'].includes(labels.dtype) || labels.shape.join() !== lead.join())
    throw shapeError(
      'crossEntropy',
      [logits, labels],
      'operands must be logits[…, c] and integers […] or probabilities […, c]',
    );
  const chosen = sum(select(oneHot(labels, classes, 'bool'), logits, 0), -1);
  return sub(logsumexp(logits, -1), chosen);
}

const best = (name: string, x: Tensor, axis: number | undefined, keepdims: boolean, ordered: Tensor): Tensor => {
  const flat = axis === undefined ? reshape(ordered, [sizeOf(x.shape)]) : ordered;
  const at = axisOf(name, [x], axis ?? 0, Math.max(1, x.shape.length));
  const n = flat.shape[at]!;
  if (n === 0) throw shapeError(name, [x], 'there is no best of nothing');
  // NaN is ahead of all numbers
  const nan = isNan(flat);
  const hit = isFloat(x.dtype)
    ? select(expandTo(any(nan, at, true), flat.shape), nan, equal(flat, max(flat, at, true)))
    : equal(flat, max(flat, at, true));
  const first = min(select(hit, iota(flat.shape, at, 'i32'), n), at, keepdims);
  return axis === undefined && keepdims
    ? reshape(
        first,
        x.shape.map(() => 1),
      )
    : first;
};
/**
 * `argmax(x[2,3], 1)` → i32[2]: where the largest value stands, the first of equals; without an axis the number in
 * row-major order. NaN counts as largest (numpy.argmax). @throws ShapeError for no elements. Cost: two reads.
 */
export function argmax(x: Tensor, axis?: number, keepdims = false): Tensor {
  checkDtypes('argmax', [x], 'number');
  return best('argmax', x, axis, keepdims, stopGradient(x));
}
/** `argmin(x[2,3], 1)` → i32[2]: where the smallest value stands; otherwise as `argmax`. */
export function argmin(x: Tensor, axis?: number, keepdims = false): Tensor {
  checkDtypes('argmin', [x], 'number');
  return best('argmin', x, axis, keepdims, opposite(stopGradient(x)));
}

/** y[i] = x[0] ∘ … ∘ x[i] along an axis, in log₂ n steps of doubling distance */
function scanned(
  name: string,
  x: Tensor,
  axis: number,
  reverse: boolean,
  neutral: number,
  combine: (a: Tensor, b: Tensor) => Tensor,
): Tensor {
  const at = axisOf(name, [x], axis);
  checkDtypes(name, [x], 'number');
  const n = x.shape[at]!;
  const zero = x.shape.map(() => 0);
  let y = x;
  for (let d = 1; d < n; d *= 2) {
    const by = x.shape.map((_, i) => (i === at ? d : 0));
    const rest = slice(y, reverse ? { axis: at, start: d } : { axis: at, stop: n - d });
    const moved = padTo(rest, { low: reverse ? zero : by, high: reverse ? by : zero, interior: zero, value: neutral });
    y = combine(y, moved);
  }
  return y;
}
/**
 * `cumsum(x[2,3], 1)` → [2,3]: y[i] = x[0] + … + x[i]; `reverse` sums from the end. dx is the sum the other way round.
 * @throws ShapeError for bools. Cost: log₂ n passes.
 */
export const cumsum = (x: Tensor, axis: number, { reverse = false }: { readonly reverse?: boolean } = {}): Tensor =>
  scanned('cumsum', x, axis, reverse, 0, add);
/** `cumprod(x[2,3], 1)` → [2,3]: y[i] = x[0]·…·x[i]. @throws ShapeError for bools. Cost: log₂ n passes. */
export const cumprod = (x: Tensor, axis: number, { reverse = false }: { readonly reverse?: boolean } = {}): Tensor =>
  scanned('cumprod', x, axis, reverse, 1, mul);
