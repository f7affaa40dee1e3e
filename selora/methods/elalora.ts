/** ElaLoRA: singular triplets that move, the least important taken from their modules and given to those whose least matters most. */
import { z } from 'zod';
import {
  add,
  div,
  type HostArray,
  less,
  mul,
  ones,
  sqrt,
  square,
  sub,
  sum,
  swap,
  type Tensor,
  tensor,
} from '../../core/index.ts';
import { foldKey, normalNumbers } from '../adapter.ts';
import { inLayer } from '../attach.ts';
import { mapModules, moduleName, modulesOf, type PerModule, perModule } from '../networks.ts';
import { budgetProblem, budgetSettings, countDue, moveRanks, movesAfter, movesOrDefault } from './budget.ts';
import { inputsOf, lowRank, mostRank } from './low-rank.ts';
import { type Decided, Field, type Fields, type MethodOf, type Ranks } from './method.ts';
import { inOrder, orderOf, pairInOrder, product } from './reorder.ts';
import { rank, ranks, scale, told } from './settings.ts';
import {
  drawnTriplet,
  orthogonality as penalty,
  type Sensed,
  scoresOf,
  smoothed,
  type Triplet,
  tripletFields,
  unsensed,
} from './triplets.ts';
import { keptRanks } from './weights.ts';

const { budgetWarmup, budgetFinal, budgetEvery, sensitivityDecay, uncertaintyDecay, orthogonality } = budgetSettings;
const settings = {
  rank,
  ranks,
  scale,
  budgetWarmup,
  budgetFinal,
  budgetEvery,
  sensitivityDecay,
  uncertaintyDecay,
  orthogonality,
  movePool: told(z.int().min(1).max(64).default(2), {
    group: 'Growth of ranks',
    value: 'n',
    help: 'elalora: least important ranks of each module that are compared',
  }),
  moveRanks,
};
type P = Triplet &
  Sensed & {
    /** 1 for ranks there are, 0 for padding */
    readonly own: Tensor;
  };
/** What a change writes: the old ranks in their new order, and new ones. */
type Move = {
  /** as `orderOf` makes it */
  readonly order: Tensor;
  /** draws [d_in, k] and [k, d_out], and the ranks they become, a one-hot row each [k, room] */
  readonly a: Tensor;
  readonly b: Tensor;
  readonly slot: Tensor;
  readonly own: Tensor;
};

/** How many ranks move after step k = 0, 1, …: b₀·(1 − progress³), rounded. */
export function movesAt(
  k: number,
  { first, warmup, final, steps }: { readonly [name in 'first' | 'warmup' | 'final' | 'steps']: number },
): number {
  const progress = Math.min(1, Math.max(0, (k - warmup) / (steps - final - warmup)));
  return Math.round(first * (1 - progress ** 3));
}

/** What is taken and given: the ranks each module loses, and how many it gets. */
export type Moves = { readonly lost: readonly (readonly number[])[]; readonly given: readonly number[] };
/**
 * Each module shows its `pool` least important ranks, at least one is left to it. Of all shown, the `many` of the least
 * scores are lost; for each of the `many` of the largest scores its module gets one, while it has room. As many are lost as
 * are given; the earlier of equal ones first.
 */
export function movesOf(
  scores: readonly (readonly number[])[],
  many: number,
  pool: number,
  most: readonly number[],
): Moves {
  const shown = scores.flatMap((of, i) =>
    of
      .map((score, r) => ({ score, i, r }))
      .sort((a, b) => a.score - b.score || a.r - b.r)
      .slice(0, Math.min(pool, of.length - 1)),
  );
  const order = [...shown.keys()].sort((a, b) => shown[a]!.score - shown[b]!.score || a - b);
  const few = Math.min(many, Math.floor(shown.length / 2));
  const given = scores.map(() => 0);
  let count = 0;
  for (const at of order.slice(order.length - Math.floor(order.length / 2)).reverse()) {
    const { i } = shown[at]!;
    if (count === few) break;
    if (scores[i]!.length + given[i]! >= most[i]!) continue;
    given[i]!++;
    count++;
  }
  const lost: number[][] = scores.map(() => []);
  for (const at of order.slice(0, count)) lost[shown[at]!.i]!.push(shown[at]!.r);
  return { lost, given };
}

