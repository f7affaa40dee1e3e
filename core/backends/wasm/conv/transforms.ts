/**
 * The transforms of Winograd's F(4×4, 3×3): a 6 × 6 patch d of the input gives a 4 × 4 patch of the output with 36
 * multiplications for each pair of channels instead of 144,
 *
 *   y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A
 *
 * by interpolation at 0, ±5/8, ±3/2 and ∞: all constants but 1/N are exact in binary. The root mean square of the rounding
 * errors is that of the plain sum times 2.4 with 16 channels, 2.1 with 32 and 1.7 with 320 (uniform numbers in [−1, 1), fused
 * multiplication): the error of the transforms themselves does not grow with the channels as that of the sum does. The kernels
 * are in winogradCode.ts and winogradWeights.ts; the 36 matrix products are gemm.ts's.
 *
 * Source: A. Lavin and S. Gray, Fast algorithms for convolutional neural networks, 2016; the points are those of oneDNN.
 */
import { type Expr, f32x4, type Local } from '../assembler/assemble.ts';

export type V128 = Local<'v128'>;
type Vectors = readonly Expr<'v128'>[];
export const range = (n: number): readonly number[] => Array.from({ length: n }, (_, i) => i);

/** the points ±a and ±b, and their squares */
const [a, b] = [5 / 8, 3 / 2];
const [aa, bb] = [a * a, b * b];
/** N of the points 0, a and b: the product of the distances to the others */
const [n0, na, nb] = [aa * bb, 2 * aa * (aa - bb), 2 * bb * (bb - aa)];
const { add, sub, mul } = f32x4;
/** patches are 6 × 6, 36 positions */
export const POSITIONS = 36;

/** Bᵀ d */
export const alongInput = (d: readonly V128[], keep: (e: Expr<'v128'>) => V128): Vectors => {
  const [d0, d1, d2, d3, d4, d5] = d as [V128, V128, V128, V128, V128, V128];
  const [evenA, oddA] = [keep(sub(d4, mul(d2, bb))), keep(mul(sub(d3, mul(d1, bb)), a))];
  const [evenB, oddB] = [keep(sub(d4, mul(d2, aa))), keep(mul(sub(d3, mul(d1, aa)), b))];
  return [
    add(sub(mul(d0, aa * bb), mul(d2, aa + bb)), d4),
    add(evenA, oddA),
    sub(evenA, oddA),
    add(evenB, oddB),
    sub(evenB, oddB),
    add(sub(mul(d1, aa * bb), mul(d3, aa + bb)), d5),
  ];
};
/** G g */
export const alongWeights = ([g0, g1, g2]: readonly V128[], keep: (e: Expr<'v128'>) => V128): Vectors => {
  const [evenA, oddA] = [keep(add(mul(g0!, 1 / na), mul(g2!, aa / na))), keep(mul(g1!, a / na))];
  const [evenB, oddB] = [keep(add(mul(g0!, 1 / nb), mul(g2!, bb / nb))), keep(mul(g1!, b / nb))];
  return [mul(g0!, 1 / n0), add(evenA, oddA), sub(evenA, oddA), add(evenB, oddB), sub(evenB, oddB), g2!];
};
/** Aᵀ m */
export const alongOutput = (m: readonly V128[], keep: (e: Expr<'v128'>) => V128): Vectors => {
  const [m0, m1, m2, m3, m4, m5] = m as [V128, V128, V128, V128, V128, V128];
  const [evenA, oddA] = [keep(add(m1, m2)), keep(sub(m1, m2))];
  const [evenB, oddB] = [keep(add(m3, m4)), keep(sub(m3, m4))];
  return [
    add(add(m0, evenA), evenB),
    add(mul(oddA, a), mul(oddB, b)),
    add(mul(evenA, aa), mul(evenB, bb)),
    add(add(mul(oddA, a * aa), mul(oddB, b * bb)), m5),
  ];
};
