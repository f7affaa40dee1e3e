/** Distributions beside `uniform` and `normal`: pure functions of a key, as those. Names follow jax.random. */
import type { DType } from '../ir/dtype.ts';
import { shapeError } from '../ir/errors.ts';
import { axisOf, checkWhole } from '../ir/rules.ts';
import type { Shape, Tensor } from '../ir/tensor.ts';
import { cast } from '../ops/cast.ts';
import { full } from '../ops/fill.ts';
import { take } from '../ops/gather.ts';
import { reshape } from '../ops/layout.ts';
import { add, clip, div, erf, less, log, mul, neg, sub } from '../ops/math.ts';
import { bits, type Key, uniform } from '../ops/random.ts';
import { slice } from '../ops/slice.ts';
import { argmax } from './reductions.ts';
import { erfInv } from './smooth.ts';
import { argsort } from './sorting.ts';

/** `truncatedNormal(k, -2, 2, [3])` → f32[3]: standard normal within [lower, upper], by the inverse of its distribution function; bounds beyond ±5 lose accuracy. Cost: a uniform number and three exponentials a number. */
export function truncatedNormal(k: Key, lower: number, upper: number, shape: Shape): Tensor {
  if (!(lower < upper)) throw shapeError('truncatedNormal', [k], `bounds must rise, not ${lower}, ${upper}`);
  const [low, high] = [lower, upper].map((b) => erf(full([], b * Math.SQRT1_2))) as [Tensor, Tensor];
  const between = add(mul(uniform(k, shape), sub(high, low)), low);
  return clip(mul(erfInv(between), Math.SQRT2), lower, upper);
}
/** `bernoulli(k, 0.3, [4])` → bool[4]: true with probability p, a number or a tensor that broadcasts to the shape. Cost: a uniform number each. */
export const bernoulli = (k: Key, p: number | Tensor, shape: Shape): Tensor => less(uniform(k, shape), p);
/** `gumbel(k, [3])` → f32[3]: −ln(−ln u). Cost: a uniform number and two logarithms a number. */
export const gumbel = (k: Key, shape: Shape): Tensor =>
  // never 0: half a step above it
  neg(log(neg(log(add(uniform(k, shape), 2 ** -24)))));
/** `exponential(k, [3])` → f32[3] with mean 1: −ln(1 − u). Cost: a uniform number and a logarithm a number. */
export const exponential = (k: Key, shape: Shape): Tensor => neg(log(sub(1, uniform(k, shape))));

/**
 * `randint(k, [4], 0, 10)` → i32[4] in [low, high), all as likely to 2⁻³² (64 random bits each).
 * @throws ShapeError for bounds that do not rise or need more than 32 bits. Cost: two words a number.
 */
export function randint(k: Key, shape: Shape, low: number, high: number, dtype: 'i32' | 'u32' = 'i32'): Tensor {
  checkWhole('randint', [k], 'bounds', [low, high], dtype === 'i32' ? -(2 ** 31) : 0);
  if (low >= high || high > (dtype === 'i32' ? 2 ** 31 : 2 ** 32))
    throw shapeError('randint', [k], `bounds ${low}, ${high} must rise and be ${dtype}`);
  const both = bits(k, [2, ...shape]);
  const word = (i: number): Tensor => reshape(slice(both, { axis: 0, start: i, stop: i + 1 }), shape);
  const span = high - low;
  const from = (x: Tensor): Tensor => cast(add(x, low < 0 ? low + 2 ** 32 : low), dtype);
  if (span === 2 ** 32) return from(word(0));
  const modulo = (x: Tensor): Tensor => sub(x, mul(div(x, span), span));
  // (first·2³² + second) mod span
  return from(modulo(add(mul(modulo(word(0)), 2 ** 32 % span), modulo(word(1)))));
}
/**
 * `categorical(k, logits[2,5], [4])` → i32[4,2]: classes drawn with probabilities softmax(logits) (Gumbel's trick); the
 * shape in front counts draws, default one. Cost: a Gumbel number for each logit and draw.
 */
export function categorical(k: Key, logits: Tensor, shape: Shape = []): Tensor {
  axisOf('categorical', [k, logits], -1, logits.shape.length);
  return argmax(add(cast(gumbel(k, [...shape, ...logits.shape]), logits.dtype as DType), logits), -1);
}
/** `permutation(k, 5)` → i32[5]: 0 … 4 in random order; `permutation(k, x[4,2])` shuffles along an axis. Cost: that of `argsort`. */
export function permutation(k: Key, x: number | Tensor, axis = 0): Tensor {
  if (typeof x === 'number') {
    checkWhole('permutation', [k], 'numbers of elements', [x]);
    return argsort(bits(k, [x]));
  }
  const at = axisOf('permutation', [x], axis);
  return take(x, argsort(bits(k, [x.shape[at]!])), at);
}
