/** Kernel distance of two sets of feature vectors: KID where they are Inception's. */

import { randomOf } from '../../../core/index.ts';
import { foldKey, type HostKey } from '../../../selora/adapter.ts';
import type { Features } from './frechet.ts';

/** (x·y/d + 1)³ */
export function cubicKernel(x: ArrayLike<number>, y: ArrayLike<number>): number {
  let dot = 0;
  for (let j = 0; j < x.length; j++) dot += x[j]! * y[j]!;
  return (dot / x.length + 1) ** 3;
}
const table = (a: Features, b: Features): Float64Array[] =>
  a.map((x) => Float64Array.from(b, (y) => cubicKernel(x, y)));

/** Kernel values within and between two sets, from which distance and intervals are computed. Cost: (n + m)²·d/2 */
export interface Kernels {
  readonly xx: readonly Float64Array[];
  readonly yy: readonly Float64Array[];
  readonly xy: readonly Float64Array[];
}
export const kernelsOf = (x: Features, y: Features): Kernels => ({
  xx: table(x, x),
  yy: table(y, y),
  xy: table(x, y),
});

/** Σ over i ≠ j of wᵢ·wⱼ·k(i, j) / Σ over i ≠ j of wᵢ·wⱼ */
function within(k: readonly Float64Array[], w: ArrayLike<number>): number {
  let [sum, weight] = [0, 0];
  for (const [i, row] of k.entries())
    if (w[i] !== 0)
      for (let j = 0; j < row.length; j++)
        if (j !== i) {
          sum += w[i]! * w[j]! * row[j]!;
          weight += w[i]! * w[j]!;
        }
  return sum / weight;
}
function between(k: readonly Float64Array[], w: ArrayLike<number>, v: ArrayLike<number>): number {
  let [sum, weight] = [0, 0];
  for (const [i, row] of k.entries())
    if (w[i] !== 0)
      for (let j = 0; j < row.length; j++) {
        sum += w[i]! * v[j]! * row[j]!;
        weight += w[i]! * v[j]!;
      }
  return sum / weight;
}
const ones = (n: number): ArrayLike<number> => new Float64Array(n).fill(1);

/**
 * The unbiased squared MMD with the cubic kernel (KID): mean k(x, x') over x ≠ x' + the same of y − 2·mean k(x, y). Sets may
 * differ in size; around 0, and negative half of the time, where both come from one distribution.
 * Source: Bińkowski et al., Demystifying MMD GANs (2018), eq. 4 of Gretton et al. 2012. @throws RangeError below two each
 */
export function kernelDistance({ xx, yy, xy }: Kernels, w = ones(xx.length), v = ones(yy.length)): number {
  if (xx.length < 2 || yy.length < 2) throw new RangeError('expected two or more feature vectors on each side');
  return within(xx, w) + within(yy, v) - 2 * between(xy, w, v);
}

/** The biased estimate, which counts k(x, x) too: never negative. */
export function biasedKernelDistance({ xx, yy, xy }: Kernels): number {
  const mean = (k: readonly Float64Array[]) =>
    k.reduce((s, row) => s + row.reduce((a, b) => a + b, 0), 0) / (k.length * k[0]!.length);
  return mean(xx) + mean(yy) - 2 * mean(xy);
}

/** how many of n draws from 0 … n − 1 fell on each, a pure function of key and time */
function drawn(key: HostKey, time: number, n: number): Float64Array {
  const [out, random] = [new Float64Array(n), randomOf(foldKey(key, time))];
  for (let i = 0; i < n; i++) out[random.int(n)]!++;
  return out;
}

/**
 * A 95% interval by the bootstrap over pictures: each resample draws both sets anew with replacement and takes the unbiased
 * estimate over pairs of different pictures (a picture drawn twice is no pair with itself). Percentiles of the resamples.
 * @example kernelInterval(kernelsOf(real, fake), { key: hostKey(1) }) // [low, high]
 */
export function kernelInterval(
  kernels: Kernels,
  { key, resamples = 1000 }: { readonly key: HostKey; readonly resamples?: number },
): readonly [low: number, high: number] {
  const [n, m] = [kernels.xx.length, kernels.yy.length];
  const found: number[] = [];
  for (let k = 0; k < resamples; k++) {
    const value = kernelDistance(kernels, drawn(key, 2 * k, n), drawn(key, 2 * k + 1, m));
    // of two or three pictures a resample may hold one alone
    if (Number.isFinite(value)) found.push(value);
  }
  found.sort((a, b) => a - b);
  const at = (share: number) => found[Math.min(found.length - 1, Math.floor(share * found.length))]!;
  return [at(0.025), at(0.975)];
}
