/** Statistics that d3-array has not: rank correlation, intervals of shares and of means. */
import { deviation, extent, mean } from 'd3-array';

/** Lowest and highest finite value, [0, 0] when there is none (d3's `extent` lets infinities through). */
export function finiteExtent(values: Iterable<number>): readonly [number, number] {
  const [low, high] = extent([...values].filter(Number.isFinite));
  return low === undefined ? [0, 0] : [low, high];
}

/** Ranks 1 … n with ties sharing their mean rank. */
export function ranksOf(values: readonly number[]): readonly number[] {
  const order = values.map((v, i) => [v, i] as const).sort((a, b) => a[0] - b[0]);
  const ranks = new Array<number>(values.length);
  for (let i = 0; i < order.length; ) {
    let j = i;
    while (j < order.length && order[j]![0] === order[i]![0]) j++;
    for (let k = i; k < j; k++) ranks[order[k]![1]] = (i + 1 + j) / 2;
    i = j;
  }
  return ranks;
}

/** The pairs whose values are both finite, as two lists. */
function finitePairs(x: readonly number[], y: readonly number[]): readonly [number[], number[]] {
  const pairs = x.map((v, i) => [v, y[i]!] as const).filter(([a, b]) => Number.isFinite(a) && Number.isFinite(b));
  return [pairs.map(([a]) => a), pairs.map(([, b]) => b)];
}

/**
 * Pearson's correlation. NaN when fewer than three pairs are finite or one side is constant.
 * @example pearson([1, 2, 3], [2, 4, 6]) // 1
 */
export function pearson(x: readonly number[], y: readonly number[]): number {
  const [a, b] = finitePairs(x, y);
  if (a.length < 3) return Number.NaN;
  const [ma, mb] = [mean(a)!, mean(b)!];
  const dot = (u: readonly number[], mu: number, v: readonly number[], mv: number): number =>
    u.reduce((sum, w, i) => sum + (w - mu) * (v[i]! - mv), 0);
  const scale = Math.sqrt(dot(a, ma, a, ma) * dot(b, mb, b, mb));
  return scale === 0 ? Number.NaN : dot(a, ma, b, mb) / scale;
}

/**
 * Spearman's rank correlation: Pearson's correlation of the ranks, ties averaged. NaN when fewer than three pairs
 * are finite or one side is constant.
 * @example spearman([1, 2, 3], [10, 20, 15]) // 0.5
 */
export function spearman(x: readonly number[], y: readonly number[]): number {
  const [a, b] = finitePairs(x, y);
  return pearson(ranksOf(a), ranksOf(b));
}

/**
 * Wilson's 95% interval for `right` of `n`: sensible for small n and for 0 or n right, unlike ± 1.96 standard errors.
 * @example wilson(0, 10) // [0, 0.278]
 */
export function wilson(right: number, n: number): readonly [low: number, high: number] {
  if (n === 0) return [0, 1];
  const z = 1.959964;
  const p = right / n;
  const centre = (p + (z * z) / (2 * n)) / (1 + (z * z) / n);
  const half = (z / (1 + (z * z) / n)) * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n));
  return [Math.max(0, centre - half), Math.min(1, centre + half)];
}

/**
 * Newcombe's 95% interval for the difference of two independent shares, a − b, built from Wilson's intervals
 * (R. G. Newcombe, Statistics in Medicine 17, 1998, method 10).
 * @example difference(56, 70, 48, 80) // [0.052, 0.334]
 */
export function difference(
  rightA: number,
  nA: number,
  rightB: number,
  nB: number,
): readonly [low: number, high: number] {
  const [a, b] = [rightA / nA, rightB / nB];
  const [lowA, highA] = wilson(rightA, nA);
  const [lowB, highB] = wilson(rightB, nB);
  return [a - b - Math.hypot(a - lowA, highB - b), a - b + Math.hypot(highA - a, b - lowB)];
}

/**
 * The factor of a 95% interval of a mean: the 0.975 quantile of Student's t with `freedom` degrees, by the expansion of
 * Cornish and Fisher (Abramowitz and Stegun 26.7.5): to 0.1% from 4 degrees on. Infinite below one degree.
 * @example studentFactor(9) // 2.262
 */
export function studentFactor(freedom: number): number {
  if (!(freedom >= 1)) return Number.POSITIVE_INFINITY;
  const exact = [12.7062, 4.3027, 3.1824][freedom - 1];
  if (exact !== undefined) return exact;
  const [z, n] = [1.959964, freedom];
  const terms = [
    (z ** 3 + z) / 4,
    (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96,
    (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384,
    (79 * z ** 9 + 776 * z ** 7 + 1482 * z ** 5 - 1920 * z ** 3 - 945 * z) / 92160,
  ];
  return terms.reduce((sum, term, k) => sum + term / n ** (k + 1), z);
}

/** A mean and its standard error s/√n; the error of fewer than two values is NaN. */
export function meanWithError(values: readonly number[]): { readonly mean: number; readonly error: number } {
  const spread = deviation(values);
  return {
    mean: mean(values) ?? Number.NaN,
    error: spread === undefined ? Number.NaN : spread / Math.sqrt(values.length),
  };
}
