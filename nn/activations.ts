/** Pointwise functions between layers. */
import { gelu, mul, sigmoid, silu, split, type Tensor } from '../core/index.ts';

export { gelu, silu };

/** x·σ(1.702 x): the approximation CLIP was trained with. */
export const quickGelu = (x: Tensor): Tensor => mul(x, sigmoid(mul(x, 1.702)));

/** x[…, 2d] = [value, gate] → value·gelu(gate) [… , d] (Shazeer 2020, GLU variants). */
export function geglu(x: Tensor): Tensor {
  const [value, gate] = split(x, 2, -1) as [Tensor, Tensor];
  return mul(value, gelu(gate));
}
