/** GoRA: ranks dealt out by the first gradient, and a start that is one step of gradient descent within the columns of A. */
import { CholeskyDecomposition, Matrix } from 'ml-matrix';
import { z } from 'zod';
import { tensor } from '../../core/index.ts';
import { type Adapter, type HostKey, kaimingUniform } from '../adapter.ts';
import { mapModules } from '../networks.ts';
import { type Bounds, checkBounds, dealt } from './allocate.ts';
import { rankMost, sizeOf, startBatches } from './fisher-ranks.ts';
import { lora } from './lora.ts';
import { inputsOf, mostRank, ranksAtStart } from './low-rank.ts';
import type { HostTensor, MethodOf } from './method.ts';
import { budgetParameters, told } from './settings.ts';
import { cannotBegin, refuseKnown } from './weights.ts';

const group = 'Growth of ranks';
const settings = {
  ...lora.settings,
  startBatches,
  rankMost,
  budgetParameters,
  rankLeast: told(z.int().min(1).max(1024).nullable().default(null), {
    group,
    value: 'r',
    help: 'gora: least rank of a module (default: half of --rank)',
  }),
  goraStep: told(z.number().min(0).max(1e3).default(0.05), {
    group,
    value: 'gamma',
    help: 'gora: the start is about a step of gradient descent of this length; 0: the base',
  }),
};
type Gora = z.output<z.ZodObject<typeof settings>>;
/** What is kept of a module: its score, and all that its start needs of the gradient, at any rank up to the most. */
type Kept = { readonly importance: number; readonly A: HostTensor; readonly AtG: HostTensor };

const mostOf = (c: Pick<Gora, 'rank' | 'rankMost'>): number => c.rankMost ?? 4 * c.rank;
const boundsOf = (c: Gora): Bounds => ({
  least: c.rankLeast ?? Math.max(1, Math.floor(c.rank / 2)),
  most: mostOf(c),
  parameters: c.budgetParameters,
});

/** mean |W ⊙ G| */
export const importanceOf = (W: HostTensor, G: HostTensor): number =>
  W.data.reduce((sum, w, i) => sum + Math.abs(w * G.data[i]!), 0) / W.data.length;

/** A[d_in, r], whose first columns do not depend on r. */
function columns(key: HostKey, dIn: number, rank: number, a: number): HostTensor {
  const rows = kaimingUniform(key, dIn, dIn * rank, { a });
  return {
    shape: [dIn, rank],
    data: Float32Array.from(rows, (_, i) => rows[(i % rank) * dIn + Math.floor(i / rank)]!),
  };
}
/** Aᵀ[r, d_in]·Gᵀ of G[d_out, d_in], in f64 */
function sketch(A: HostTensor, G: HostTensor): HostTensor {
  const [dIn, r] = A.shape as [number, number];
  const dOut = G.shape[0]!;
  const out = new Float64Array(r * dOut);
  for (let o = 0; o < dOut; o++)
    for (let i = 0; i < dIn; i++) {
      const g = G.data[o * dIn + i]!;
      for (let j = 0; j < r; j++) out[j * dOut + o]! += A.data[i * r + j]! * g;
    }
  return { shape: [r, dOut], data: Float32Array.from(out) };
}

/**
 * B[r, d_out] = −(γ·√(d_in/r)/s)·(AᵀA)⁻¹·AᵀGᵀ for the first r columns of A: s·A·B is then −γ·√(d_in/r) times the projection of
 * Gᵀ on them, about as long as γ·G.
 */
export function descent({ A, AtG }: Pick<Kept, 'A' | 'AtG'>, rank: number, gamma: number, scale: number) {
  const [dIn, most] = A.shape as [number, number];
  const dOut = AtG.shape[1]!;
  const own = Float32Array.from({ length: dIn * rank }, (_, i) => A.data[Math.floor(i / rank) * most + (i % rank)]!);
  const columns = Matrix.from1DArray(dIn, rank, Array.from(own));
  const right = Matrix.from1DArray(rank, dOut, Array.from(AtG.data.subarray(0, rank * dOut)));
  const solved = new CholeskyDecomposition(columns.transpose().mmul(columns)).solve(right);
  const size = (-gamma * Math.sqrt(dIn / rank)) / scale;
  return { A: own, B: Float32Array.from(solved.to1DArray(), (x) => size * x) };
}

/**
 * The method `gora`: LoRA at ranks in proportion to mean |W ⊙ G|/√(d_in + d_out), G the gradient of the first batches, whose
 * sum is that of --rank over all modules or has --budget-parameters; A at random, B the pseudo-inverse of A times −G, scaled to a step of descent. The
 * model is then no longer the base, and a run says by how much. The authors round each rank by itself and clip it, so that
 * theirs sum to about the budget; their default is the scale of rsLoRA, which s stands for here.
 * Source: He et al., GoRA: Gradient-driven Adaptive Low Rank Adaptation (NeurIPS 2025), and the authors' `union_mean`,
 * `compress`, `scale_by_lr`.
 */
export const gora: MethodOf<typeof settings, Adapter> = {
  ...lora,
  name: 'gora',
  doc: 'GoRA: ranks by mean |W ⊙ ∂L/∂W|, begun by a step of descent within the columns of A',
  source: 'He et al., GoRA: Gradient-driven Adaptive Low Rank Adaptation (NeurIPS 2025)',
  settings,
  problem(c) {
    const [least, most] = [c.rankLeast ?? 1, mostOf(c)];
    if (c.method !== 'gora' || (least <= c.rank && c.rank <= most)) return undefined;
    const [path, message] =
      least > c.rank
        ? ['rankLeast', `is ${least}, expected at most --rank ${c.rank}`]
        : ['rankMost', `is ${most}, expected at least --rank ${c.rank}`];
    return { path: path!, message: message! };
  },
  ranks(c, places, known) {
    refuseKnown('gora', known);
    const ranks = ranksAtStart(c, places);
    checkBounds(boundsOf(c), ranks, places);
    return ranks;
  },
  label: (c) => `GoRA, ${sizeOf(c)}`,
  begin: {
    batches: (c) => c.startBatches,
    weights: true,
    moves: true,
    keep({ gradient, weight, place, key }, c): Kept {
      const dIn = inputsOf(place);
      const A = columns(key, dIn, Math.min(mostOf(c), mostRank(place)), c.gainA);
      return { importance: importanceOf(weight!, gradient), A, AtG: sketch(A, gradient) };
    },
    ranks: (kept, ranks, places, c) =>
      dealt(
        mapModules((k, path, n) => {
          const place = places[n].get(path)!;
          return (k as Kept).importance / Math.sqrt(inputsOf(place) + place[0]);
        }, kept),
        ranks,
        places,
        boundsOf(c),
      ),
    module(kept, _fresh, rank, c) {
      const { A, B } = descent(kept as Kept, rank, c.goraStep, c.scale);
      return { A: tensor(A, [A.length / rank, rank]), B: tensor(B, [rank, B.length / rank]) };
    },
  },
  fromFile: cannotBegin('gora'),
};
