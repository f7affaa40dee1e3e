/**
 * What the methods cost: the paper's tables 7 and 8, its equation 6 beside what was measured, and how many operations a
 * run asks for by the plans of its programs.
 */
import { max, mean, median } from 'd3-array';
import type { RunRecord } from '../run/record.ts';
import { number } from '../words/format.ts';
import type { Arm, Experiment } from './config.ts';
import type { State } from './state.ts';
import type { Table } from './tables.ts';

/** Seconds of a step and of one with a test, as a run's rows tell them: medians, so that what lies between steps does not count. */
export type StepSeconds = {
  readonly plain: number;
  readonly tested?: number;
  readonly tests: number;
  readonly steps: number;
};

export function stepSecondsOf(run: RunRecord): StepSeconds | undefined {
  const testing = new Set(run.expansions.map((x) => x.step));
  // a step before which a validation was made has its time too
  const validated = new Set(run.validations.map((v) => v.step));
  const spent = run.metrics.flatMap((row, i) => {
    const before = run.metrics[i - 1];
    if (!before || row.step !== before.step + 1 || validated.has(before.step)) return [];
    const seconds = (row.seconds ?? Number.NaN) - (before.seconds ?? Number.NaN);
    return Number.isFinite(seconds) && seconds > 0 ? [{ step: row.step, seconds }] : [];
  });
  const plain = median(spent.filter(({ step }) => !testing.has(step)).map(({ seconds }) => seconds));
  const tested = median(spent.filter(({ step }) => testing.has(step)).map(({ seconds }) => seconds));
  if (plain === undefined) return undefined;
  return {
    plain,
    ...(tested === undefined ? {} : { tested }),
    tests: testing.size,
    steps: max(run.metrics, (m) => m.step) ?? 0,
  };
}

/**
 * What the tests of a run add to its steps, as a share of them: measured, tests·(t_test/t_step − 1)/steps, and by
 * equation 6 of the paper, where a test is one more step every t: 1/t.
 */
export function testShareOf({ plain, tested, tests, steps }: StepSeconds, every: number) {
  if (tested === undefined) return undefined;
  return { measured: (tests * (tested / plain - 1)) / steps, predicted: 1 / every };
}

/** `2:36:56`, as the paper's table 8 */
export const clock = (seconds: number): string => {
  const s = Math.round(seconds);
  const two = (n: number) => String(n).padStart(2, '0');
  return `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
};

const finished = (states: readonly State[], arm: Arm): readonly RunRecord[] =>
  states.flatMap((s) => (s.state === 'done' && s.run.arm.name === arm.name ? [s.record] : []));
const averaged = (values: readonly (number | undefined)[]): number | undefined =>
  mean(values.filter((x): x is number => x !== undefined && Number.isFinite(x)));
const percent = (x: number | undefined): string => (x === undefined ? '–' : `${number(100 * x, 3)}%`);

/** Operations of a run by method name; nothing for one that no plan is made for. */
export type Flops = ReadonlyMap<string, number>;

/** Means over seeds. Nothing of the tests of a method that has none. */
export function costTable(e: Experiment, states: readonly State[], flops: Flops = new Map()): Table {
  const rows = e.arms.map((arm) => {
    const runs = finished(states, arm);
    const steps = runs.flatMap((run) => stepSecondsOf(run) ?? []);
    const shares = steps.flatMap((s) => testShareOf(s, arm.config.testEvery as number) ?? []);
    const memory = averaged(runs.map((run) => mean(run.metrics, (m) => m.memory)));
    const seconds = averaged(runs.map((run) => run.seconds));
    const count = flops.get(arm.name);
    return [
      arm.name,
      memory === undefined ? '–' : number(memory / 2 ** 20, 4),
      seconds === undefined ? '–' : clock(seconds),
      number(averaged(steps.map((s) => 1000 * s.plain))),
      number(averaged(steps.map((s) => (s.tested === undefined ? undefined : 1000 * s.tested)))),
      percent(averaged(shares.map((s) => s.measured))),
      percent(shares[0]?.predicted),
      count === undefined ? '–' : number(count / 1e12, 3),
    ];
  });
  return {
    title: 'What it costs: mean over seeds (the paper’s tables 7 and 8 and its equation 6)',
    head: [
      '',
      'memory on average, MiB',
      'time in all, h:mm:ss',
      'a step, ms',
      'a step with a test, ms',
      'tests, share of the steps’ time: measured',
      'by equation 6: 1/t',
      'operations in all, 10¹²',
    ],
    rows,
  };
}

/** The process's memory of every method at each step that all of its runs have: the mean over seeds (figures 11 and 12). */
export function memoryOverTime(arm: Arm, states: readonly State[]): readonly { step: number; value: number }[] {
  const runs = finished(states, arm);
  const at = new Map<number, number[]>();
  for (const run of runs)
    for (const { step, memory } of run.metrics)
      if (memory !== undefined) {
        const known = at.get(step) ?? [];
        known.push(memory / 2 ** 20);
        at.set(step, known);
      }
  return [...at]
    .filter(([, values]) => values.length === runs.length)
    .map(([step, values]) => ({ step, value: mean(values)! }))
    .sort((a, b) => a.step - b.step);
}
