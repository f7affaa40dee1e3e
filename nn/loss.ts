import { mean, square, sub, type Tensor } from '../core/index.ts';

/** Mean over all elements of (a − b)². */
export const mse = (a: Tensor, b: Tensor): Tensor => mean(square(sub(a, b)));
