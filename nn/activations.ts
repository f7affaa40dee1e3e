/** Pointwise functions between layers. */
import { gelu, mul, sigmoid, silu, slice, type Tensor } from '../core/index.ts';

export { gelu, silu };

/** x·σ(1.702 x): the approximation CLIP was trained with. */
export const quickGelu = (x: Tensor): Tensor => mul(x, sigmoid(mul(x, 1.702)));

/** x[…, 2d] = [value, gate] → value·gelu(gate) [… , d] (Shazeer 2020, GLU variants). */
export function geglu(x: Tensor): Tensor {
  const half = x.shape.at(-1)! / 2;
  const value = slice(x, { axis: -1, stop: half });
  const gate = slice(x, { axis: -1, start: half });
  return mul(value, gelu(gate));
}
