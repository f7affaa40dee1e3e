/** AdaLoRA: a LoRA in the form of a singular value decomposition, whose least important triplets are masked while it trains. */
import { z } from 'zod';
import {
  abs,
  add,
  dot,
  eye,
  type HostArray,
  less,
  mean,
  mul,
  ones,
  reshape,
  sqrt,
  square,
  sub,
  sum,
  swap,
  type Tensor,
  tensor,
  where,
  zeros,
} from '../../core/index.ts';
import { foldKey, normalNumbers } from '../adapter.ts';
import { inLayer } from '../attach.ts';
import { mapModules, moduleName, networks, type PerModule } from '../networks.ts';
import { inputsOf, lowRank, totalRankOf } from './low-rank.ts';
import { type Decided, Field, type MethodOf, type Ranks } from './method.ts';
import { rank, ranks, scale, told } from './settings.ts';
import { keptRanks } from './weights.ts';

const group = 'Growth of ranks';
const count = z.int().min(0).max(1e9);
const share = z.number().min(0).max(0.9999).default(0.85);
/** Settings of methods that score triplets or modules by their sensitivity and change ranks under a budget. */
export const budgetSettings = {
  targetRank: told(z.int().min(1).max(1024).nullable().default(null), {
    group,
    value: 'r',
    help: 'mean rank at the end (default: adalora two thirds of --rank, increlora four times --rank)',
  }),
  budgetWarmup: told(count.default(100), {
    group,
    value: 'n',
    help: 'adalora, increlora, elalora, alora: steps before ranks change',
  }),
  budgetFinal: told(count.default(300), {
    group,
    value: 'n',
    help: 'adalora, increlora, elalora, alora: last steps, with the ranks there are then',
  }),
  budgetEvery: told(z.int().min(1).max(1e9).default(10), {
    group,
    value: 'n',
    help: 'adalora, increlora, elalora, alora: steps between changes of ranks',
  }),
  sensitivityDecay: told(share, {
    group,
    value: 'beta',
    help: 'adalora, increlora, elalora: smooths the sensitivity |p·∂p|',
  }),
  uncertaintyDecay: told(share, { group, value: 'beta', help: 'adalora, increlora, elalora: smooths its uncertainty' }),
  orthogonality: told(z.number().min(0).max(1e3).default(0.5), {
    group,
    value: 'w',
    help: 'adalora, increlora, elalora: weight of ‖AᵀA − 1‖ and ‖BBᵀ − 1‖ in the loss',
  }),
};
const settings = { rank, ranks, scale, ...budgetSettings };
/** What is wrong where warm-up and final phase leave no step between them. */
export function budgetProblem(c: Pick<Ada, 'budgetWarmup' | 'budgetFinal'>) {
  const { steps, epochs } = c as { readonly steps?: number; readonly epochs?: number | null };
  if (steps === undefined || (epochs ?? null) !== null || c.budgetWarmup + c.budgetFinal < steps) return undefined;
  return {
    path: 'budgetFinal',
    message: `--budget-warmup ${c.budgetWarmup} and --budget-final ${c.budgetFinal} leave none of ${steps} steps between them`,
  };
}
type Ada = z.output<z.ZodObject<typeof settings>>;
export type Triplet = { readonly A: Tensor; readonly E: Tensor; readonly B: Tensor };
type P = Triplet & {
  /** smoothed sensitivity and its smoothed deviation, entry by entry */
  readonly ipt: Triplet;
  readonly unc: Triplet;
  /** 1 for triplets that are left, by the last masking; 1 for those there are at all, 0 for padding */
  readonly left: Tensor;
  readonly own: Tensor;
};
const KEYS = ['A', 'E', 'B'] as const;
const each = (f: (key: (typeof KEYS)[number]) => Tensor): Triplet => ({ A: f('A'), E: f('E'), B: f('B') });

