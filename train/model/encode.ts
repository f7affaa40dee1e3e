/** What the loop trains on: pairs with token ids and the VAE's posterior, made once; and the batches of every step. */
import {
  type Backend,
  compile,
  exp,
  mul,
  randomOf,
  read,
  type SeedKey,
  seedKey,
  subkey,
  type Tensor,
  tensor,
} from '../../core/index.ts';
import { idsTensor } from '../../models/clip/text-encoder.ts';
import type { Tokenizer } from '../../models/clip/tokenizer.ts';
import type { VaeConfig } from '../../models/config.ts';
import { addNoise, type Schedule, trainingTarget } from '../../models/schedulers/index.ts';
import { lossWeights } from '../../models/schedulers/loss-weights.ts';
import { type Vae, vaeEncode } from '../../models/vae/index.ts';
import type { RunConfig } from '../config/config.ts';
import type { Batch } from '../step/step.ts';
import type { Contexts } from './contexts.ts';

/** A picture with its text, before any model has seen it. */
export interface Pair {
  readonly id: string;
  readonly text: string;
  /** RGB [side, side, 3] in [−1, 1] */
  readonly pixels: () => Promise<Float32Array>;
}
/** A pair as the loop needs it: latents are mean + std·noise, times the scaling factor (already applied). */
export interface Encoded {
  readonly id: string;
  readonly text: string;
  /** 77 of each chunk */
  readonly ids: Int32Array;
  readonly cut: boolean;
  readonly mean: Float32Array;
  readonly std: Float32Array;
}

/** pictures encoded at a time: about half a million pixels */
export const pairsPerEncoding = (side: number): number => Math.max(1, Math.min(8, Math.floor(2 ** 19 / (side * side))));
/** samples of the validation grid measured at a time */
export const VALIDATION_BATCH = 16;

/** Pictures [n, h, w, 3] → mean and deviation of their scaled latents. */
export const encodeProgram = (backend: Backend, config: VaeConfig) =>
  compile(
    (p: Vae, x: Tensor) => {
      const [q, s] = [vaeEncode(p, config, x), config.scaling_factor];
      return { mean: mul(q.mean, s), std: mul(exp(mul(q.logvar, 0.5)), s) };
    },
    { backend, name: 'encode' },
  );

/** Encodes pictures and texts once; the posterior is kept, so every step still draws a fresh sample. */
export async function encodePairs(
  backend: Backend,
  vae: Vae,
  config: VaeConfig,
  tokenizer: Tokenizer,
  pairs: readonly Pair[],
  side: number,
  {
    captionChunks = 1,
    onProgress,
  }: { readonly captionChunks?: number; readonly onProgress?: (done: number, of: number) => void } = {},
): Promise<Encoded[]> {
  const encode = encodeProgram(backend, config);
  const out: Encoded[] = [];
  const group = pairsPerEncoding(side);
  for (let from = 0; from < pairs.length; from += group) {
    const some = pairs.slice(from, from + group);
    const x = new Float32Array(some.length * side * side * 3);
    for (const [i, p] of some.entries()) x.set(await p.pixels(), i * side * side * 3);
    const q = encode(vae, tensor(x, [some.length, side, side, 3]));
    const [mean, std] = [(await read(q.mean)) as Float32Array, (await read(q.std)) as Float32Array];
    const each = mean.length / some.length;
    for (const [i, p] of some.entries()) {
      const { ids, cut } = tokenizer.encode(p.text, captionChunks);
      out.push({
        id: p.id,
        text: p.text,
        ids,
        cut,
        mean: mean.slice(i * each, (i + 1) * each),
        std: std.slice(i * each, (i + 1) * each),
      });
    }
    onProgress?.(out.length, pairs.length);
  }
  encode.trim();
  return out;
}

export interface BatchSource {
  /** the batch of a step, cut into micro-batches: a pure function of seed, step and whether it tests */
  readonly training: (step: number, testing?: boolean) => Batch[];
  /** micro-batches that only the scores of a step's test see (--fi-batches): pairs and timesteps drawn for themselves */
  readonly extra: (step: number) => Batch[];
  /** the fixed noise/timestep grid over validation pairs; `shuffled` gives each picture its neighbour's report */
  readonly validation: (pairs: readonly Encoded[], shuffled: boolean) => Batch[];
}

/** thousandths of the schedule; the last one is where only the words can tell */
export const VALIDATION_GRID = [125, 375, 625, 875, 975];

