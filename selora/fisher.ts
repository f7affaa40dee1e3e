/**
 * Fisher scores from per-sample gradients (eq. 3 and 4 of the paper) and the expansion decision (eq. 5, which the paper
 * prints upside down: the ratio compared with λ is expanded/original).
 *
 * The new row of B is zero, so the candidate column K has gradient zero and the old entries' gradients are unchanged:
 *   ratio = 1 + FI(new row of B)/FI(original),
 * from one backward pass, which can be the training step's own.
 */
import { concat, div, less, mean, mul, select, sum, type Tensor } from '../core/index.ts';
import type { Adapter } from './adapter.ts';

/** Per-sample gradients of one adapter: A[b, d_in, r], B[b, r, d_out]. */
export type PerSample = Adapter;

/** eq. 3 summed by rank: mean over samples of squared gradients → a[r] (columns of A), b[r] (rows of B). */
export const fisherByRank = (g: PerSample): { readonly a: Tensor; readonly b: Tensor } => ({
  a: sum(mean(mul(g.A, g.A), 0), 0),
  b: sum(mean(mul(g.B, g.B), 0), 1),
});
/** One number per rank. */
export type RankSums<T> = {
  /** columns of A */
  readonly a: T;
  /** rows of B */
  readonly b: T;
  /** rows of B, where something else than `b` counts as a new one's */
  readonly gain?: T;
};

/** Squares of mean gradients A[d_in, r], B[r, d_out], summed by rank. */
export const squaresByRank = ({ A, B }: Adapter): RankSums<Tensor> => ({
  a: sum(mul(A, A), 0),
  b: sum(mul(B, B), 1),
});
/**
 * gᵀF⁻¹g with F = diag(mean gᵢ²), summed by rank: the loss a natural-gradient step would save, to first order. Each entry
 * adds between 0 (samples disagree) and 1 (all agree); entries without gradient add 0.
 * Source: Mitchell et al., Self-Expanding Neural Networks (2023).
 */
export function naturalByRank(mean: Adapter, squares: Adapter): RankSums<Tensor> {
  const share = (g: Tensor, f: Tensor): Tensor => {
    const some = less(0, f);
    return select(some, div(mul(g, g), select(some, f, 1)), 0);
  };
  return { a: sum(share(mean.A, squares.A), 0), b: sum(share(mean.B, squares.B), 1) };
}

/** eq. 4: FI-score of one adapter, the sum over all entries of A and B. */
export const fisherScore = (g: PerSample): Tensor => {
  const { a, b } = fisherByRank(g);
  return sum(concat([a, b], 0));
};
/** What a test measured of one module. */
export interface Scores {
  /** FI of the trained ranks, columns of A */
  readonly fiA: number;
  /** and rows of B */
  readonly fiB: number;
  /** FI of the candidate's row of B */
  readonly fiNew: number;
  /** what counts as gain instead of fiNew, such as its share that is signal */
  readonly gain?: number;
}
/** Scores of a module from the sums by rank: ranks below `rank` are trained, `rank` itself is the candidate. */
export function scoresOf(a: ArrayLike<number>, b: ArrayLike<number>, rank: number, gain?: ArrayLike<number>): Scores {
  let [fiA, fiB] = [0, 0];
  for (let i = 0; i < rank; i++) {
    fiA += a[i]!;
    fiB += b[i]!;
  }
  return { fiA, fiB, fiNew: b[rank]!, ...(gain ? { gain: gain[rank]! } : {}) };
}

/** What a test decided about one module, and from which numbers: one row of the expansion log. */
export interface Decision {
  /** its path, with the network before it */
  readonly module: string;
  /** share of A in fiOriginal */
  readonly fiA: number;
  /** share of B */
  readonly fiB: number;
  /** FI without the candidate */
  readonly fiOriginal: number;
  /** FI with it */
  readonly fiExpanded: number;
  /** what is compared with λ */
  readonly ratio: number;
  /** whether it grows */
  readonly expanded: boolean;
  /** passed the threshold but not the rank budget */
  readonly overBudget: boolean;
  /** its rank after the test */
  readonly rankAfter: number;
  /** the key K was drawn from */
  readonly key: string;
}

/**
 * ratio = FI_expanded/FI_original = 1 + FI(new row)/FI(original); 1 when both are zero, +∞ when only the original is.
 * Where the scores name a gain it takes FI(new row)'s place.
 * @throws RangeError naming the module when a score is not finite.
 */
export function ratioOf(module: string, s: Scores): number {
  const original = s.fiA + s.fiB;
  const gain = s.gain ?? s.fiNew;
  if (!Number.isFinite(original) || !Number.isFinite(gain))
    throw new RangeError(`${module}: Fisher score is not finite (original ${original}, candidate ${gain})`);
  if (original === 0) return gain === 0 ? 1 : Number.POSITIVE_INFINITY;
  return 1 + gain / original;
}

/**
 * Which modules grow: ratio > λ, the largest ratios first while the budget of total rank lasts. `atLambda` lets equality
 * pass too, as the published code does.
 */
export function decide(
  scores: readonly { readonly module: string; readonly rank: number; readonly scores: Scores; readonly key: string }[],
  options: { readonly lambda: number; readonly budget?: number; readonly atLambda?: boolean },
): Decision[] {
  const passes = (ratio: number) => (options.atLambda ? ratio >= options.lambda : ratio > options.lambda);
  const rows = scores.map((s) => ({ ...s, ratio: ratioOf(s.module, s.scores) }));
  let left = (options.budget ?? Number.POSITIVE_INFINITY) - rows.reduce((n, r) => n + r.rank, 0);
  const winners = new Set<string>();
  for (const r of [...rows].sort((x, y) => y.ratio - x.ratio))
    if (passes(r.ratio) && left > 0) {
      winners.add(r.module);
      left--;
    }
  return rows.map((r) => {
    const expanded = winners.has(r.module);
    const fiOriginal = r.scores.fiA + r.scores.fiB;
    return {
      module: r.module,
      fiA: r.scores.fiA,
      fiB: r.scores.fiB,
      fiOriginal,
      fiExpanded: fiOriginal + r.scores.fiNew,
      ratio: r.ratio,
      expanded,
      overBudget: !expanded && passes(r.ratio),
      rankAfter: r.rank + (expanded ? 1 : 0),
      key: r.key,
    };
  });
}