/** The triplets that are to be left after step k = 0, 1, …: b₀, then cubically down to b_T, b_T for the last steps. */
export function budgetAt(
  k: number,
  { first, last, warmup, final, steps }: { readonly [name in 'first' | 'last' | 'warmup' | 'final' | 'steps']: number },
): number {
  if (k <= warmup) return first;
  if (k > steps - final) return last;
  return Math.trunc((first - last) * (1 - (k - warmup) / (steps - final - warmup)) ** 3 + last);
}

/** A score of every triplet: s(E) + mean s(A) + mean s(B), s = smoothed sensitivity · uncertainty. */
export function scoresOf({ ipt, unc }: Pick<P, 'ipt' | 'unc'>): Tensor {
  const s = each((key) => mul(ipt[key], unc[key]));
  return add(s.E, add(mean(s.A, 0), mean(s.B, 1)));
}

/** The smoothed sensitivities after an update with gradient g, where it `learns`. */
export function smoothed(
  p: Triplet & Pick<P, 'ipt' | 'unc'>,
  g: Triplet,
  learns: Tensor,
  c: { readonly sensitivityDecay: number; readonly uncertaintyDecay: number },
): Pick<P, 'ipt' | 'unc'> {
  const sensitivity = each((key) => abs(mul(p[key], g[key])));
  const moved = (before: Triplet, now: Triplet, beta: number) =>
    each((key) => where(learns, add(mul(before[key], beta), mul(now[key], 1 - beta)), before[key]));
  const ipt = moved(p.ipt, sensitivity, c.sensitivityDecay);
  const unc = moved(
    p.unc,
    each((key) => abs(sub(sensitivity[key], ipt[key]))),
    c.uncertaintyDecay,
  );
  return { ipt, unc };
}

/** ‖XᵀX − 1‖_F of columns X[n, r], 1 only for the ranks there are */
const defect = (X: Tensor, own: Tensor): Tensor => {
  const r = X.shape[1]!;
  const gram = reshape(dot(swap(reshape(X, [1, ...X.shape])), reshape(X, [1, ...X.shape])), [r, r]);
  return sqrt(sum(square(sub(gram, mul(eye(r, { dtype: X.dtype }), own)))));
};

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
  room: (_c, most) => Math.max(1, most),
  fields(place, rank) {
    const triplet = (trained: boolean) => ({
      A: new Field([inputsOf(place), rank], 1, trained),
      E: new Field([rank], 0, trained),
      B: new Field([rank, place[0]], 0, trained),
    });
    const kept = new Field([rank], 0, false);
    return { ...triplet(true), ipt: triplet(false), unc: triplet(false), left: kept, own: kept };
  },
  init: (places, ranks, key) =>
    Object.fromEntries(
      [...places].map(([path, place]) => {
        const [dIn, dOut, r] = [inputsOf(place), place[0], ranks[path]!];
        const draw = (what: string, shape: readonly number[]) => {
          return tensor(normalNumbers(foldKey(key, path, what), shape[0]! * shape[1]!, 0.02), shape);
        };
        const none = () => ({ A: zeros([dIn, r]), E: zeros([r]), B: zeros([r, dOut]) });
        const p = { A: draw('A', [dIn, r]), E: zeros([r]), B: draw('B', [r, dOut]) };
        return [path, { ...p, ipt: none(), unc: none(), left: ones([r]), own: ones([r]) }];
      }),
    ),
  attach: (module, { A, E, B }, c) => ({ ...module, adapter: inLayer(module, { A: mul(A, E), B }, c.scale) }),
  penalty(modules, c) {
    const all = modules.flatMap(({ A, B, own }) => [defect(A, own), defect(swap(B), own)]);
    return mul(
      all.reduce((x, y) => add(x, y)),
      c.orthogonality / all.length,
    );
  },
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
            mapModules((of: readonly boolean[], _path, n) => {
              const row = new Float32Array(room[n]);
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
