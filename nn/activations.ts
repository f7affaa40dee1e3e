/** Pointwise functions between layers. */
import { add, erf, mul, sigmoid, slice, type Tensor } from '../core/index.ts';

/** x·σ(x), also called swish. */
export const silu = (x: Tensor): Tensor => mul(x, sigmoid(x));

/** x·Φ(x) with the exact normal distribution function: x·½(1 + erf(x/√2)). */
export const gelu = (x: Tensor): Tensor => mul(mul(x, 0.5), add(erf(mul(x, Math.SQRT1_2)), 1));

/** x·σ(1.702 x): the approximation CLIP was trained with. */
export const quickGelu = (x: Tensor): Tensor => mul(x, sigmoid(mul(x, 1.702)));

/** x[…, 2d] = [value, gate] → value·gelu(gate) [… , d] (Shazeer 2020, GLU variants). */
export function geglu(x: Tensor): Tensor {
  const half = x.shape.at(-1)! / 2;
  const value = slice(x, { axis: -1, stop: half });
  const gate = slice(x, { axis: -1, start: half });
  return mul(value, gelu(gate));
}
