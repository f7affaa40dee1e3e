/**
 * The compiled programs of a run: the training step, the same step with the expansion test in its backward pass, and the
 * validation loss. State is padded to one capacity per network, so that growing a rank changes values, not shapes.
 */
import {
  add,
  type Backend,
  type Compiled,
  compile,
  dot,
  leaves,
  mean,
  mul,
  reshape,
  sub,
  sum,
  type Tensor,
  tensor,
  unflatten,
  unsqueeze,
  valueAndGrad,
  vmap,
} from '../core/index.ts';
import { type TextEncoder, textEncoder } from '../models/clip/text-encoder.ts';
import type { TextEncoderConfig, UNetConfig } from '../models/config.ts';
import { type UNet, unet } from '../models/unet/index.ts';
import type { Adapter, Adapters } from '../selora/adapter.ts';
import { attach } from '../selora/attach.ts';
import { fisherByRank } from '../selora/fisher.ts';
import { type AdamOptions, adamUpdate, clipFactor, globalNorm } from './optimizer.ts';

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
  /** token ids [b,77] */
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
/** squared per-sample gradients, averaged over samples and summed by rank (eq. 3) */
export type FisherSums = PerNetwork<{ readonly [path: string]: { readonly a: Tensor; readonly b: Tensor } }>;

export interface StepOptions {
  readonly backend: Backend;
  readonly configs: { readonly unet: UNetConfig; readonly text: TextEncoderConfig };
  readonly scale: number;
  readonly adam: AdamOptions;
  /** limit of the global gradient norm, 0 for none */
  readonly clip: number;
  readonly checkpointBlocks: boolean;
}

type Pairs = PerNetwork<Adapters>;
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

/** per-sample losses [b]: weight·mean (prediction − target)² */
function sampleLosses(o: StepOptions, adapters: Pairs, base: Frozen, batch: Batch): Tensor {
  const encode = () => textEncoder(attach(base.text, adapters.text, o.scale), o.configs.text, batch.ids);
  const context = batch.context ?? encode().lastHiddenState;
  const net = attach(base.unet, adapters.unet, o.scale);
  const d = sub(
    unet(net, o.configs.unet, batch.x, batch.t, context, { checkpointBlocks: o.checkpointBlocks }),
    batch.target,
  );
  return mul(mean(mul(d, d), [1, 2, 3]), batch.weight);
}

/** Adam on every module; a frozen slot row (the candidate's) gets no update. */
function update(o: StepOptions, s: State, g: Pairs, hyper: Hyper): { readonly state: State; readonly norm: Tensor } {
  const norm = globalNorm(leaves<Tensor>(g));
  const factor = o.clip > 0 ? clipFactor(norm, o.clip) : 1;
  const state = mapModules((slot: Slot, path, network): Slot => {
    const { A: gA, B: gB } = g[network][path]!;
    const lr = hyper[network];
    const a = adamUpdate(
      slot.A,
      mul(gA, factor),
      { m: slot.mA, v: slot.vA },
      reshape(slot.age, [1, slot.age.shape[0]!]),
      lr,
      o.adam,
    );
    const b = adamUpdate(
      slot.B,
      mul(gB, factor),
      { m: slot.mB, v: slot.vB },
      reshape(slot.age, [slot.age.shape[0]!, 1]),
      lr,
      o.adam,
    );
    return { A: a.p, mA: a.m, vA: a.v, B: b.p, mB: b.m, vB: b.v, age: add(slot.age, 1) };
  }, s);
  return { state, norm };
}

const outer = (K: Tensor, slot: Tensor): Tensor =>
  reshape(dot(reshape(K, [1, K.shape[0]!, 1]), reshape(slot, [1, 1, slot.shape[1]!])), [K.shape[0]!, slot.shape[1]!]);
/** A with the candidate in its free column */
const withCandidate = (a: Adapter, c: { readonly K: Tensor; readonly slot: Tensor }): Adapter => ({
  A: add(a.A, outer(c.K, c.slot)),
  B: a.B,
});

/** Gradients of the mean loss over the batch. */
function gradients(o: StepOptions, s: State, base: Frozen, batch: Batch): [Tensor, Pairs] {
  return valueAndGrad((a: Pairs) => mean(sampleLosses(o, a, base, batch)))(adaptersOf(s));
}

/**
 * The same with the expansion test: per-sample gradients by vmap(grad) of the adapters with the candidates in place, whose
 * mean is the batch gradient and whose squares are the Fisher sums. The candidate's row of B takes no part in the update.
 */
function testedGradients(
  o: StepOptions,
  s: State,
  base: Frozen,
  batch: Batch,
  candidates: Candidates,
): [Tensor, Pairs, FisherSums] {
  const expanded = mapModules(
    (a: Adapter, path, network) => withCandidate(a, candidates[network][path]!),
    adaptersOf(s),
  );
  const one = (a: Pairs, sample: Batch): Tensor => {
    const alone = Object.fromEntries(Object.entries(sample).map(([k, x]) => [k, unsqueeze(x, 0)])) as Batch;
    return sum(sampleLosses(o, a, base, alone));
  };
  const [losses, g] = vmap(
    (a: Pairs, sample: Batch) => valueAndGrad((p: Pairs) => one(p, sample))(a) as [Tensor, Pairs],
    [null, 0],
  )(expanded, batch);
  const sums = mapModules((x: Adapter) => fisherByRank(x), g);
  const means = mapModules((x: Adapter, path, network): Adapter => {
    const keep = sub(1, candidates[network][path]!.slot);
    return { A: mean(x.A, 0), B: mul(mean(x.B, 0), reshape(keep, [keep.shape[1]!, 1])) };
  }, g);
  return [mean(losses), means, sums];
}

