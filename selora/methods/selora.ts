/** SeLoRA: ranks grow where a new one would carry information; the paper's criterion, others beside it, the published code. */
import { z } from 'zod';
import type { HostArray, Tensor } from '../../core/index.ts';
import type { Adapter } from '../adapter.ts';
import type { Criterion, Score } from '../criteria/criterion.ts';
import { fiRatio } from '../criteria/fi-ratio.ts';
import { CRITERIA } from '../criteria/index.ts';
import type { RankSums } from '../fisher.ts';
import { checkBudget, evenly } from '../gain/schedule.ts';
import { gainSettings } from '../gain/settings.ts';
import { paperTest, publishedTest } from '../growth.ts';
import type { Memory } from '../smooth.ts';
import { installed, type Trial, withCandidate, withoutCandidate } from '../trial.ts';
import { inputsOf, lowRank, totalRankOf } from './low-rank.ts';
import { Field, type Growth, type Measure, type MethodOf } from './method.ts';
import { gainA, rank, ranks, scale, told } from './settings.ts';

const positive = z.int().min(1).max(1e9);
const group = 'Growth of ranks';
const settings = {
  rank,
  ranks,
  scale,
  gainA,
  lambda: told(z.number().min(0).max(1e6).default(1.1), {
    group,
    help: 'a module grows where FI_expanded/FI_original is above this',
  }),
  testEvery: told(positive.default(40), { group, help: 'steps between expansion tests' }),
  budget: told(positive.nullable().default(null), { group, help: 'most ranks in all (default: no limit)' }),
  fisher: told(z.enum(['per-sample', 'batch']).default('per-sample'), {
    group,
    value: 'what',
    help: "squares per-sample gradients (eq. 3) or the batch gradient (the published code's)",
  }),
  fiBatches: told(z.int().min(1).max(1000).default(1), {
    group,
    help: "batches whose scores are averaged at a test; the first is the step's own",
  }),
  fiEma: told(z.number().min(0).max(0.9999).default(0), {
    group,
    value: 'beta',
    help: 'smooths the scores of a module over its tests, until it grows; 0: not',
  }),
  fiTimesteps: told(z.enum(['drawn', 'stratified']).default('drawn'), {
    group,
    value: 'how',
    help: 'timesteps of the batches of a test: as always, or one from each of equally likely layers',
  }),
  criterion: told(z.enum(CRITERIA.map(({ name }) => name)).default(fiRatio.name), {
    group,
    help: 'what is compared with lambda (fi-ratio is the paper), or gain: the strongest directions by gain per parameter',
  }),
  ...gainSettings,
  compat: told(z.enum(['none', 'published-code']).default('none'), {
    group,
    value: 'what',
    help: 'published-code: expand as the published code does, faults included',
  }),
};
type Selora = z.output<z.ZodObject<typeof settings>>;

/** 0, 1, 2, 4, 8, 12 …: few shapes among the modules of a network, and nothing to compute in those without a rank */
const ownRoom = (rank: number): number => (rank > 2 ? Math.ceil(rank / 4) * 4 : rank);
const criterionOf = (c: Pick<Selora, 'criterion'>): Criterion => CRITERIA.find(({ name }) => name === c.criterion)!;
/** What has to be measured for a run's criterion. */
export function measureOf(c: Pick<Selora, 'fisher' | 'criterion'>): Measure<Adapter, RankSums<Tensor>> {
  const { perSample, batch } = criterionOf(c) as Score;
  return (c.fisher === 'batch' && batch) || perSample;
}

/** What the published code does nothing like. */
const PLAIN = { fiBatches: 1, fiEma: 0, criterion: fiRatio.name } as const;
const score = z.number();

