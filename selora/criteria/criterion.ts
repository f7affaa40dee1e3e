/** What a test compares with λ: one record of a score. Every score is compared as 1 + new row of B/trained ranks. */
import type { Tensor } from '../../core/index.ts';
import type { Adapter } from '../adapter.ts';
import type { RankSums } from '../fisher.ts';
import type { Measure } from '../methods/method.ts';

/** One of them. */
export interface Criterion {
  /** what `--criterion` takes */
  readonly name: string;
  /** sums by rank from the gradients of single samples */
  readonly perSample: Measure<Adapter, RankSums<Tensor>>;
  /** the same from the batch gradient, for `--fisher batch`; absent: the score compares samples, of which it needs two */
  readonly batch?: Measure<Adapter, RankSums<Tensor>>;
}
