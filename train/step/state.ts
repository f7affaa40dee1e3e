/** The trees of a run: adapters with their moments, frozen parameters, batches, candidates; and how to map over them. */
import type { Tensor } from '../../core/index.ts';
import type { TextEncoder } from '../../models/clip/text-encoder.ts';
import type { UNet } from '../../models/unet/index.ts';
import type { Adapter, Adapters } from '../../selora/adapter.ts';
import type { RankSums } from '../../selora/fisher.ts';

export const networks = ['unet', 'text'] as const;
export type Network = (typeof networks)[number];
export type PerNetwork<T> = { readonly unet: T; readonly text: T };

/** one adapter with its moments; `age[c]` counts the updates of each rank */
export type Slot = {
  readonly A: Tensor;
  readonly B: Tensor;
  readonly mA: Tensor;
  readonly vA: Tensor;
  readonly mB: Tensor;
  readonly vB: Tensor;
  readonly age: Tensor;
};
export type State = PerNetwork<{ readonly [path: string]: Slot }>;
/** frozen parameters */
export type Frozen = { readonly unet: UNet; readonly text: TextEncoder };

export type Batch = {
  /** noisy latents [b,h,w,c] */
  readonly x: Tensor;
  /** timesteps [b] */
  readonly t: Tensor;
  /** token ids [b,77], or in k chunks [b,k,77] */
  readonly ids: Tensor;
  /** text context [b,77,d], where the text encoder is not to be run */
  readonly context?: Tensor;
  /** ε or v, like x */
  readonly target: Tensor;
  /** loss weight of each sample [b] */
  readonly weight: Tensor;
};
export type Hyper = PerNetwork<Tensor>;
/** candidates of one test: columns K[d_in, 1] and the free slot of each module as a one-hot row [1, c] */
export type Candidates = PerNetwork<{ readonly [path: string]: { readonly K: Tensor; readonly slot: Tensor } }>;
/** what a test measures, summed by rank: a[c] over columns of A, b[c] over rows of B (eq. 3 for the measure `fisher`) */
export type FisherSums = PerNetwork<{ readonly [path: string]: RankSums<Tensor> }>;

export type Pairs = PerNetwork<Adapters>;
const mapNetworks = <T, R>(f: (value: T, network: Network) => R, x: PerNetwork<T>): PerNetwork<R> => ({
  unet: f(x.unet, 'unet'),
  text: f(x.text, 'text'),
});
const mapPaths = <T, R>(
  f: (value: T, path: string) => R,
  x: { readonly [path: string]: T },
): { readonly [path: string]: R } => Object.fromEntries(Object.entries(x).map(([k, v]) => [k, f(v, k)]));
/** applies f to every module of both networks */
export const mapModules = <T, R>(
  f: (value: T, path: string, network: Network) => R,
  x: PerNetwork<{ readonly [path: string]: T }>,
): PerNetwork<{ readonly [path: string]: R }> => mapNetworks((net, n) => mapPaths((v, p) => f(v, p, n), net), x);

export const adaptersOf = (s: State): Pairs => mapModules(({ A, B }: Slot): Adapter => ({ A, B }), s);
