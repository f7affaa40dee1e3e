/** IncreLoRA: a LoRA of singular triplets that grows where a module's change matters most, each next rank trained in advance. */
import { z } from 'zod';
import {
  abs,
  add,
  asFloat,
  customVjp,
  div,
  equal,
  type HostArray,
  less,
  mul,
  ones,
  reshape,
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
import { deltaWeight } from '../merge.ts';
import { mapModules, moduleName, modulesOf, type PerModule, perModule } from '../networks.ts';
import { budgetProblem, budgetSettings, countDue } from './budget.ts';
import { inputsOf, lowRank, mostRank } from './low-rank.ts';
import { type Decided, Field, type MethodOf, type Now, type Ranks } from './method.ts';
import { rank, ranks, scale, told } from './settings.ts';
import { drawnTriplet, offIdentity, rootOf, type Triplet, tripletFields } from './triplets.ts';
import { keptRanks, matrixOf, withMatrix } from './weights.ts';

const group = 'Growth of ranks';
const settings = {
  rank,
  ranks,
  scale,
  ...budgetSettings,
  growRanks: told(z.int().min(1).max(64).default(1), {
    group,
    value: 'r',
    help: 'increlora: ranks a module gets at a time, and has in reserve',
  }),
  growModules: told(z.int().min(1).max(100_000).nullable().default(null), {
    group,
    value: 'n',
    help: 'increlora: modules that grow at a time (default: as many as reach --target-rank in time)',
  }),
};
type Incre = z.output<z.ZodObject<typeof settings>>;
type P = Triplet & {
  /** 1 for ranks whose E is trained */
  readonly granted: Tensor;
  /** E of ranks in reserve, 0 for all others */
  readonly spare: Tensor;
  /** which ranks were added together, counted from 1; 0: free */
  readonly piece: Tensor;
  /** the module's age when E of a rank began to be trained */
  readonly since: Tensor;
  /** its derivative is the score of a step */
  readonly score: Tensor;
  /** the smoothed score and its smoothed deviation */
  readonly ipt: Tensor;
  readonly unc: Tensor;
};
/** What a test writes into a module: new columns and rows in their places, the other fields as they are from now on. */
type Grant = Pick<P, 'A' | 'B' | 'granted' | 'spare' | 'piece'>;
type Seen<T> = { readonly score: T; readonly piece: T };

/** E of a rank in reserve: too small to be felt, and enough for A and B to have gradients */
const RESERVE = 1e-5;
/** E as the layer has it */
const valuesOf = ({ E, granted, spare }: P): Tensor => add(mul(E, granted), spare);

/** D[d_out, d_in] as it is; the derivative by z is Σ |D ⊙ ∂L/∂D|/√(d_out·d_in). */
const scored = customVjp(
  (D: Tensor, _z: Tensor) => [D, D] as const,
  (D: Tensor, g: Tensor) => [g, div(sum(abs(mul(D, g))), Math.sqrt(D.shape[0]! * D.shape[1]!))] as [Tensor, Tensor],
);

/**
 * Σ over pieces of ‖XᵀX − 1‖_F for the columns X[n, r] of one piece; a column has its share of its piece's norm, so that
 * padding needs no other program.
 */
function defects(X: Tensor, piece: Tensor): Tensor {
  const { own, same, count } = piecesOf(piece);
  const rows = sum(mul(square(offIdentity(X)), same), 1);
  const squares = sum(mul(same, rows), 1);
  return sum(div(mul(rootOf(squares), own), count));
}
/** Which ranks there are [r], which are of one piece [r, r], and how many are of each one's [r], at least 1. */
function piecesOf(piece: Tensor) {
  const r = piece.shape[0]!;
  const own = where(less(0, piece), 1, mul(piece, 0));
  const both = mul(reshape(own, [r, 1]), own);
  const same = mul(where(equal(reshape(piece, [r, 1]), piece), 1, mul(both, 0)), both);
  return { own, same, count: add(sum(same, 1), sub(1, own)) };
}

/** The mean rank that is grown to. */
const targetOf = (c: Pick<Incre, 'targetRank' | 'rank'>): number => c.targetRank ?? 4 * c.rank;
/** Which steps, 1-based, grow: after the warm-up every n-th, and the first, which only makes the reserve. */
const grows = (c: Incre, step: number, steps: number): boolean => {
  const k = step - 1;
  return k > c.budgetWarmup && k < steps - c.budgetFinal && k % c.budgetEvery === 0;
};
/** how many steps from one on grow */
const growthsFrom = (c: Incre, step: number, steps: number): number => countDue((s) => grows(c, s, steps), steps, step);

/** A module's row in the log. */
type Row = Decided & { readonly gain: number };

/** Who grows: the modules of the highest scores, the earlier of equal ones first. */
export function grownBy(
  c: Incre,
  scores: readonly number[],
  had: readonly number[],
  most: readonly number[],
  left: number,
): readonly boolean[] {
  const total = had.reduce((a, b) => a + b, 0);
  const missing = targetOf(c) * had.length - total;
  const many = Math.min(c.growModules ?? Math.ceil(missing / (c.growRanks * left)), missing);
  const order = scores
    .map((score, i) => ({ score, i }))
    .filter(({ i }) => had[i]! + c.growRanks <= most[i]!)
    .sort((a, b) => b.score - a.score || a.i - b.i);
  const chosen = new Set(order.slice(0, Math.max(0, many)).map(({ i }) => i));
  return scores.map((_, i) => chosen.has(i));
}

/** The fields of every module after a test; `columns` counts what it had with its reserve. */
function granted(
  now: Pick<Now<never>, 'key' | 'step' | 'places'>,
  plan: PerModule<{
    readonly columns: number;
    readonly adds: number;
    readonly keeps: number;
    readonly pieces: number[];
  }>,
  room: Ranks,
  done: boolean,
): PerModule<Grant> {
  return mapModules(({ columns, adds, keeps, pieces }, path, n) => {
    const [place, r] = [now.places[n].get(path)!, room[n][path]!];
    const [dIn, dOut] = [inputsOf(place), place[0]];
    const drawn = (side: string, size: number) =>
      normalNumbers(foldKey(now.key, 'increlora', n, path, side, now.step), size, 0.02);
    const [A, B] = [new Float32Array(dIn * r), new Float32Array(r * dOut)];
    if (adds > 0) {
      const [a, b] = [drawn('A', dIn * adds), drawn('B', adds * dOut)];
      for (let i = 0; i < dIn; i++) for (let j = 0; j < adds; j++) A[i * r + columns + j] = a[i * adds + j]!;
      B.set(b, columns * dOut);
    }
    const row = (of: (i: number) => number) => tensor(Float32Array.from({ length: r }, (_, i) => of(i)));
    const next = 1 + Math.max(...pieces);
    return {
      A: tensor(A, [dIn, r]),
      B: tensor(B, [r, dOut]),
      granted: row((i) => (i < keeps ? 1 : 0)),
      spare: row((i) => (!done && i >= keeps && i < columns + adds ? RESERVE : 0)),
      piece: row((i) => (i < columns ? pieces[i]! : i < columns + adds ? next : 0)),
    };
  }, plan);
}

/**
 * The method `increlora`: W = W0 + s·((A ⊙ E)·B)ᵀ. Beside its ranks every module has `growRanks` in reserve, with E = 1e-5
 * held fixed: their A and B are trained in advance. The score of a step is S = Σ |ΔW ⊙ ∂L/∂ΔW|/√(d_out·d_in) of each module,
 * I ← β₁I + (1−β₁)S, U ← β₂U + (1−β₂)|S − I|. Every `budgetEvery` steps k after the warm-up the modules of the largest I·U get
 * their reserve as ranks of their own and a new one, until the mean rank is the target; then the reserve's E is 0. What
 * becomes a rank changes nothing, the new reserve about 1e-5·0.02² of the weight. E of a rank has moments from then on that
 * it is trained. The penalty is w times the mean of ‖XᵀX − 1‖_F over what was added together, A and B apart. At the start
 * E = 0 and there is no reserve; the first step makes it. The authors' scale s = α/(r + 1e-5) follows the rank; here it does not.
 * Cost: ΔW and ∂L/∂ΔW of every module in each step, as in the authors' code.
 * Source: Zhang et al., IncreLoRA: Incremental Parameter Allocation Method for Parameter-Efficient Fine-tuning (2023), eq. 5
 * to 11, and the authors' `loralib` where the paper is silent.
 */
export const increlora: MethodOf<typeof settings, P, Grant, Seen<Tensor>, Seen<HostArray>> = {
  name: 'increlora',
  doc: 'IncreLoRA: singular triplets, more of them where |ΔW ⊙ ∂L/∂ΔW| is largest, trained before they count',
  source: 'Zhang et al., IncreLoRA: Incremental Parameter Allocation Method for Parameter-Efficient Fine-tuning (2023)',
  settings,
  problem(c) {
    if (c.method !== 'increlora') return undefined;
    if (targetOf(c) < c.rank)
      return { path: 'targetRank', message: `is ${targetOf(c)}, expected at least --rank ${c.rank}` };
    return budgetProblem(c);
  },
  leastRank: () => 1,
  ranks: lowRank.ranks,
  label: (c) => `IncreLoRA r=${c.rank}→${targetOf(c)}`,
  facts: (c) => ({ lambda: null, testEvery: c.budgetEvery, scale: c.scale, initA: 0 }),
  room: (c, most) => Math.ceil((Math.max(1, most) + c.growRanks) / 4) * 4,
  fields(place, rank) {
    const kept = new Field([rank], 0, false);
    const number = new Field([], null, false);
    return {
      ...tripletFields(place, rank),
      granted: kept,
      spare: kept,
      piece: kept,
      since: kept,
      score: new Field([], null, false, false, true),
      ipt: number,
      unc: number,
    };
  },
  init: (places, ranks, key) =>
    Object.fromEntries(
      [...places].map(([path, place]) => {
        const r = ranks[path]!;
        const none = zeros([r]);
        const first = drawnTriplet(key, path, place, r);
        const kept = { granted: ones([r]), spare: none, piece: ones([r]), since: none };
        return [path, { ...first, ...kept, score: zeros([]), ipt: zeros([]), unc: zeros([]) }];
      }),
    ),
  attach(module, p, c) {
    const D = scored(deltaWeight({ A: mul(p.A, valuesOf(p)), B: p.B }, c.scale), p.score);
    return withMatrix(module, add(matrixOf(asFloat(module.weight)), D));
  },
  ages: ({ since }, age) => ({ E: sub(age, since) }),
  penalty(modules, c) {
    const total = modules.map(({ A, B, piece }) => add(defects(A, piece), defects(swap(B), piece)));
    const pieces = modules.map(({ piece }) => {
      const { own, count } = piecesOf(piece);
      return mul(sum(div(own, count)), 2);
    });
    const all = (of: readonly Tensor[]) => of.reduce((x, y) => add(x, y));
    return mul(div(all(total), all(pieces)), c.orthogonality);
  },
  after({ p, ...slot }, g, _made, c) {
    const moved = (before: Tensor, now: Tensor, beta: number) => add(mul(before, beta), mul(now, 1 - beta));
    const ipt = moved(p.ipt, g.score, c.sensitivityDecay);
    return { ...slot, p: { ...p, ipt, unc: moved(p.unc, abs(sub(g.score, ipt)), c.uncertaintyDecay) } };
  },
  growth: {
    due: (c, step, steps) => step === 1 || grows(c, step, steps),
    count: (c, steps) => growthsFrom(c, 2, steps) + 1,
    trial(place, room) {
      const row = new Field([room], 0);
      const [A, B] = [new Field([inputsOf(place), room], 1), new Field([room, place[0]], 0)];
      return { A, B, granted: row, spare: row, piece: row };
    },
    place: (p) => p,
    settle: (g) => g,
    measure: () => ({ scores: (_g, _kept, p) => seen(p) }),
    look: (p) => seen(p),
    install({ p, age, ...slot }, x) {
      const [before, after] = [p.piece, x.piece].map((piece) => where(less(0, piece), 1, mul(piece, 0)));
      const fresh = sub(after!, before!);
      const starts = sub(x.granted, p.granted);
      return {
        ...slot,
        age: mul(age, sub(1, fresh)),
        p: {
          ...p,
          A: add(p.A, x.A),
          B: add(p.B, x.B),
          E: add(p.E, mul(starts, p.spare)),
          since: add(p.since, mul(starts, age)),
          granted: x.granted,
          spare: x.spare,
          piece: x.piece,
        },
      };
    },
    test(passes, now, c) {
      passes.update();
      const look = passes.look();
      return async () => {
        const of = await look();
        const all = modulesOf(now.ranks);
        const reserve = now.step === 1 ? 0 : c.growRanks;
        const had = all.map(({ n, path }) => now.ranks[n][path]! - reserve);
        const scores = all.map(({ n, path }) => of[n][path]!.score[0]!);
        const most = all.map(({ n, path }) => mostRank(now.places[n].get(path)!));
        const left = growthsFrom(c, now.step, now.steps);
        const grown = now.step === 1 ? had.map(() => false) : grownBy(c, scores, had, most, left);
        const decisions = all.map(({ n, path }, i): Row => {
          const rankAfter = had[i]! + (grown[i] ? c.growRanks : 0);
          return { module: moduleName(n, path), gain: scores[i]!, expanded: grown[i]!, rankAfter };
        });
        if (now.step > 1 && !grown.includes(true)) return { decisions, ranks: now.ranks, memories: {} };
        const total = decisions.reduce((sum, { rankAfter }) => sum + rankAfter, 0);
        const at = perModule([...all.keys()], now.ranks);
        const plan = mapModules((columns: number, path, n) => {
          const i = at[n][path]!;
          return {
            columns,
            adds: grown[i] || now.step === 1 ? c.growRanks : 0,
            keeps: decisions[i]!.rankAfter,
            pieces: Array.from(of[n][path]!.piece),
          };
        }, now.ranks);
        return {
          decisions,
          // with the reserve, which is trained as well
          ranks: mapModules(({ columns, adds }) => columns + adds, plan),
          memories: {},
          install: (room) => granted(now, plan, room, total >= targetOf(c) * all.length),
        };
      };
    },
    memory: z.never(),
  },
  toFile(module, place, c) {
    const { E, granted: own, spare, ...rest } = module.fields;
    const data = E!.data.map((e, i) => e * own!.data[i]! + spare!.data[i]!);
    const kept = keptRanks({ ...module, fields: { ...rest, E: { ...E!, data } } }, 'E', inputsOf(place), place[0]);
    return lowRank.toFile(kept, place, c);
  },
  fromFile: (module, c, fresh) => ({ ...fresh, ...lowRank.fromFile(module, c, fresh), E: ones([module.rank]) }),
};

const seen = ({ ipt, unc, piece }: P): Seen<Tensor> => ({ score: mul(ipt, unc), piece });