/** A module's row in the log: what it lost and was given. */
type Row = Decided & { readonly lost: number; readonly added: number };

/** ranks in another order: columns of A, entries of E, rows of B */
const reordered = (t: Triplet, order: Tensor): Triplet => {
  const { A, B } = pairInOrder(t, order);
  return { A, E: inOrder(t.E, order), B };
};
/** x[n, 1] − X·(Xᵀx), divided by its length + 1e-6 */
function apart(x: Tensor, X: Tensor): Tensor {
  const rest = sub(x, product(X, product(swap(X), x)));
  return div(rest, add(sqrt(sum(square(rest))), 1e-6));
}
/** the column j of x[n, k] */
const columnOf = (x: Tensor, j: number): Tensor => {
  const pick = new Float32Array(x.shape[1]!);
  pick[j] = 1;
  return sum(mul(x, tensor(pick, [1, x.shape[1]!], x.dtype)), 1, true);
};

/**
 * The method `elalora`: AdaLoRA's triplets, W = W0 + s·((A ⊙ E)·B)ᵀ, their scores and penalty; the sum of ranks never changes.
 * Every `budgetEvery` steps between warm-up and the final phase each module shows its `movePool` least important ranks: b of
 * all that are shown, the least important, are removed, and for each of the b most important its module gets a new one,
 * b = b₀·(1 − progress³). A new rank has E = 0 (the authors' 1e-13 is below what f32 can add), its column of A is a normal
 * draw x − A·(Aᵀx) of length 1, its row of B likewise. What stays keeps its values, moments and ages; the paper is silent on them.
 * Source: Chang et al., ElaLoRA: Elastic & Learnable Low-Rank Adaptation for Efficient Model Fine-Tuning (2025), section 3, and
 * the authors' `loralib`, with their scheduler.
 */
