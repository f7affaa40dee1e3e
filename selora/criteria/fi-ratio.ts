/**
 * The paper's criterion (SeLoRA, eq. 3 to 5): Σ mean gᵢ² over a module's entries, gᵢ the gradient of sample i. Of the batch
 * gradient ḡ, as the published code has it, Σ ḡ², which vanishes where samples disagree.
 */
import type { Tensor } from '../../core/index.ts';
import { fisherByRank, type RankSums, squaresByRank } from '../fisher.ts';
import type { Score } from './criterion.ts';

/** FI with the new rank to FI without it, `--criterion fi-ratio`. */
export const fiRatio: Score = {
  name: 'fi-ratio',
  perSample: { samples: fisherByRank, scores: (_mean, kept) => kept as RankSums<Tensor> },
  batch: { scores: squaresByRank },
};
