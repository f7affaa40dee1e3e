/** Means over seeds, differences paired by seed, and what may be concluded from them. */
import { deviation, mean } from 'd3-array';
import type { RunRecord } from '../run/record.ts';
import { counted, number } from '../words/format.ts';
import { spearman, studentFactor } from '../words/statistics.ts';
import type { Experiment } from './config.ts';
import { MEASURES, type Measure } from './measures.ts';
import type { State } from './state.ts';

/** Values of one measure of one method. `sd` is absent below two of them. */
export type Summary = { readonly n: number; readonly mean: number; readonly sd?: number };
/** A mean difference over the seeds both have, with its 95% interval by Student's t; none below two seeds. */
export type Difference = { readonly n: number; readonly mean: number; readonly interval?: readonly [number, number] };

export function summaryOf(values: readonly number[]): Summary | undefined {
  if (values.length === 0) return undefined;
  const sd = deviation(values);
  return { n: values.length, mean: mean(values)!, ...(sd === undefined ? {} : { sd }) };
}
/**
 * Differences a − b by seed: mean ± t₀.₉₇₅(n − 1)·s/√n.
 * @example differenceOf(new Map([[1, 3], [2, 5]]), new Map([[1, 2], [2, 2]])) // mean 2, n 2
 */
export function differenceOf(a: ReadonlyMap<number, number>, b: ReadonlyMap<number, number>): Difference | undefined {
  const values = [...a].flatMap(([seed, x]) => (b.has(seed) ? [x - b.get(seed)!] : []));
  const s = summaryOf(values);
  if (!s) return undefined;
  // what rounding leaves of differences that cancel is no difference
  const center = Math.abs(s.mean) < 1e-14 * Math.max(...values.map(Math.abs)) ? 0 : s.mean;
  if (s.sd === undefined) return { n: s.n, mean: center };
  const half = (studentFactor(s.n - 1) * s.sd) / Math.sqrt(s.n);
  return { n: s.n, mean: center, interval: [center - half, center + half] };
}

/** One measure of all methods. */
export type Row = {
  readonly measure: Measure;
  readonly cells: readonly {
    readonly arm: string;
    readonly summary: Summary | undefined;
    /** to the method the others are compared with; of itself absent */
    readonly difference: Difference | undefined;
  }[];
};
const valuesOf = (states: readonly State[], arm: string, measure: Measure): ReadonlyMap<number, number> =>
  new Map(
    states.flatMap((s) => {
      if (s.state !== 'done' || s.run.arm.name !== arm) return [];
      const x = measure.of(s.record);
      return x === undefined ? [] : [[s.run.seed, x] as const];
    }),
  );

/** The measures that any run has, over all methods. */
export function compare(
  e: Experiment,
  states: readonly State[],
  measures: readonly Measure[] = MEASURES,
): readonly Row[] {
  return measures.flatMap((measure): Row[] => {
    const rival = valuesOf(states, e.against, measure);
    const cells = e.arms.map(({ name }) => {
      const own = valuesOf(states, name, measure);
      return {
        arm: name,
        summary: summaryOf([...own.values()]),
        difference: name === e.against ? undefined : differenceOf(own, rival),
      };
    });
    return cells.every((c) => c.summary === undefined) ? [] : [{ measure, cells }];
  });
}

/** `0.1812 ± 0.0031 (n = 5)` */
export const saySummary = (s: Summary | undefined): string =>
  s === undefined ? '–' : `${number(s.mean, 4)}${s.sd === undefined ? '' : ` ± ${number(s.sd, 2)}`} (n = ${s.n})`;
/** `−0.0123 [−0.0159, −0.0087]` */
export const sayDifference = (d: Difference | undefined): string =>
  d === undefined
    ? '–'
    : `${number(d.mean, 3)}${d.interval === undefined ? '' : ` [${number(d.interval[0], 3)}, ${number(d.interval[1], 3)}]`}`;

