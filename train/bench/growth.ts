/**
 * How the cost of a step grows: its time, memory and arithmetic against batch, resolution, rank and adapted modules, one of
 * them changed at a time, each beside the line that fits best.
 */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { UsageError } from '../cli/command.ts';
import { number } from '../words/format.ts';
import type { PlainFigures } from './step.ts';

/** What a point is measured at; `modules`: undefined for all that are adapted. */
export type At = {
  readonly batch: number;
  /** pixels along a side */
  readonly resolution: number;
  readonly rank: number;
  readonly modules?: number;
};
export type Axis = keyof At;
/** Figures of a point that are shown. */
export type Figures = Pick<
  PlainFigures,
  'modules' | 'step_ms' | 'peak_bytes' | 'rss_bytes' | 'gflop' | 'attention_gflop'
>;

/** The values of each axis. */
export const AXES: Readonly<Record<Axis, readonly number[]>> = {
  batch: [1, 2, 4, 8, 16, 32],
  resolution: [64, 96, 128, 160, 192, 224, 256],
  rank: [1, 2, 4, 8, 16, 32, 64],
  modules: [8, 16, 32, 64, 128, 256],
};
/** What cost is a line in. */
const UNITS: Readonly<Record<Axis, { readonly words: string; readonly of: (value: number) => number }>> = {
  batch: { words: 'a picture', of: (n) => n },
  resolution: { words: 'a thousand pixels', of: (side) => side ** 2 / 1000 },
  rank: { words: 'a rank', of: (n) => n },
  modules: { words: 'a module', of: (n) => n },
};
const MEASURES = {
  'step, ms': (f: Figures) => f.step_ms,
  'on the backend, MiB': (f: Figures) => f.peak_bytes / 2 ** 20,
  'process, MiB': (f: Figures) => f.rss_bytes / 2 ** 20,
  GFLOP: (f: Figures) => f.gflop,
  '… of attention': (f: Figures) => f.attention_gflop,
} as const;
export type Measure = keyof typeof MEASURES;

/** A line y = start + slope·x, and how far the points are from it at most. */
export type Line = {
  readonly start: number;
  readonly slope: number;
  /** largest |line/y − 1| */
  readonly off: number;
  /** the point it is at */
  readonly offAt: number;
};

/**
 * The line with the least sum of squares of (line/y − 1), y > 0: a tenth off counts alike at small and large points.
 * @example fitLine([1, 2, 3], [3, 5, 7]) // { start: 1, slope: 2, off: 0, offAt: … }
 */
export function fitLine(xs: readonly number[], ys: readonly number[]): Line {
  let [w, wx, wxx, wy, wxy] = [0, 0, 0, 0, 0];
  for (const [i, x] of xs.entries()) {
    const y = ys[i]!;
    const weight = y ** -2;
    w += weight;
    wx += weight * x;
    wxx += weight * x * x;
    wy += weight * y;
    wxy += weight * x * y;
  }
  const slope = (w * wxy - wx * wy) / (w * wxx - wx * wx);
  const exact = (wy - slope * wx) / w;
  // what is left of a difference of equal numbers is nothing
  const start = Math.abs(exact) < 1e-9 * Math.max(...ys) ? 0 : exact;
  const away = xs.map((x, i) => Math.abs((start + slope * x) / ys[i]! - 1));
  const off = Math.max(...away);
  return { start, slope, off, offAt: away.indexOf(off) };
}

/** A point of an axis: its figures, or the line that says why there are none. */
export type Point = { readonly value: number; readonly figures?: Figures; readonly problem?: string };
export type Grown = {
  readonly axis: Axis;
  readonly points: readonly Point[];
  /** of every measure that is above 0 everywhere, where two points or more were measured */
  readonly lines: Readonly<Partial<Record<Measure, Line>>>;
};

/** Measures one point. @throws Error with one line where it cannot be */
export type MeasurePoint = (at: At) => Promise<Figures>;

/**
 * Measures around a middle, axis by axis; what several axes share is measured once.
 * @throws UsageError where the middle itself cannot be measured
 */