export function batchSource(
  c: RunConfig,
  schedule: Schedule,
  pairs: readonly Encoded[],
  latent: readonly [number, number, number],
  empty: Int32Array,
  steps: number,
  contexts?: Contexts,
): BatchSource {
  const [h, w, ch] = latent;
  const each = h * w * ch;
  const prediction = schedule.config.prediction_type;
  const weights = lossWeights(
    {
      name: c.lossWeight,
      ...(c.gamma ? { gamma: c.gamma } : {}),
      ...(c.lossLow !== undefined ? { low: c.lossLow } : {}),
      ...(c.lossHigh ? { high: c.lossHigh } : {}),
    },
    prediction,
    schedule.alphasCumprod.map((a) => a / (1 - a)),
  );
  const last = schedule.length - 1;
  /** the top tenth of the timesteps begins here: 900 of 0–999 */
  const top = Math.floor(schedule.length * 0.9);
  const root = seedKey(c.seed);
  const orders = new Map<number, readonly number[]>();
  const order = (epoch: number): readonly number[] => {
    let o = orders.get(epoch);
    if (!o) {
      o = randomOf(subkey(subkey(root, 'order'), epoch)).shuffle(pairs.map((_, i) => i));
      orders.clear();
      orders.set(epoch, o);
    }
    return o;
  };
  /** share of timesteps drawn from the top tenth */
  const highShare = (step: number): number =>
    c.timesteps === 'uniform' ? 0 : c.timesteps === 'high' ? 0.6 : step < steps * 0.6 ? 0.6 : 0.2;

  const make = (
    items: readonly {
      readonly pair: Encoded;
      readonly ids: Int32Array;
      readonly t: number;
      readonly key: SeedKey;
      readonly weight: number;
      readonly sample: boolean;
    }[],
  ): Batch => {
    const n = items.length;
    const [z, noise] = [new Float32Array(n * each), new Float32Array(n * each)];
    const [t, weight] = [new Float32Array(n), new Float32Array(n)];
    for (const [i, item] of items.entries()) {
      const r = randomOf(item.key);
      for (let j = 0; j < each; j++) {
        z[i * each + j] = item.pair.mean[j]! + (item.sample ? item.pair.std[j]! * r.normal() : 0);
        noise[i * each + j] = r.normal();
      }
      t[i] = item.t;
      weight[i] = item.weight;
    }
    const shape = [n, h, w, ch];
    const texts = items.map((item) => item.ids);
    return {
      ...(contexts ? { context: contexts(texts) } : {}),
      x: tensor(addNoise(schedule, z, noise, t) as Float32Array, shape),
      t: tensor(t),
      ids: idsTensor(texts, c.captionChunks),
      target: tensor(trainingTarget(schedule, z, noise, t) as Float32Array, shape),
      weight: tensor(weight),
    };
  };
  /** a timestep whose place in the distribution of a step is u in [0, 1) */
  const timestepAt = (u: number, step: number): number => {
    const high = highShare(step);
    const low = (1 - high) * (top / schedule.length);
    return u < low
      ? Math.floor((u / low) * top)
      : Math.min(last, top + Math.floor(((u - low) / (1 - low)) * (schedule.length - top)));
  };
  /** one batch; the pair of each place by `pairAt`. Stratified: place b gets its timestep from the b-th of equal layers. */
  const drawBatch = (step: number, key: SeedKey, pairAt: (b: number) => Encoded, stratified: boolean): Batch[] => {
    const size = c.batch / c.accumulate;
    const items = Array.from({ length: c.batch }, (_, b) => {
      const pair = pairAt(b);
      const one = subkey(key, b);
      const r = randomOf(subkey(one, 'choices'));
      const drawn = r.chance(highShare(step)) ? top + r.int(schedule.length - top) : r.int(schedule.length);
      const ids = r.chance(c.captionDropout) ? empty : pair.ids;
      const t = stratified ? timestepAt((b + randomOf(subkey(one, 'layer')).uniform()) / c.batch, step) : drawn;
      return { pair, ids, t, key: subkey(one, 'noise'), weight: weights[t]!, sample: true };
    });
    return Array.from({ length: c.accumulate }, (_, m) => make(items.slice(m * size, (m + 1) * size)));
  };
  const stratified = c.fiTimesteps === 'stratified';
  return {
    training: (step, testing = false) =>
      drawBatch(
        step,
        subkey(subkey(root, 'step'), step),
        (b) => {
          const at = step * c.batch + b;
          return pairs[order(Math.floor(at / pairs.length))[at % pairs.length]!]!;
        },
        testing && stratified,
      ),
    extra: (step) =>
      Array.from({ length: c.fiBatches - 1 }, (_, k) => {
        const key = subkey(subkey(subkey(root, 'scores'), step), k);
        return drawBatch(
          step,
          key,
          (b) => pairs[randomOf(subkey(subkey(key, b), 'pair')).int(pairs.length)]!,
          stratified,
        );
      }).flat(),
    validation(set, shuffled) {
      const items = set.flatMap((pair, i) =>
        VALIDATION_GRID.map((t, k) => ({
          pair,
          ids: shuffled ? set[(i + 1) % set.length]!.ids : pair.ids,
          t: Math.min(last, Math.round((t / 1000) * (last + 1))),
          key: subkey(subkey(subkey(root, 'validation'), pair.id), k),
          weight: 1,
          sample: false,
        })),
      );
      const size = Math.min(VALIDATION_BATCH, items.length);
      const out: Batch[] = [];
      for (let from = 0; from < items.length; from += size) out.push(make(items.slice(from, from + size)));
      return out;
    },
  };
}
