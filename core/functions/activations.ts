/** Activation functions, as products, choices and the functions of ops/math.ts. Each is one pass, fused with its neighbours. */
import type { Tensor } from '../ir/tensor.ts';
import { add, erf, less, mul, neg, select, sigmoid, tanh } from '../ops/math.ts';
import { lessEqual } from './comparisons.ts';
import { expm1, softplus } from './smooth.ts';

/** `relu(x[…])` → […]: y = max(x, 0); the derivative at 0 is 0, as in jax.nn. NaN stays. */
export const relu = (x: Tensor): Tensor => select(lessEqual(x, 0), 0, x);
/** `leakyRelu(x[…], 0.01)` → […]: y = x above 0, slope·x elsewhere. */
export const leakyRelu = (x: Tensor, slope = 0.01): Tensor => select(less(0, x), x, mul(x, slope));
/** `elu(x[…], 1)` → […]: y = x above 0, α(eˣ − 1) elsewhere (Clevert et al. 2016). @throws ShapeError for integers. Dear. */
export const elu = (x: Tensor, alpha = 1): Tensor =>
  // the other branch never sees large numbers, whose exponentials would make its derivative 0·∞
  select(less(0, x), x, mul(expm1(select(less(0, x), 0, x)), alpha));
/** `silu(x[…])` → […]: y = x·σ(x), also called swish. @throws ShapeError for integers. Dear. */
export const silu = (x: Tensor): Tensor => mul(x, sigmoid(x));
/** `logSigmoid(x[…])` → […]: y = ln σ(x) = −ln(1 + e⁻ˣ), without overflow. @throws ShapeError for integers. Twice dear. */
export const logSigmoid = (x: Tensor): Tensor => neg(softplus(neg(x)));
/**
 * `gelu(x[…])` → […]: y = x·Φ(x) = x·½(1 + erf(x/√2)) (Hendrycks and Gimpel 2016); with 'tanh' the approximation
 * x·½(1 + tanh(√(2/π)(x + 0.044715x³))). @throws ShapeError for integers. Dear.
 */
export function gelu(x: Tensor, form: 'erf' | 'tanh' = 'erf'): Tensor {
  const half = mul(x, 0.5);
  if (form === 'erf') return mul(half, add(erf(mul(x, Math.SQRT1_2)), 1));
  const cubic = add(x, mul(mul(mul(x, x), x), 0.044715));
  return mul(half, add(tanh(mul(cubic, Math.sqrt(2 / Math.PI))), 1));
}
