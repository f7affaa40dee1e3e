/**
 * What the expansion log says about each module and each test, computed once for charts, tooltips and tables.
 */
import type { ExpansionRow, ModuleRow, RunSummary } from './summary.ts';

/** One module's growth: its rank before the first test, then every test in order of steps. */
export interface ModuleHistory {
  readonly path: string;
  readonly start: number;
  readonly rank: number;
  readonly tests: readonly ExpansionRow[];
  readonly change?: number;
}

/** Histories of all modules: those of the final list first (its order kept), then those only the log knows. */
export function moduleHistories(summary: Pick<RunSummary, 'modules' | 'expansions'>): readonly ModuleHistory[] {
  const tests = groupBy(summary.expansions, (e) => e.module);
  const known = new Set(summary.modules.map((m) => m.path));
  const extra = [...tests.keys()].filter((path) => !known.has(path));
  return [
    ...summary.modules.map((m) => history(m.path, tests.get(m.path) ?? [], m)),
    ...extra.map((path) => history(path, tests.get(path)!, undefined)),
  ];
}

function history(path: string, log: readonly ExpansionRow[], module: ModuleRow | undefined): ModuleHistory {
  const tests = [...log].sort((a, b) => a.step - b.step);
  const first = tests[0];
  const last = tests.at(-1);
  const rank = module?.rank ?? last?.rankAfter ?? 0;
  // An expansion adds one column, so the rank before the first test follows from its outcome.
  const start = first === undefined ? rank : Math.max(0, first.rankAfter - (first.expanded ? 1 : 0));
  return { path, start, rank, tests, ...(module?.change === undefined ? {} : { change: module.change }) };
}

/** Rank of a module after all tests up to and including `step`. */
export function rankAt(history: ModuleHistory, step: number): number {
  return history.tests.filter((t) => t.step <= step).at(-1)?.rankAfter ?? history.start;
}

/** Sorted, distinct steps at which a test was made. */
export function testSteps(expansions: readonly ExpansionRow[]): readonly number[] {
  return [...new Set(expansions.map((e) => e.step))].sort((a, b) => a - b);
}

/** Lists per key, keys in order of first appearance. */
export function groupBy<T, K>(items: Iterable<T>, key: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const item of items) {
    const k = key(item);
    const group = groups.get(k);
    if (group) group.push(item);
    else groups.set(k, [item]);
  }
  return groups;
}

/** Arithmetic mean; NaN for no values. */
export const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

/** Lowest and highest finite value, [0, 0] when there is none. */
export function extent(values: Iterable<number>): readonly [number, number] {
  const finite = [...values].filter(Number.isFinite);
  return finite.length === 0
    ? [0, 0]
    : [finite.reduce((a, b) => Math.min(a, b)), finite.reduce((a, b) => Math.max(a, b))];
}

/**
 * The p-quantile with linear interpolation between order statistics (Hyndman and Fan's type 7, R's default).
 * NaN values are left out; NaN when nothing is left.
 */
export function quantile(values: readonly number[], p: number): number {
  const sorted = values.filter((v) => !Number.isNaN(v)).sort((a, b) => a - b);
  if (sorted.length === 0) return Number.NaN;
  const at = p * (sorted.length - 1);
  const low = sorted[Math.floor(at)]!;
  const high = sorted[Math.ceil(at)]!;
  return low === high ? low : low + (high - low) * (at - Math.floor(at));
}

/** Ranks 1 … n with ties sharing their mean rank. */
function ranksOf(values: readonly number[]): readonly number[] {
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

/**
 * Spearman's rank correlation: Pearson's correlation of the ranks, ties averaged. NaN when fewer than three pairs
 * are finite or one side is constant.
 * @example spearman([1, 2, 3], [10, 20, 15]) // 0.5
 */
export function spearman(x: readonly number[], y: readonly number[]): number {
  const pairs = x.map((v, i) => [v, y[i]!] as const).filter(([a, b]) => Number.isFinite(a) && Number.isFinite(b));
  if (pairs.length < 3) return Number.NaN;
  const a = ranksOf(pairs.map((p) => p[0]));
  const b = ranksOf(pairs.map((p) => p[1]));
  const [ma, mb] = [mean(a), mean(b)];
  const dot = (u: readonly number[], mu: number, v: readonly number[], mv: number): number =>
    u.reduce((sum, w, i) => sum + (w - mu) * (v[i]! - mv), 0);
  const scale = Math.sqrt(dot(a, ma, a, ma) * dot(b, mb, b, mb));
  return scale === 0 ? Number.NaN : dot(a, ma, b, mb) / scale;
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
