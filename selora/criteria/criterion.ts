/** By what a module grows: a score that is compared with λ, or a test of its own. */
import type { Tensor } from '../../core/index.ts';
import type { Adapter } from '../adapter.ts';
import type { RankSums } from '../fisher.ts';
import type { Growth, Measure, Settings } from '../methods/method.ts';

/** A score, compared with λ as 1 + new row of B/trained ranks. */
export interface Score {
  /** what `--criterion` takes */
  readonly name: string;
  /** sums by rank from the gradients of single samples */
  readonly perSample: Measure<Adapter, RankSums<Tensor>>;
  /** the same from the batch gradient, for `--fisher batch`; absent: the score compares samples, of which it needs two */
  readonly batch?: Measure<Adapter, RankSums<Tensor>>;
}
/** A test with passes and decisions of its own. */
export interface OwnTest {
  /** what `--criterion` takes */
  readonly name: string;
  /** how it tests */
  readonly growth: Growth<Adapter, Settings, unknown, unknown, unknown, unknown>;
  /** what is wrong between the settings of a run with it */
  problem?(c: Settings): { readonly path: string; readonly message: string } | undefined;
}
/** One of them. */
export type Criterion = Score | OwnTest;