export async function measureGrowth(
  middle: At,
  axes: readonly Axis[],
  measure: MeasurePoint,
  tell: (line: string) => void = () => undefined,
): Promise<readonly Grown[]> {
  const known = new Map<string, Promise<Figures>>();
  const at = (where: At): Promise<Figures> => {
    const key = JSON.stringify([where.batch, where.resolution, where.rank, where.modules]);
    if (!known.has(key)) known.set(key, measure(where));
    return known.get(key)!;
  };
  const { modules } = await at(middle).catch((error: Error) => {
    throw new UsageError(error.message);
  });
  const grown: Grown[] = [];
  for (const axis of axes) {
    const values = axis === 'modules' ? [...AXES.modules.filter((n) => n < modules), modules] : AXES[axis];
    const points: Point[] = [];
    for (const value of values) {
      const all = axis === 'modules' && value === modules;
      const where = all ? middle : { ...middle, [axis]: value };
      const point: Point = await at(where).then(
        (figures) => ({ value, figures }),
        (error: Error) => ({ value, problem: error.message }),
      );
      points.push(point);
      tell(`${axis} ${value}: ${point.figures ? `${number(point.figures.step_ms)} ms` : point.problem}`);
    }
    grown.push({ axis, points, lines: linesOf(axis, points) });
  }
  return grown;
}

function linesOf(axis: Axis, points: readonly Point[]): Grown['lines'] {
  const measured = points.flatMap(({ value, figures }) => (figures ? [{ value, figures }] : []));
  const xs = measured.map(({ value }) => UNITS[axis].of(value));
  const lines: Partial<Record<Measure, Line>> = {};
  for (const [name, of] of Object.entries(MEASURES) as [Measure, (f: Figures) => number][]) {
    const ys = measured.map(({ figures }) => of(figures));
    if (xs.length < 2 || ys.some((y) => !(y > 0))) continue;
    const line = fitLine(xs, ys);
    lines[name] = { ...line, offAt: measured[line.offAt]!.value };
  }
  return lines;
}

/** Deviations above this need a reason. */
const STRAIGHT = 0.1;

/** The table, in Markdown: a row for each axis and measure, and below it what could not be measured. */
export function growthTable(grown: readonly Grown[]): readonly string[] {
  const rows = grown.flatMap(({ axis, points, lines }) =>
    (Object.keys(MEASURES) as Measure[]).map((name, i) => {
      const values = points.map(({ figures }) => (figures ? number(MEASURES[name](figures)) : '–')).join(', ');
      const line = lines[name];
      const straight = line ? `${number(line.start)} + ${number(line.slope)} ${UNITS[axis].words}` : '';
      const off = line ? `${(100 * line.off).toFixed(1)}% at ${line.offAt}` : '';
      const what = i === 0 ? `${axis} ${points.map(({ value }) => value).join(', ')}` : '';
      return `| ${what} | ${name} | ${values} | ${straight} | ${line && line.off > STRAIGHT ? `**${off}**` : off} |`;
    }),
  );
  const problems = grown.flatMap(({ axis, points }) =>
    points.flatMap(({ value, problem }) => (problem === undefined ? [] : [`${axis} ${value}: ${problem}`])),
  );
  const head = ['| against | what | at each | line | off by at most |', '| --- | --- | --- | --- | --- |'];
  return [...head, ...rows, ...(problems.length > 0 ? ['', ...problems] : [])];
}

const here = (file: string): string => fileURLToPath(new URL(file, import.meta.url));

/**
 * Measures a point in a process of its own, whose peak memory is that of this point alone.
 * @param fixed what every point has: model, backend, threads
 */
export const inProcess =
  (fixed: readonly string[], signal: AbortSignal): MeasurePoint =>
  (at) =>
    new Promise((resolve, reject) => {
      const words = Object.entries(at).flatMap(([name, value]) => [`--${name}`, String(value)]);
      const args = ['--step', '--plain', '--json', ...words, ...fixed];
      execFile(
        process.execPath,
        [here('../cli/start.mjs'), here('../bench.ts'), ...args],
        { signal, maxBuffer: 2 ** 24 },
        (error, stdout, stderr) => {
          if (!error) resolve((JSON.parse(stdout) as { steps: readonly [Figures] }).steps[0]);
          else reject(new Error(stderr.trim().split('\n').at(-1) || error.message));
        },
      );
    });
