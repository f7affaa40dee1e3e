/** AdaLoRA: a LoRA in the form of a singular value decomposition, whose least important triplets are masked while it trains. */
import { z } from 'zod';
import { type HostArray, less, mul, ones, sub, type Tensor, tensor, where } from '../../core/index.ts';
import { inLayer } from '../attach.ts';
import { mapModules, moduleName, networks, type PerModule } from '../networks.ts';
import { budgetProblem, budgetSettings } from './budget.ts';
import { inputsOf, lowRank, totalRankOf } from './low-rank.ts';
import { type Decided, Field, type MethodOf, type Ranks } from './method.ts';
import { rank, ranks, scale } from './settings.ts';
import {
  drawnTriplet,
  orthogonality,
  type Sensed,
  scoresOf,
  smoothed,
  type Triplet,
  tripletFields,
  unsensed,
} from './triplets.ts';
import { keptRanks } from './weights.ts';

const settings = { rank, ranks, scale, ...budgetSettings };
type Ada = z.output<z.ZodObject<typeof settings>>;
type P = Triplet &
  Sensed & {
    /** 1 for triplets that are left, by the last masking; 1 for those there are at all, 0 for padding */
    readonly left: Tensor;
    readonly own: Tensor;
  };
/** The triplets that are to be left after step k = 0, 1, …: b₀, then cubically down to b_T, b_T for the last steps. */
export function budgetAt(
  k: number,
  { first, last, warmup, final, steps }: { readonly [name in 'first' | 'last' | 'warmup' | 'final' | 'steps']: number },
): number {
  if (k <= warmup) return first;
  if (k > steps - final) return last;
  return Math.trunc((first - last) * (1 - (k - warmup) / (steps - final - warmup)) ** 3 + last);
}

/** Which triplets are left: of all modules together those above the (n − budget)-th smallest score. */
export function leftAt(
  scores: PerModule<ArrayLike<number>>,
  ranks: Ranks,
  budget: number,
): PerModule<readonly boolean[]> {
  const own = mapModules((r: number, path, n) => Array.from(scores[n][path]!).slice(0, r), ranks);
  const sorted = networks.flatMap((n) => Object.values(own[n]).flat()).sort((a, b) => a - b);
  const threshold = budget < sorted.length ? sorted[sorted.length - budget - 1]! : Number.NEGATIVE_INFINITY;
  return mapModules((of: readonly number[]) => of.map((s) => s > threshold), own);
}

/** A module's row in the log: its scores before and after masking, and what is left of it. */
type Row = Decided & { readonly fiOriginal: number; readonly fiExpanded: number; readonly ratio: number };
const rowOf = (module: string, scores: readonly number[], left: readonly boolean[]): Row => {
  const total = (of: readonly number[]) => of.reduce((a, b) => a + b, 0);
  const [all, kept] = [total(scores), total(scores.filter((_, i) => left[i]))];
  const ratio = all === 0 ? 1 : kept / all;
  return { module, fiOriginal: all, fiExpanded: kept, ratio, expanded: false, rankAfter: left.filter(Boolean).length };
};

/**
 * The method `adalora`: y = x·W0ᵀ + b + s·((x·A) ⊙ E)·B, E = 0 and A, B ~ N(0, 0.02²) at the start. After every update of
 * step k = 0, 1, …, with p the new values and g the gradient, I ← β₁I + (1−β₁)|p·g|, U ← β₂U + (1−β₂)| |p·g| − I |; every
 * `budgetEvery` steps between warm-up and the final phase the entries of E outside the budget are set to 0. They have
 * gradients and moments as before and grow again until the next masking; in the final phase the last mask stays. The
 * penalty is w times the mean over all A and B of ‖AᵀA − 1‖_F and ‖BBᵀ − 1‖_F. PEFT's scale is s = lora_alpha/(r + 1e-5).
 * Source: Zhang et al., AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning (2023), eq. 3 to 12;
 * PEFT `tuners/adalora` where the paper is silent.
 */