export interface Steps {
  /** one update from one batch */
  readonly plain: Compiled<
    [s: State, base: Frozen, batch: Batch, hyper: Hyper],
    { readonly state: State; readonly loss: Tensor; readonly norm: Tensor }
  >;
  /** one update from one batch, and the Fisher sums of the same backward pass */
  readonly tested: Compiled<
    [s: State, base: Frozen, batch: Batch, hyper: Hyper, c: Candidates],
    { readonly state: State; readonly loss: Tensor; readonly norm: Tensor; readonly sums: FisherSums }
  >;
  /** loss and gradients of one micro-batch */
  readonly part: Compiled<[s: State, base: Frozen, batch: Batch], { readonly loss: Tensor; readonly g: Pairs }>;
  /** the same with the Fisher sums */
  readonly testedPart: Compiled<
    [s: State, base: Frozen, batch: Batch, c: Candidates],
    { readonly loss: Tensor; readonly g: Pairs; readonly sums: FisherSums }
  >;
  /** one update from several micro-batches: equals the update from their union */
  readonly accumulated: (
    s: State,
    base: Frozen,
    batches: readonly Batch[],
    hyper: Hyper,
    c?: Candidates,
  ) => { readonly state: State; readonly loss: Tensor; readonly norm: Tensor; readonly sums?: FisherSums };
  /** puts accepted candidates into A: `slot` is the one-hot row of an accepted module, zeros for the others */
  readonly install: (s: State, c: Candidates) => State;
  /** losses [b] of a batch, each times its weight */
  readonly losses: Compiled<[a: Pairs, base: Frozen, batch: Batch], Tensor>;
  /** gives back the programs of shapes that are over */
  readonly trim: () => void;
}

export function createSteps(o: StepOptions): Steps {
  const { backend } = o;
  const plain = compile(
    (s: State, base: Frozen, batch: Batch, hyper: Hyper) => {
      const [loss, g] = gradients(o, s, base, batch);
      return { ...update(o, s, g, hyper), loss };
    },
    { backend, donate: [0], name: 'training step' },
  );
  const tested = compile(
    (s: State, base: Frozen, batch: Batch, hyper: Hyper, c: Candidates) => {
      const [loss, g, sums] = testedGradients(o, s, base, batch, c);
      return { ...update(o, s, g, hyper), loss, sums };
    },
    { backend, donate: [0], name: 'training step with test' },
  );
  const part = compile(
    (s: State, base: Frozen, batch: Batch) => {
      const [loss, g] = gradients(o, s, base, batch);
      return { loss, g };
    },
    { backend, name: 'micro-batch' },
  );
  const testedPart = compile(
    (s: State, base: Frozen, batch: Batch, c: Candidates) => {
      const [loss, g, sums] = testedGradients(o, s, base, batch, c);
      return { loss, g, sums };
    },
    { backend, name: 'micro-batch with test' },
  );
  type Part = { readonly loss: Tensor; readonly g: Pairs; readonly sums?: FisherSums };
  const average = compile((x: Part, y: Part, share: Tensor) => combine(x, y, share), {
    backend,
    donate: [0],
    name: 'accumulate',
  });
  const apply = compile((s: State, g: Pairs, hyper: Hyper) => update(o, s, g, hyper), {
    backend,
    donate: [0],
    name: 'update',
  });
  const install = compile(
    (s: State, c: Candidates) =>
      mapModules((slot: Slot, path, network): Slot => {
        const { K, slot: at } = c[network][path]!;
        // the new rank starts at age 0, its moments are zero already
        return { ...slot, A: add(slot.A, outer(K, at)), age: mul(slot.age, sub(1, reshape(at, slot.age.shape))) };
      }, s),
    { backend, donate: [0], name: 'install' },
  );
  const losses = compile((a: Pairs, base: Frozen, batch: Batch) => sampleLosses(o, a, base, batch), {
    backend,
    name: 'validation',
  });
  return {
    plain,
    tested,
    part,
    testedPart,
    accumulated(s, base, batches, hyper, c) {
      let total: Part | undefined;
      for (const [i, b] of batches.entries()) {
        const p: Part = c ? testedPart(s, base, b, c) : part(s, base, b);
        // running mean: total·i/(i+1) + p/(i+1)
        total = total ? average(total, p, tensor(1 / (i + 1), [], p.loss.dtype)) : p;
      }
      const { state, norm } = apply(s, total!.g, hyper);
      return { state, norm, loss: total!.loss, ...(total!.sums ? { sums: total!.sums } : {}) };
    },
    install,
    losses,
    trim: () => {
      for (const p of [plain, tested, part, testedPart, average, apply, install, losses]) p.trim();
    },
  };
}

/** x·(1 − share) + y·share on every leaf */
function combine<P>(x: P, y: P, share: Tensor): P {
  const [xs, ys] = [leaves(x as never) as Tensor[], leaves(y as never) as Tensor[]];
  const out = xs.map((a, i) => add(mul(a, sub(1, share)), mul(ys[i]!, share)));
  return unflatten(x, out);
}
