/** ALoRA: a LoRA whose ranks are ablated, the least useful taken away and given to modules that lost none. */
import { z } from 'zod';
import { add, type HostArray, mul, type Tensor, tensor } from '../../core/index.ts';
import { type Adapter, foldKey, kaimingUniform } from '../adapter.ts';
import { inLayer } from '../attach.ts';
import { type ModuleAt, mapModules, moduleName, modulesOf, type PerModule, perModule } from '../networks.ts';
import { budgetProblem, budgetSettings, countDue, moveRanks, movesAfter, movesOrDefault } from './budget.ts';
import { lora } from './lora.ts';
import { inputsOf, lowRank, mostRank } from './low-rank.ts';
import { type Decided, Field, type Growth, type MethodOf, type Now, type Passes, type Ranks } from './method.ts';
import { orderOf, reordered } from './reorder.ts';
import { selora } from './selora.ts';
import { told } from './settings.ts';

const { budgetWarmup, budgetFinal, budgetEvery } = budgetSettings;
const settings = {
  ...lora.settings,
  budgetWarmup,
  budgetFinal,
  budgetEvery,
  moveRanks,
  fiBatches: selora.settings.fiBatches,
  ablate: told(z.enum(['first-order', 'each']).default('first-order'), {
    group: 'Growth of ranks',
    value: 'how',
    help: 'alora: what a rank is worth by two backward passes for all, or by two forward passes for each',
  }),
};
type Alora = z.output<z.ZodObject<typeof settings>>;
/** a factor for every rank */
type Gates = { readonly gate: Tensor };
type P = Adapter & { readonly gate?: Tensor };
/** the old ranks in their new order, and the new ones' columns of A in their places */
type Move = { readonly order: Tensor; readonly A: Tensor };
type Scores = readonly (readonly number[])[];

/** What is taken and given. */
export type Allocation = { readonly lost: Scores; readonly given: readonly number[] };
/**
 * The `many` ranks of the least scores are lost, the earlier of equal ones first; as many are given, one each in turn, to the
 * modules that lost none (to all, where each lost some), those of the largest mean score first, while they have room.
 */
export function allocationOf(scores: Scores, many: number, most: readonly number[]): Allocation {
  const all = scores.flatMap((of, i) => of.map((score, r) => ({ score, i, r })));
  const few = Math.min(many, all.length);
  const least = [...all.keys()].sort((a, b) => all[a]!.score - all[b]!.score || a - b);
  const worth = scores.map((of) =>
    of.length === 0 ? Number.NEGATIVE_INFINITY : of.reduce((a, b) => a + b, 0) / of.length,
  );
  // fewer where those that keep theirs have no room for as many
  for (let count = few; count > 0; count--) {
    const lost: number[][] = scores.map(() => []);
    for (const at of least.slice(0, count)) lost[all[at]!.i]!.push(all[at]!.r);
    const whole = [...scores.keys()].filter((i) => lost[i]!.length === 0);
    const takers = (whole.length > 0 ? whole : [...scores.keys()]).sort((a, b) => worth[b]! - worth[a]! || a - b);
    const given = scores.map(() => 0);
    const room = (i: number) => most[i]! - (scores[i]!.length - lost[i]!.length) - given[i]!;
    let left = count;
    while (left > 0 && takers.some((i) => room(i) > 0))
      for (const i of takers)
        if (left > 0 && room(i) > 0) {
          given[i]!++;
          left--;
        }
    if (left === 0) return { lost, given };
  }
  return { lost: scores.map(() => []), given: scores.map(() => 0) };
}

/** Gates of all modules: of the ranks there are by `of`, 0 for free ones. */
const gatesBy = (
  now: Pick<Now<never>, 'ranks' | 'room'>,
  of: (m: ModuleAt, rank: number) => number,
): PerModule<Gates> =>
  mapModules((r: number, path, n) => {
    const gate = Float32Array.from({ length: now.room[n][path]! }, (_, i) => (i < r ? of({ n, path }, i) : 0));
    return { gate: tensor(gate) };
  }, now.ranks);

/** What each rank is worth, by module in the order of `modules`, but for a constant. */
async function worthOf(
  passes: Pick<Passes<Gates, HostArray>, 'measure' | 'loss' | 'batches'>,
  now: Pick<Now<never>, 'ranks' | 'room'>,
  modules: readonly ModuleAt[],
  how: Alora['ablate'],
): Promise<Scores> {
  const range = [0, passes.batches] as const;
  const ranksOf = ({ n, path }: ModuleAt) => Array.from({ length: now.ranks[n][path]! }, (_, r) => r);
  if (how === 'first-order') {
    const [all, none] = [
      passes.measure(
        gatesBy(now, () => 1),
        range,
      ),
      passes.measure(
        gatesBy(now, () => 0),
        range,
      ),
    ];
    const [whole, alone] = [await all(), await none()];
    return modules.map((m) => ranksOf(m).map((r) => -whole[m.n][m.path]![r]! - alone[m.n][m.path]![r]!));
  }
  const out: number[][] = [];
  for (const m of modules) {
    const own: number[] = [];
    for (const r of ranksOf(m)) {
      const is = (other: ModuleAt, rank: number) => other.n === m.n && other.path === m.path && rank === r;
      const without = await passes.loss(
        gatesBy(now, (o, i) => (is(o, i) ? 0 : 1)),
        range,
      );
      const alone = await passes.loss(
        gatesBy(now, (o, i) => (is(o, i) ? 1 : 0)),
        range,
      );
      own.push(without - alone);
    }
    out.push(own);
  }
  return out;
}

