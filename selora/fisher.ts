/**
 * Fisher scores from per-sample gradients (eq. 3 and 4 of the paper) and the expansion decision (eq. 5, which the paper
 * prints upside down: the ratio compared with λ is expanded/original).
 *
 * The new row of B is zero, so the candidate column K has gradient zero and the old entries' gradients are unchanged:
 *   ratio = 1 + FI(new row of B)/FI(original),
 * from one backward pass, which can be the training step's own.
 */
import { concat, mean, mul, sum, type Tensor } from '../core/index.ts';
import type { Adapter } from './adapter.ts';

/** Per-sample gradients of one adapter: A[b, d_in, r], B[b, r, d_out]. */
export type PerSample = Adapter;

/** eq. 3 summed by rank: mean over samples of squared gradients → a[r] (columns of A), b[r] (rows of B). */
export const fisherByRank = (g: PerSample): { readonly a: Tensor; readonly b: Tensor } => ({
  a: sum(mean(mul(g.A, g.A), 0), 0),
  b: sum(mean(mul(g.B, g.B), 0), 1),
});
/** eq. 4: FI-score of one adapter, the sum over all entries of A and B. */
export const fisherScore = (g: PerSample): Tensor => {
  const { a, b } = fisherByRank(g);
  return sum(concat([a, b], 0));
};
export interface Scores {
  /** FI of the trained ranks: columns of A, rows of B */
  readonly fiA: number;
  readonly fiB: number;
  /** FI of the candidate's row of B */
  readonly fiNew: number;
}
/** Scores of a module from the sums by rank: ranks below `rank` are trained, `rank` itself is the candidate. */
export function scoresOf(a: ArrayLike<number>, b: ArrayLike<number>, rank: number): Scores {
  let [fiA, fiB] = [0, 0];
  for (let i = 0; i < rank; i++) {
    fiA += a[i]!;
    fiB += b[i]!;
  }
  return { fiA, fiB, fiNew: b[rank]! };
}

export interface Decision {
  readonly module: string;
  /** shares of A and of B in fiOriginal */
  readonly fiA: number;
  readonly fiB: number;
  readonly fiOriginal: number;
  readonly fiExpanded: number;
  readonly ratio: number;
  readonly expanded: boolean;
  /** passed the threshold but not the rank budget */
  readonly overBudget: boolean;
  readonly rankAfter: number;
  /** the key K was drawn from */
  readonly key: string;
}

/**
 * ratio = FI_expanded/FI_original = 1 + FI(new row)/FI(original); 1 when both are zero, +∞ when only the original is.
 * @throws RangeError naming the module when a score is not finite.
 */
export function ratioOf(module: string, s: Scores): number {
  const original = s.fiA + s.fiB;
  if (!Number.isFinite(original) || !Number.isFinite(s.fiNew))
    throw new RangeError(`${module}: Fisher score is not finite (original ${original}, candidate ${s.fiNew})`);
  if (original === 0) return s.fiNew === 0 ? 1 : Number.POSITIVE_INFINITY;
  return 1 + s.fiNew / original;
}

/** Which modules grow: ratio > λ, the largest ratios first while the budget of total rank lasts. */
export function decide(
  scores: readonly { readonly module: string; readonly rank: number; readonly scores: Scores; readonly key: string }[],
  options: { readonly lambda: number; readonly budget?: number },
): Decision[] {
  const rows = scores.map((s) => ({ ...s, ratio: ratioOf(s.module, s.scores) }));
  let left = (options.budget ?? Number.POSITIVE_INFINITY) - rows.reduce((n, r) => n + r.rank, 0);
  const winners = new Set<string>();
  for (const r of [...rows].sort((x, y) => y.ratio - x.ratio))
    if (r.ratio > options.lambda && left > 0) {
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
      overBudget: !expanded && r.ratio > options.lambda,
      rankAfter: r.rank + (expanded ? 1 : 0),
      key: r.key,
    };
  });
}