/** The tests of the paper and of the published code. */
const scored: Growth<Adapter, Selora, Trial, RankSums<Tensor>, RankSums<HostArray>, Memory> = {
  // a rank that no update follows would never be trained
  due: (c, step, steps) => step % c.testEvery === 0 && step < steps,
  count: (c, steps) => Math.floor(steps / c.testEvery),
  trial: (place, room) => ({ K: new Field([inputsOf(place), 1]), slot: new Field([1, room], 1) }),
  place: withCandidate,
  settle: withoutCandidate,
  measure: measureOf,
  install: (slot, trial, c) => installed(slot, trial, c.compat === 'published-code'),
  test: (passes, now, c) => (c.compat === 'published-code' ? publishedTest : paperTest)(passes, now, c),
  memory: z.object({
    fiA: score,
    fiB: score,
    fiNew: score,
    gain: score.optional(),
    tests: z.int().min(1),
  }) as z.ZodType<Memory>,
};
type Grows = Growth<Adapter, Selora, unknown, unknown, unknown, unknown>;
/** The tests of a run's criterion. */
function growthOf(c: Pick<Selora, 'criterion'>): Grows {
  const criterion = criterionOf(c);
  return ('growth' in criterion ? criterion.growth : scored) as Grows;
}
const growth: Grows = {
  before: (c) => growthOf(c).before?.(c) ?? false,
  byBatch: (c) => growthOf(c).byBatch?.(c) ?? false,
  due: (c, ...at) => growthOf(c).due(c, ...at),
  count: (c, steps) => growthOf(c).count(c, steps),
  trial: (place, room, c) => growthOf(c).trial(place, room, c),
  place: (p, x, c) => growthOf(c).place(p, x, c),
  settle: (g, x, c) => growthOf(c).settle(g, x, c),
  measure: (c) => growthOf(c).measure(c),
  install: (slot, x, c) => growthOf(c).install(slot, x, c),
  test: (passes, now, c) => growthOf(c).test(passes, now, c),
  memory: scored.memory,
};

/**
 * The method `selora`: y = x·W0ᵀ + b + s·(x·A)·B, ranks grown by tests (eq. 2 to 5 of the paper; `selora/README.md`).
 */
export const selora: MethodOf<typeof settings, Adapter, Trial, RankSums<Tensor>, RankSums<HostArray>, Memory> = {
  name: 'selora',
  doc: 'SeLoRA: W0 + s·A·B from rank 1; a module grows where a new rank would raise its Fisher information',
  source:
    'SeLoRA: Self-Expanding Low-Rank Adaptation of Latent Diffusion Models for Medical Image Synthesis, eq. 2 to 5',
  settings,
  ...lowRank,
  label: ({ criterion }) => (criterion === 'gain' ? 'SeLoRA, gain' : undefined),
  problem(c) {
    const wrong = (path: string, message: string) => ({ path, message });
    const criterion = criterionOf(c);
    if ('growth' in criterion)
      return c.method === 'selora'
        ? criterion.problem?.(c)
        : wrong('criterion', `${c.criterion} goes with --method selora, not ${c.method}`);
    const compares = criterion.batch === undefined;
    if (compares && c.fisher === 'batch')
      return wrong('criterion', `${c.criterion} needs the gradients of single samples, not --fisher batch`);
    if (compares && c.batch * c.fiBatches < 2)
      return wrong('criterion', `${c.criterion} needs two samples or more: raise --batch or --fi-batches`);
    if (c.compat !== 'published-code') return undefined;
    if (c.fisher !== 'batch') return wrong('fisher', '--compat published-code squares the batch gradient: batch');
    const odd = (['fiBatches', 'fiEma', 'criterion'] as const).find((key) => c[key] !== PLAIN[key]);
    if (odd) return wrong(odd, `is ${PLAIN[odd]} with --compat published-code`);
    return c.method === 'selora' ? undefined : wrong('method', 'is selora with --compat published-code');
  },
  // what the published code trains with: its module names, alpha 8 at rank 1, its square
  implied: (given) => ({
    ...(given.compat === 'published-code' ? { fisher: 'batch', targets: 'paper-code', scale: 8 } : {}),
    ...(given.criterion === 'gain' ? { rank: 0, targets: 'all', fiBatches: 4 } : {}),
  }),
  facts: (c) => ({ lambda: c.lambda, testEvery: c.testEvery, scale: c.scale, initA: c.gainA }),
  ranks(c, places, known) {
    const ranks = lowRank.ranks(c, places, known);
    if ('growth' in criterionOf(c)) checkBudget(c, ranks, places);
    const total = totalRankOf(ranks);
    if (c.budget !== null && c.budget < total)
      throw new RangeError(`--budget ${c.budget}: the adapters begin with a total rank of ${total}, expected more`);
    return ranks;
  },
  foreseen: (c, ranks, places) => ('growth' in criterionOf(c) ? evenly(c, ranks, places) : ranks),
  leastRank: (c) => ('growth' in criterionOf(c) ? 0 : 1),
  /**
   * One free rank for the candidate, alike in a network and by fours, so that programs are rarely rebuilt. A test that gives
   * several ranks at once tries none in free ranks, and is rare: each module has the room its own ranks need.
   */
  room: (c, most, own) => ('growth' in criterionOf(c) ? ownRoom(own) : Math.ceil((most + 1) / 4) * 4),
  growth: growth as typeof scored,
};