/** A module's row in the log: the mean worth of its ranks, what it lost and was given. */
type Row = Decided & { readonly gain: number; readonly lost: number; readonly added: number };

const growth: Growth<P, Alora, Gates, Tensor, HostArray, never, Row, Move> = {
  before: () => true,
  due: movesAfter,
  count: (c, steps) => countDue((step) => movesAfter(c, step, steps), steps),
  trial: (_place, room) => ({ gate: new Field([room]) }),
  place: (p, { gate }) => ({ ...p, gate }),
  // no update is ever made beside gates
  settle: (g) => g,
  measure: () => ({ scores: ({ gate }) => gate! }),
  install(slot, { order, A }) {
    const kept = reordered(slot, order);
    return { ...kept, p: { ...kept.p, A: add(kept.p.A, A) } };
  },
  test(passes, now, c) {
    const modules = modulesOf(now.ranks);
    return async () => {
      const scores = await worthOf(passes, now, modules, c.ablate);
      const most = modules.map(({ n, path }) => mostRank(now.places[n].get(path)!));
      const { lost, given } = allocationOf(scores, movesOrDefault(c, modules.length), most);
      const after = modules.map(({ n, path }, i) => now.ranks[n][path]! - lost[i]!.length + given[i]!);
      const [ranks, at] = [perModule(after, now.ranks), perModule([...modules.keys()], now.ranks)];
      const decisions = modules.map(({ n, path }, i): Row => {
        const rankAfter = ranks[n][path]!;
        const gain = scores[i]!.reduce((a, b) => a + b, 0) / Math.max(1, scores[i]!.length);
        const expanded = rankAfter !== now.ranks[n][path];
        return { module: moduleName(n, path), gain, expanded, rankAfter, lost: lost[i]!.length, added: given[i]! };
      });
      if (given.every((count) => count === 0)) return { decisions, ranks, memories: {} };
      const install = (room: Ranks): PerModule<Move> =>
        mapModules((before: number, path, n) => {
          const [i, r, dIn] = [at[n][path]!, room[n][path]!, inputsOf(now.places[n].get(path)!)];
          const [first, count] = [before - lost[i]!.length, given[i]!];
          const key = foldKey(now.key, 'alora', n, path, now.step);
          const drawn = kaimingUniform(key, dIn, dIn * count, { a: c.gainA });
          const A = new Float32Array(dIn * r);
          for (let k = 0; k < dIn; k++) for (let j = 0; j < count; j++) A[k * r + first + j] = drawn[k * count + j]!;
          return { order: orderOf(before, lost[i]!, r), A: tensor(A, [dIn, r]) };
        }, now.ranks);
      return { decisions, ranks, memories: {}, install };
    };
  },
  memory: z.never(),
};

/**
 * The method `alora`: LoRA whose sum of ranks never changes. Every `budgetEvery` steps between warm-up and the final phase each
 * rank r is worth S(M) − S(M∖r) + S(M_r): S is minus the loss over the test's batches, M the model with all ranks, M∖r without
 * this one, M_r with this one alone. The n ranks that are worth least are removed, and modules that lost none get n new ones, A at
 * random, B zero. `--ablate each` runs the 2·Σr losses, as the paper does; `first-order` takes −∂L/∂gate with all gates at 1 and at 0,
 * which is the same to first order but for a constant. The paper leaves open who gets one rank more where n does not divide
 * among them: here those of the largest mean worth. It ablates on a batch of validation data, here on those of the test
 * (--fi-batches). What stays keeps its moments.
 * Source: Liu et al., ALoRA: Allocating Low-Rank Adaptation for Fine-tuning Large Language Models (2024), AB-LoRA.
 */
export const alora: MethodOf<typeof settings, P, Gates, Tensor, HostArray> = {
  ...lora,
  name: 'alora',
  doc: 'ALoRA: LoRA whose ranks are ablated, and move from where they are worth least to modules that lost none',
  source: 'Liu et al., ALoRA: Allocating Low-Rank Adaptation for Fine-tuning Large Language Models (2024)',
  settings,
  problem(c) {
    if (c.method !== 'alora') return undefined;
    return c.rank < 1 ? { path: 'rank', message: `is ${c.rank}, expected at least 1` } : budgetProblem(c);
  },
  leastRank: () => 0,
  label: (c) => `ALoRA, mean ${c.rank}`,
  facts: (c) => ({ lambda: null, testEvery: c.budgetEvery, scale: c.scale, initA: c.gainA }),
  room: (_c, most) => Math.ceil((Math.max(1, most) + 1) / 4) * 4,
  attach: (module, { A, B, gate }, c) => ({
    ...module,
    adapter: inLayer(module, gate ? { A: mul(A, gate), B } : { A, B }, c.scale),
  }),
  growth: growth as unknown as Growth<P, Alora, Gates, Tensor, HostArray, unknown>,
  fromFile: (module, c, fresh) => lowRank.fromFile(module, c, fresh),
};
