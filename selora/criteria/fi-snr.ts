/**
 * The paper's Σ mean gᵢ², that of the new row times ρ = ‖ḡ‖²/mean‖gᵢ‖², its share that is signal: 1 where samples agree,
 * about 1/n of n samples where there is none.
 */
import type { Tensor } from '../../core/index.ts';
import { fisherByRank, type RankSums, squaresByRank } from '../fisher.ts';
import type { Score } from './criterion.ts';

/** The same with the signal of the new row, `--criterion fi-snr`. */
export const fiSnr: Score = {
  name: 'fi-snr',
  perSample: {
    samples: fisherByRank,
    // ρ·FI(new row) is the square of its mean gradient
    scores: (mean, kept) => ({ ...(kept as RankSums<Tensor>), gain: squaresByRank(mean).b }),
  },
};
