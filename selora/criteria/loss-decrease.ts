/**
 * Natural expansion score with a diagonal Fisher matrix, Σ ḡ²/mean gᵢ²: the loss a natural-gradient step would save.
 * Source: Mitchell et al., Self-Expanding Neural Networks (2023).
 */
import { mean, mul } from '../../core/index.ts';
import type { Adapter } from '../adapter.ts';
import { naturalByRank } from '../fisher.ts';
import type { Score } from './criterion.ts';

/** The loss a step would save, `--criterion loss-decrease`. */
export const lossDecrease: Score = {
  name: 'loss-decrease',
  perSample: {
    samples: ({ A, B }) => ({ A: mean(mul(A, A), 0), B: mean(mul(B, B), 0) }),
    scores: (g, kept) => naturalByRank(g, kept as Adapter),
  },
};
