/**
 * What the expansion log says about each module and each test, computed once for charts, tooltips and tables.
 */
import { bisector, group } from 'd3-array';
import type { ExpansionRow, ModuleRow, RunRecord } from '../run/record.ts';
import { grownIn, testsIn } from '../run/test-log.ts';

/** One module's growth: its rank before the first test, then every test in order of steps. */
export interface ModuleHistory {
  readonly path: string;
  readonly start: number;
  readonly rank: number;
  readonly tests: readonly ExpansionRow[];
  /** how often it was tested, and how often it grew */
  readonly tested: number;
  readonly grown: number;
  readonly change?: number;
  readonly used?: number;
  /** d_in + d_out: parameters of one rank */
  readonly width?: number;
}

type Log = Pick<RunRecord, 'modules' | 'expansions'>;
const known = new WeakMap<Log, readonly ModuleHistory[]>();

/** Histories of all modules: those of the final list first (its order kept), then those only the log knows. */
export function moduleHistories(run: Log): readonly ModuleHistory[] {
  const found = known.get(run);
  if (found) return found;
  const tests = group(run.expansions, (e) => e.module);
  const named = new Set(run.modules.map((m) => m.path));
  const extra = [...tests.keys()].filter((path) => !named.has(path));
  const histories = [
    ...run.modules.map((m) => history(m.path, tests.get(m.path) ?? [], m)),
    ...extra.map((path) => history(path, tests.get(path)!, undefined)),
  ];
  known.set(run, histories);
  return histories;
}

function history(path: string, log: readonly ExpansionRow[], module: ModuleRow | undefined): ModuleHistory {
  const tests = [...log].sort((a, b) => a.step - b.step);
  const first = tests[0];
  const last = tests.at(-1);
  const rank = module?.rank ?? last?.rankAfter ?? 0;
  // the rank before the first test follows from its outcome
  const start =
    first === undefined ? rank : Math.max(0, first.rankAfter - (first.added ?? grownIn(first)) + (first.lost ?? 0));
  const width = module?.dIn === undefined || module.dOut === undefined ? undefined : module.dIn + module.dOut;
  return {
    path,
    start,
    rank,
    tests,
    tested: tests.reduce((n, t) => n + testsIn(t), 0),
    grown: tests.reduce((n, t) => n + grownIn(t), 0),
    ...(module?.change === undefined ? {} : { change: module.change }),
    ...(module?.used === undefined ? {} : { used: module.used }),
    ...(width === undefined ? {} : { width }),
  };
}

const byStep = bisector((t: ExpansionRow) => t.step);

/** Rank of a module after all tests up to and including `step`. */
export function rankAt(history: ModuleHistory, step: number): number {
  return history.tests[byStep.right(history.tests, step) - 1]?.rankAfter ?? history.start;
}

/** Sorted, distinct steps at which a test was made. */
export function testSteps(histories: readonly ModuleHistory[]): readonly number[] {
  const steps = new Set<number>();
  for (const { tests } of histories) for (const t of tests) steps.add(t.step);
  return [...steps].sort((a, b) => a - b);
}

/** Most columns of a chart of tests: more are too narrow to see and make the page heavy. */
const MOST_BINS = 120;

/**
 * The steps of tests in at most `most` runs of neighbours of equal number, each told by its last step; every test by
 * itself where there are few.
 */
export function testBins(
  steps: readonly number[],
  most = MOST_BINS,
): {
  readonly ends: readonly number[];
  readonly endOf: (step: number) => number;
} {
  const size = Math.ceil(steps.length / most);
  const ends = steps.filter((_, i) => (i + 1) % size === 0 || i === steps.length - 1);
  const at = bisector((step: number) => step);
  return { ends, endOf: (step) => ends[at.left(ends, step)] ?? step };
}

/** The last step that the rows know of. */
export const lastStepOf = (run: Pick<RunRecord, 'metrics' | 'expansions'>): number =>
  Math.max(0, run.metrics.at(-1)?.step ?? 0, run.expansions.at(-1)?.step ?? 0);