export const elalora: MethodOf<typeof settings, P, Move, Tensor, HostArray> = {
  name: 'elalora',
  doc: 'ElaLoRA: singular triplets that move from modules where they matter least to those where they matter most',
  source: 'Chang et al., ElaLoRA: Elastic & Learnable Low-Rank Adaptation for Efficient Model Fine-Tuning (2025)',
  settings,
  problem: (c) => (c.method === 'elalora' ? budgetProblem(c) : undefined),
  leastRank: () => 1,
  ranks: lowRank.ranks,
  label: (c) => `ElaLoRA, mean ${c.rank}`,
  facts: (c) => ({ lambda: null, testEvery: c.budgetEvery, scale: c.scale, initA: 0 }),
  room: (_c, most) => Math.ceil((Math.max(1, most) + 1) / 4) * 4,
  fields(place, rank) {
    const sensed = () => tripletFields(place, rank, false);
    return { ...tripletFields(place, rank), ipt: sensed(), unc: sensed(), own: new Field([rank], 0, false) };
  },
  init: (places, ranks, key) =>
    Object.fromEntries(
      [...places].map(([path, place]) => {
        const r = ranks[path]!;
        return [path, { ...drawnTriplet(key, path, place, r), ...unsensed(place, r), own: ones([r]) }];
      }),
    ),
  attach: (module, { A, E, B }, c) => ({ ...module, adapter: inLayer(module, { A: mul(A, E), B }, c.scale) }),
  penalty: (modules, c) => penalty(modules, c.orthogonality),
  after({ p, ...slot }, g, { step, steps }, c) {
    const learns = less(sub(step, 1), sub(steps, c.budgetFinal));
    return { ...slot, p: { ...p, ...smoothed(p, g, learns, c) } };
  },
  growth: {
    due: movesAfter,
    count: (c, steps) => countDue((step) => movesAfter(c, step, steps), steps),
    trial: (place, room, c): Fields => ({
      order: new Field([room, room]),
      a: new Field([inputsOf(place), c.movePool]),
      b: new Field([c.movePool, place[0]]),
      slot: new Field([c.movePool, room]),
      own: new Field([room]),
    }),
    place: (p) => p,
    settle: (g) => g,
    measure: () => ({ scores: (_g, _kept, p) => scoresOf(p) }),
    look: scoresOf,
    install({ p, m, v, age }, { order, a, b, slot, own }) {
      const moved = reordered(p, order);
      let [A, B] = [moved.A, moved.B];
      for (let j = 0; j < slot.shape[0]!; j++) {
        const at = columnOf(swap(slot), j);
        A = add(A, product(apart(columnOf(a, j), A), swap(at)));
        B = add(B, product(at, swap(apart(columnOf(swap(b), j), swap(B)))));
      }
      const kept = { ipt: reordered(p.ipt, order), unc: reordered(p.unc, order) };
      // what is only kept has no moments to move
      const moments = (of: P): P => ({ ...of, ...reordered(of, order) });
      return {
        p: { ...moved, A, B, ...kept, own },
        m: moments(m),
        v: moments(v),
        age: inOrder(age, order),
      };
    },
    test(passes, now, c) {
      passes.update();
      const look = passes.look();
      return async () => {
        const of = await look();
        const all = modulesOf(now.ranks);
        const scores = all.map(({ n, path }) => Array.from(of[n][path]!).slice(0, now.ranks[n][path]));
        const most = all.map(({ n, path }) => mostRank(now.places[n].get(path)!));
        const first = movesOrDefault(c, all.length);
        const when = { first, warmup: c.budgetWarmup, final: c.budgetFinal, steps: now.steps };
        const { lost, given } = movesOf(scores, movesAt(now.step - 1, when), c.movePool, most);
        const after = all.map(({ n, path }, i) => now.ranks[n][path]! - lost[i]!.length + given[i]!);
        const [ranks, at] = [perModule(after, now.ranks), perModule([...all.keys()], now.ranks)];
        const decisions = all.map(({ n, path }, i): Row => {
          const rankAfter = ranks[n][path]!;
          const expanded = rankAfter !== now.ranks[n][path];
          return { module: moduleName(n, path), expanded, rankAfter, lost: lost[i]!.length, added: given[i]! };
        });
        if (given.every((count) => count === 0)) return { decisions, ranks, memories: {} };
        const install = (room: Ranks): PerModule<Move> =>
          mapModules((before: number, path, n) => {
            const [i, r, place] = [at[n][path]!, room[n][path]!, now.places[n].get(path)!];
            const [dIn, dOut, k] = [inputsOf(place), place[0], c.movePool];
            const stay = before - lost[i]!.length;
            const slot = new Float32Array(k * r);
            for (let j = 0; j < given[i]!; j++) slot[j * r + stay + j] = 1;
            const drawn = (side: string, size: number) =>
              normalNumbers(foldKey(now.key, 'elalora', n, path, side, now.step), size);
            return {
              order: orderOf(before, lost[i]!, r),
              a: tensor(drawn('A', dIn * k), [dIn, k]),
              b: tensor(drawn('B', k * dOut), [k, dOut]),
              slot: tensor(slot, [k, r]),
              own: tensor(Float32Array.from({ length: r }, (_, j) => (j < ranks[n][path]! ? 1 : 0))),
            };
          }, now.ranks);
        return { decisions, ranks, memories: {}, install };
      };
    },
    memory: z.never(),
  },
  toFile: (module, place, c) => lowRank.toFile(keptRanks(module, 'E', inputsOf(place), place[0]), place, c),
  fromFile: (module, c, fresh) => ({ ...fresh, ...lowRank.fromFile(module, c, fresh), E: ones([module.rank]) }),
};
