/**
 * Losses and gradients of a batch, and what an expansion test measures of them: per-sample gradients of the adapters with
 * the candidates in place, from the same backward pass that gives the step its update.
 */
import {
  add,
  dot,
  leaves,
  mean,
  mul,
  reshape,
  sub,
  sum,
  type Tensor,
  unflatten,
  unsqueeze,
  valueAndGrad,
  vmap,
} from '../../core/index.ts';
import { textContext } from '../../models/clip/text-encoder.ts';
import type { TextEncoderConfig, UNetConfig } from '../../models/config.ts';
import { unet } from '../../models/unet/index.ts';
import type { Adapter } from '../../selora/adapter.ts';
import { attach } from '../../selora/attach.ts';
import { fisherByRank, type Measure, naturalByRank, squaresByRank } from '../../selora/fisher.ts';
import {
  adaptersOf,
  type Batch,
  type Candidates,
  type FisherSums,
  type Frozen,
  mapModules,
  type Pairs,
  type State,
} from './state.ts';

export interface LossOptions {
  readonly configs: { readonly unet: UNetConfig; readonly text: TextEncoderConfig };
  readonly scale: number;
  readonly checkpointBlocks: boolean;
}

/** per-sample losses [b]: weight·mean (prediction − target)² */
export function sampleLosses(o: LossOptions, adapters: Pairs, base: Frozen, batch: Batch): Tensor {
  const context = batch.context ?? textContext(attach(base.text, adapters.text, o.scale), o.configs.text, batch.ids);
  const net = attach(base.unet, adapters.unet, o.scale);
  const d = sub(
    unet(net, o.configs.unet, batch.x, batch.t, context, { checkpointBlocks: o.checkpointBlocks }),
    batch.target,
  );
  return mul(mean(mul(d, d), [1, 2, 3]), batch.weight);
}

/** Gradients of the mean loss over the batch. */
export function gradients(o: LossOptions, s: State, base: Frozen, batch: Batch): { loss: Tensor; g: Pairs } {
  const [loss, g] = valueAndGrad((a: Pairs) => mean(sampleLosses(o, a, base, batch)))(adaptersOf(s));
  return { loss, g };
}

/** K[d_in, 1], slot[1, c] → [d_in, c]: K in the slot's column. */
export const columnAt = (K: Tensor, slot: Tensor): Tensor =>
  reshape(dot(reshape(K, [1, K.shape[0]!, 1]), reshape(slot, [1, 1, slot.shape[1]!])), [K.shape[0]!, slot.shape[1]!]);
/** adapters with the candidates in their free columns */
const withCandidates = (s: State, c: Candidates): Pairs =>
  mapModules(
    ({ A, B }: Adapter, path, network): Adapter => ({
      A: add(A, columnAt(c[network][path]!.K, c[network][path]!.slot)),
      B,
    }),
    adaptersOf(s),
  );
/** The candidate's row of B takes no part in the update of the step that tests it. */
export const withoutCandidates = (g: Pairs, c: Candidates): Pairs =>
  mapModules((x: Adapter, path, network): Adapter => {
    const keep = sub(1, c[network][path]!.slot);
    return { A: x.A, B: mul(x.B, reshape(keep, [keep.shape[1]!, 1])) };
  }, g);

/** Loss and mean gradients over some samples, the candidates' rows included, and the means a measure needs besides. */
export interface Tested {
  readonly loss: Tensor;
  readonly g: Pairs;
  /** eq. 3 summed by rank */
  readonly fisher?: FisherSums;
  /** eq. 3 entry by entry */
  readonly squares?: Pairs;
}
// an object type, so that it can pass through compiled programs
export type TestedTree = { readonly [K in keyof Tested]: Tested[K] };

/**
 * One backward pass with the candidates in place. `batch` needs the gradient of the mean loss only; the others per-sample
 * gradients by vmap(grad), whose mean is the same gradient.
 */
export function testedGradients(
  o: LossOptions,
  measure: Measure,
  s: State,
  base: Frozen,
  batch: Batch,
  candidates: Candidates,
): TestedTree {
  const expanded = withCandidates(s, candidates);
  if (measure === 'batch') {
    const [loss, g] = valueAndGrad((a: Pairs) => mean(sampleLosses(o, a, base, batch)))(expanded);
    return { loss, g };
  }
  const one = (a: Pairs, sample: Batch): Tensor => {
    const alone = Object.fromEntries(Object.entries(sample).map(([k, x]) => [k, unsqueeze(x, 0)])) as Batch;
    return sum(sampleLosses(o, a, base, alone));
  };
  const [losses, g] = vmap(
    (a: Pairs, sample: Batch) => valueAndGrad((p: Pairs) => one(p, sample))(a) as [Tensor, Pairs],
    [null, 0],
  )(expanded, batch);
  const overSamples = (f: (x: Tensor) => Tensor): Pairs =>
    mapModules(({ A, B }: Adapter): Adapter => ({ A: f(A), B: f(B) }), g);
  return {
    loss: mean(losses),
    g: overSamples((x) => mean(x, 0)),
    ...(measure === 'natural'
      ? { squares: overSamples((x) => mean(mul(x, x), 0)) }
      : { fisher: mapModules((x: Adapter) => fisherByRank(x), g) }),
  };
}

/** What the decisions are made from, by module and rank. */
export function measured(measure: Measure, t: Tested): FisherSums {
  if (measure === 'batch') return mapModules(squaresByRank, t.g);
  if (measure === 'natural')
    return mapModules((x: Adapter, path, network) => naturalByRank(x, t.squares![network][path]!), t.g);
  if (measure === 'fisher') return t.fisher!;
  return mapModules((x, path, network) => ({ ...x, signal: squaresByRank(t.g[network][path]!).b }), t.fisher!);
}

/** x·(1 − share) + y·share on every leaf: the means over two sets of samples as the mean over both. */
export function combine<P>(x: P, y: P, share: Tensor): P {
  const [xs, ys] = [leaves(x as never) as Tensor[], leaves(y as never) as Tensor[]];
  const out = xs.map((a, i) => add(mul(a, sub(1, share)), mul(ys[i]!, share)));
  return unflatten(x, out);
}
