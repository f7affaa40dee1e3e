/** Norms and sums of every parameter's gradient: a golden file is too small to hold them whole. */
import { z } from 'zod';
import { gradientLimit, type Limits } from './distances.ts';
import type { GoldenCase } from './golden.ts';

export const parameterGradients = z.record(z.string(), z.object({ l2: z.number(), sum: z.number() }));
export type ParameterGradients = z.output<typeof parameterGradients>;

/**
 * What a parameter's gradient is relative to. One that is zero but for rounding (softmax does not see the bias of the keys,
 * a norm not that of the convolution before it) has no size of its own to be relative to: the largest gradient's is taken.
 */
export function gradientScale(expected: ParameterGradients): (l2: number) => number {
  const largest = Object.values(expected).reduce((most, { l2 }) => Math.max(most, l2), 0);
  return (l2) => (l2 > 1e-6 * largest ? l2 : largest || 1);
}

/**
 * The worst parameter by norm and the worst by sum. A sum may cancel to nothing, so its error is relative to the largest
 * sum a gradient of that norm can have: l2·√n.
 */
export function* compareNorms(
  name: string,
  gradients: ReadonlyMap<string, ArrayLike<number>>,
  expected: ParameterGradients,
  { precision, f64, gradientError }: Limits,
): Generator<GoldenCase> {
  const limit =
    precision === 'f64'
      ? (f64 ?? { tolerance: 1e-9, why: 'f64, long sums in another order' })
      : gradientLimit(gradientError);
  const scaleOf = gradientScale(expected);
  let byNorm = { error: 0, path: 'none' };
  let bySum = { error: 0, path: 'none' };
  for (const [path, want] of Object.entries(expected)) {
    const values = gradients.get(path);
    if (!values) throw new Error(`${name}: the model has no parameter ${path}`);
    let [squares, total] = [0, 0];
    for (let i = 0; i < values.length; i++) {
      squares += values[i]! ** 2;
      total += values[i]!;
    }
    const scale = scaleOf(want.l2);
    const norm = Math.abs(Math.sqrt(squares) - want.l2) / scale;
    const sum = Math.abs(total - want.sum) / (scale * Math.sqrt(values.length));
    if (!(norm <= byNorm.error)) byNorm = { error: Number.isNaN(norm) ? Infinity : norm, path };
    if (!(sum <= bySum.error)) bySum = { error: Number.isNaN(sum) ? Infinity : sum, path };
  }
  const count = Object.keys(expected).length;
  yield { case: `${name} norms of ${count} parameters, worst ${byNorm.path}`, error: byNorm.error, ...limit };
  yield { case: `${name} sums of ${count} parameters, worst ${bySum.path}`, error: bySum.error, ...limit };
}