/** Fewer seeds than this make intervals that are as wide as they are uncertain. */
const FEW = 5;
/** What may be said of one method beside another by one measure, and what not; nothing from a single seed. */
export function conclude(row: Row, arm: string, against: string): string | undefined {
  const { measure } = row;
  const d = row.cells.find((c) => c.arm === arm)?.difference;
  if (!measure.better || !d) return undefined;
  const head = `${arm} against ${against}, ${measure.label}: ${sayDifference(d)}`;
  if (!d.interval) return undefined;
  const [low, high] = d.interval;
  if (low <= 0 && high >= 0) return `${head}: the interval holds 0, so ${counted(d.n, 'seed')} show no difference.`;
  const better = d.mean < 0 === (measure.better === 'lower');
  const few = d.n < FEW ? `, though ${d.n} seeds are few` : '';
  return `${head}: ${better ? 'better' : 'worse'} over these ${d.n} seeds${few}.`;
}
/** The sentences on all methods, the first measure first; with several comparisons, what an interval does not cover. */
export function conclusions(e: Experiment, rows: readonly Row[]): readonly string[] {
  const all = rows.flatMap((row) => e.arms.flatMap(({ name }) => conclude(row, name, e.against) ?? []));
  const intervals = rows
    .filter((row) => row.measure.better)
    .reduce((n, row) => n + row.cells.filter((c) => c.difference?.interval).length, 0);
  const alone = rows.some((row) => row.measure.better && row.cells.some((c) => c.difference && !c.difference.interval));
  return intervals < 2
    ? [...all, ...(alone ? ['Differences from a single seed say nothing about others.'] : [])]
    : [
        ...all,
        ...(alone ? ['Differences from a single seed say nothing about others; they stand in the tables alone.'] : []),
        `Each interval is that of one comparison. Among ${intervals} of them about ${number(intervals * 0.05, 2)} would miss 0 by chance alone.`,
      ];
}

/**
 * What a method's ranks are used for: totals of what was granted and of the participation ratio of what it changed (means
 * over seeds), and Spearman's correlation of the two over the modules.
 */
export function rankUse(
  states: readonly State[],
  arm: string,
): { readonly granted: number; readonly used: number; readonly correlation: number } | undefined {
  const runs = states.flatMap((s) =>
    s.state === 'done' && s.run.arm.name === arm && s.record.modules.some((m) => m.used !== undefined)
      ? [s.record]
      : [],
  );
  if (runs.length === 0) return undefined;
  const total = (of: (m: RunRecord['modules'][number]) => number) =>
    mean(runs, (run) => run.modules.reduce((n, m) => n + of(m), 0))!;
  const each = runs.map((run) =>
    spearman(
      run.modules.map((m) => m.rank),
      run.modules.map((m) => m.used ?? 0),
    ),
  );
  return {
    granted: total((m) => m.rank),
    used: total((m) => m.used ?? 0),
    correlation: mean(each.filter(Number.isFinite)) ?? Number.NaN,
  };
}

/** Spearman's correlation of a method's ranks between seeds, over the modules: its mean over all pairs of seeds. */
export function rankAgreement(
  states: readonly State[],
  arm: string,
): { readonly mean: number; readonly pairs: number } | undefined {
  const runs = states.flatMap((s) => (s.state === 'done' && s.run.arm.name === arm ? [s.record] : []));
  const names = [...new Set(runs.flatMap((r) => r.modules.map((m) => m.path)))];
  const ranks = runs.map((r) => {
    const of = new Map(r.modules.map((m) => [m.path, m.rank]));
    // a module that was given nothing is no part of the file
    return names.map((name) => of.get(name) ?? 0);
  });
  const found = ranks.flatMap((a, i) => ranks.slice(i + 1).map((b) => spearman(a, b))).filter(Number.isFinite);
  return found.length === 0 ? undefined : { mean: mean(found)!, pairs: found.length };
}
