/** Steps with an expansion test: the update, the scores by the chosen measure and criterion, the decisions, the growth. */
import { z } from 'zod';
import type { Backend, Tensor } from '../../core/index.ts';
import type { Decision, Measure, Scores } from '../../selora/fisher.ts';
import { type Memory, smooth } from '../../selora/smooth.ts';
import type { RunConfig } from '../config/config.ts';
import { type Drawn, drawCandidates, drawPublished, grow, judge, moduleName, type Ranks, scoresFrom } from './ranks.ts';
import { type Batch, type Frozen, type Hyper, mapModules, type PerNetwork, type State, type Steps } from './step.ts';

/** What has to be measured for a run's criterion. */
export const measureOf = (c: Pick<RunConfig, 'fisher' | 'criterion'>): Measure =>
  c.criterion === 'fi-snr'
    ? 'signal'
    : c.criterion === 'loss-decrease'
      ? 'natural'
      : c.fisher === 'batch'
        ? 'batch'
        : 'fisher';

/** module → its smoothed scores; empty without `--fi-ema` */
export type Memories = { readonly [module: string]: Memory };
const score = z.number();
export const memoriesSchema = z.record(
  z.string(),
  z.object({ fiA: score, fiB: score, fiNew: score, gain: score.optional(), tests: z.int().min(1) }),
) as z.ZodType<Memories>;

type Before = { readonly state: State; readonly ranks: Ranks; readonly memories: Memories };
type Scored = PerNetwork<{ readonly [path: string]: Scores }>;
export type Grown = Before & { readonly decisions: readonly Decision[]; readonly padded: boolean };
/** A step that tests, before anything was decided. */
export type TestedStep = {
  readonly state: State;
  readonly loss: Tensor;
  readonly norm: Tensor;
  /** decides and grows; reads the scores */
  readonly decide: () => Promise<Grown>;
};

/** Smooths the scores of a test; memories of other modules stay. */
function smoothed(beta: number, scores: Scored, before: Memories): { scores: Scored; memories: Memories } {
  if (beta === 0) return { scores, memories: before };
  const memories: Record<string, Memory> = { ...before };
  const out = mapModules((s: Scores, path, n) => {
    const name = moduleName(n, path);
    const next = smooth(before[name], s, beta);
    memories[name] = next.memory;
    return next.scores;
  }, scores);
  return { scores: out, memories };
}

export type GrowthParts = {
  readonly config: RunConfig;
  readonly programs: Steps;
  readonly frozen: Frozen;
  readonly backend: Backend;
};

/** The rest of a test: smooth, decide, install. `installed` are the columns that grown modules get. */
function conclude(
  { config: c, programs, backend }: GrowthParts,
  { state, ranks, memories }: Before,
  scores: Scored,
  tested: Drawn,
  installed: Drawn,
): Grown {
  const s = smoothed(c.fiEma, scores, memories);
  const decisions = judge(c, s.scores, ranks, tested.keys);
  const next = grow(c, state, ranks, installed.candidates, decisions, programs.install, backend);
  // a module that has grown is another one: its scores begin anew
  const grown = new Set(decisions.filter((d) => d.expanded).map((d) => d.module));
  const kept = Object.fromEntries(Object.entries(s.memories).filter(([name]) => !grown.has(name)));
  return { ...next, memories: kept, decisions };
}

/**
 * One update from the micro-batches of a step and the expansion test of that step (1-based). `extra` micro-batches take
 * part in the scores only.
 */
export function testedStep(
  parts: GrowthParts,
  before: Before,
  batches: readonly Batch[],
  extra: readonly Batch[],
  hyper: Hyper,
  step: number,
): TestedStep {
  const { config: c, programs, frozen } = parts;
  const { ranks } = before;
  if (c.compat === 'published-code') return publishedStep(parts, before, batches, hyper);
  const drawn = drawCandidates(c, before.state, ranks, step);
  const r =
    batches.length === 1 && extra.length === 0
      ? programs.tested(before.state, frozen, batches[0]!, hyper, drawn.candidates)
      : programs.accumulated(before.state, frozen, batches, hyper, drawn.candidates, extra);
  return {
    ...r,
    decide: async () => {
      const scores = scoresFrom(await programs.readSums(r.sums!), ranks);
      return conclude(parts, { ...before, state: r.state }, scores, drawn, drawn);
    },
  };
}

/**
 * The published code's test: FI(original) from the gradients before the update, FI(expanded) from a second pass over the
 * same batch after it; both square the batch gradient. Another column than the tested one is installed, and the module's
 * moments begin anew (`restart` of the programs).
 */
function publishedStep(parts: GrowthParts, before: Before, batches: readonly Batch[], hyper: Hyper): TestedStep {
  const { config: c, programs, frozen } = parts;
  const { ranks } = before;
  const drawn = drawPublished(c, before.state, ranks, 'tested');
  const first = programs.scores(before.state, frozen, batches, drawn.candidates);
  const r =
    batches.length === 1
      ? programs.plain(before.state, frozen, batches[0]!, hyper)
      : programs.accumulated(before.state, frozen, batches, hyper);
  const second = programs.scores(r.state, frozen, batches, drawn.candidates);
  return {
    ...r,
    decide: async () => {
      const original = scoresFrom(await programs.readSums(first), ranks);
      const expanded = scoresFrom(await programs.readSums(second), ranks);
      const scores = mapModules((o: Scores, path, n): Scores => {
        const e = expanded[n][path]!;
        // FI(expanded) − FI(original): may be negative here, since the update lies in between
        return { fiA: o.fiA, fiB: o.fiB, fiNew: e.fiA + e.fiB + e.fiNew - o.fiA - o.fiB };
      }, original);
      const installed = drawPublished(c, r.state, ranks, 'installed');
      return conclude(parts, { ...before, state: r.state }, scores, drawn, installed);
    },
  };
}