export const adalora: MethodOf<typeof settings, P, { readonly left: Tensor }, Tensor, HostArray> = {
  name: 'adalora',
  doc: 'AdaLoRA: singular triplets, the least important of them masked under a falling budget',
  source: 'Zhang et al., AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning (2023), eq. 3 to 12',
  settings,
  problem(c) {
    const target = c.targetRank;
    if (c.method !== 'adalora') return undefined;
    if (target !== null && target > c.rank)
      return { path: 'targetRank', message: `is ${target}, expected at most --rank ${c.rank}` };
    return budgetProblem(c);
  },
  leastRank: () => 1,
  ranks: lowRank.ranks,
  label: (c) => `AdaLoRA r=${c.rank}→${targetOf(c)}`,
  facts: (c) => ({ lambda: null, testEvery: c.budgetEvery, scale: c.scale, initA: 0 }),
  room: (_c, _most, own) => Math.max(1, own),
  fields(place, rank) {
    const kept = new Field([rank], 0, false);
    const sensed = () => tripletFields(place, rank, false);
    return { ...tripletFields(place, rank), ipt: sensed(), unc: sensed(), left: kept, own: kept };
  },
  init: (places, ranks, key) =>
    Object.fromEntries(
      [...places].map(([path, place]) => {
        const r = ranks[path]!;
        return [path, { ...drawnTriplet(key, path, place, r), ...unsensed(place, r), left: ones([r]), own: ones([r]) }];
      }),
    ),
  attach: (module, { A, E, B }, c) => ({ ...module, adapter: inLayer(module, { A: mul(A, E), B }, c.scale) }),
  penalty: (modules, c) => orthogonality(modules, c.orthogonality),
  after({ p, ...slot }, g, { step, steps }, c) {
    const k = sub(step, 1);
    const end = sub(steps, c.budgetFinal);
    const over = less(end, k);
    const smooth = smoothed(p, g, less(k, end), c);
    return { ...slot, p: { ...p, E: where(over, mul(p.E, p.left), p.E), ...smooth } };
  },
  growth: {
    due: (c, step, steps) => {
      const [k, end] = [step - 1, steps - c.budgetFinal];
      return k === end || (k > c.budgetWarmup && k < end && k % c.budgetEvery === 0);
    },
    count(c, steps) {
      const last = steps - c.budgetFinal - 1;
      const maskings = Math.floor(last / c.budgetEvery) - Math.floor(c.budgetWarmup / c.budgetEvery);
      return Math.max(0, maskings) + (c.budgetFinal > 0 ? 1 : 0);
    },
    trial: (_place, room) => ({ left: new Field([room], 0) }),
    place: (p) => p,
    settle: (g) => g,
    measure: () => ({ scores: (_g, _kept, p) => scoresOf(p) }),
    look: scoresOf,
    install: (slot, { left }) => ({ ...slot, p: { ...slot.p, E: mul(slot.p.E, left), left } }),
    test(passes, now, c) {
      passes.update();
      const look = passes.look();
      return async () => {
        const scores = await look();
        const modules = networks.reduce((n, net) => n + Object.keys(now.ranks[net]).length, 0);
        const budget = budgetAt(now.step - 1, {
          first: totalRankOf(now.ranks),
          last: targetOf(c) * modules,
          warmup: c.budgetWarmup,
          final: c.budgetFinal,
          steps: now.steps,
        });
        const left = leftAt(scores, now.ranks, budget);
        return {
          decisions: networks.flatMap((n) =>
            Object.entries(left[n]).map(([path, of]) =>
              rowOf(moduleName(n, path), Array.from(scores[n][path]!).slice(0, of.length), of),
            ),
          ),
          // masked triplets stay in the programs and may come back
          ranks: now.ranks,
          memories: {},
          install: (room) =>
            mapModules((of: readonly boolean[], path, n) => {
              const row = new Float32Array(room[n][path]!);
              row.set(of.map(Number));
              return { left: tensor(row) };
            }, left),
        };
      };
    },
    memory: z.never(),
  },
  toFile: (module, place, c) => lowRank.toFile(keptRanks(module, 'E', inputsOf(place), place[0]), place, c),
  fromFile: (module, c, fresh) => ({ ...fresh, ...lowRank.fromFile(module, c, fresh), E: ones([module.rank]) }),
};

const targetOf = (c: Pick<Ada, 'targetRank' | 'rank'>): number =>
  c.targetRank ?? Math.max(1, Math.round((2 * c.rank) / 3));
