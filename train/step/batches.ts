/** The batches of every step, and the validation grid: pure functions of seed and step. */
import { randomOf, type SeedKey, seedKey, subkey, tensor } from '../../core/index.ts';
import { idsTensor } from '../../models/clip/text-encoder.ts';
import { addNoise, type Schedule, trainingTarget } from '../../models/schedulers/index.ts';
import { lossWeights } from '../../models/schedulers/loss-weights.ts';
import { offsetNoise } from '../../models/schedulers/noise-offset.ts';
import type { RunConfig } from '../config/config.ts';
import type { Contexts } from '../model/contexts.ts';
import type { Encoded } from '../model/encode.ts';
import type { Batch } from './state.ts';

/** samples of the validation grid measured at a time */
export const VALIDATION_BATCH = 16;

export interface BatchSource {
  /** the batch of a step, cut into micro-batches: a pure function of seed, step and whether it tests */
  readonly training: (step: number, testing?: boolean) => Batch[];
  /** micro-batches that only the scores of a step's test see (--fi-batches): pairs and timesteps drawn for themselves */
  readonly extra: (step: number) => Batch[];
  /** the samples of a step's test in the order of its batches, those of `extra` last */
  readonly tested: (step: number) => readonly { readonly report: string; readonly t: number }[];
  /** the fixed noise/timestep grid over validation pairs; `shuffled` gives each picture its neighbour's report */
  readonly validation: (pairs: readonly Encoded[], shuffled: boolean) => Batch[];
  /** its timesteps, the same for every picture */
  readonly grid: readonly number[];
}

/** thousandths of the schedule; the last one is where only the words can tell */
export const VALIDATION_GRID = [125, 375, 625, 875, 975];

/** ε of one picture [h·w, c] with each channel shifted; z are its latents, `normal` one number per channel. */
function shifted(noise: Float32Array, z: Float32Array, normal: Float32Array, c: RunConfig): Float32Array {
  const [channels, area] = [normal.length, noise.length / normal.length];
  const planes = (x: Float32Array) => x.map((_, i) => x[(i % area) * channels + Math.floor(i / area)]!);
  const settings = { offset: c.noiseOffset, adaptive: c.noiseOffsetAdaptive };
  const moved = offsetNoise(planes(noise), normal, planes(z), settings);
  return noise.map((_, i) => moved[(i % channels) * area + Math.floor(i / channels)]!);
}

const sizeKey = ({ latent }: Encoded): string => `${latent}`;

/**
 * Batches of one size each: every epoch each bucket is shuffled and cut into batches, the last one filled up from the
 * bucket's start, and the batches of all are shuffled.
 */
function bucketOrder(c: RunConfig, pairs: readonly Encoded[]): (step: number) => readonly Encoded[] {
  const groups = [...new Set(pairs.map(sizeKey))].sort().map((size) => pairs.filter((pair) => sizeKey(pair) === size));
  const perEpoch = groups.reduce((sum, group) => sum + Math.ceil(group.length / c.batch), 0);
  let known: { readonly epoch: number; readonly batches: readonly (readonly Encoded[])[] } | undefined;
  return (step) => {
    const epoch = Math.floor(step / perEpoch);
    if (known?.epoch !== epoch) {
      const random = randomOf(subkey(subkey(seedKey(c.seed), 'buckets'), epoch));
      const batches = groups.flatMap((group) => {
        const mixed = random.shuffle(group);
        return Array.from({ length: Math.ceil(mixed.length / c.batch) }, (_, k) =>
          Array.from({ length: c.batch }, (_, b) => mixed[(k * c.batch + b) % mixed.length]!),
        );
      });
      known = { epoch, batches: random.shuffle(batches) };
    }
    return known.batches[step % perEpoch]!;
  };
}

/** A list whose items are made when they are first asked for: of many micro-batches a process may need one. */
function whenAsked<T>(count: number, make: (i: number) => T): T[] {
  const list = new Array<T>(count);
  for (let i = 0; i < count; i++)
    Object.defineProperty(list, i, {
      configurable: true,
      enumerable: true,
      get: () => {
        const value = make(i);
        Object.defineProperty(list, i, { value, enumerable: true });
        return value;
      },
    });
  return list;
}

/** @param shared among processes: a micro-batch is made when it is asked for */
export function batchSource(
  c: RunConfig,
  schedule: Schedule,
  pairs: readonly Encoded[],
  latent: readonly [number, number, number],
  empty: Int32Array,
  steps: number,
  contexts?: Contexts,
  shared = false,
): BatchSource {
  const ch = latent[2];
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
  const buckets = pairs.some(({ latent }) => latent !== undefined) ? bucketOrder(c, pairs) : undefined;
  /** the pair of place b in a step */
  const pairOf = (step: number, b: number): Encoded => {
    if (buckets) return buckets(step)[b]!;
    const at = step * c.batch + b;
    return pairs[order(Math.floor(at / pairs.length))[at % pairs.length]!]!;
  };
  /** pairs of a batch that only scores see: any, or any of the first one's size */
  const scored = (key: SeedKey): ((b: number) => Encoded) => {
    const drawn = (b: number, from: readonly Encoded[]) =>
      from[randomOf(subkey(subkey(key, b), 'pair')).int(from.length)]!;
    if (!buckets) return (b) => drawn(b, pairs);
    const size = sizeKey(drawn(0, pairs));
    const same = pairs.filter((pair) => sizeKey(pair) === size);
    return (b) => drawn(b, same);
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
    // a batch is of one size
    const [h, w] = items[0]!.pair.latent ?? latent;
    const each = h * w * ch;
    const [z, noise] = [new Float32Array(n * each), new Float32Array(n * each)];
    const [t, weight] = [new Float32Array(n), new Float32Array(n)];
    for (const [i, item] of items.entries()) {
      const r = randomOf(item.key);
      for (let j = 0; j < each; j++) {
        z[i * each + j] = item.pair.mean[j]! + (item.sample ? item.pair.std[j]! * r.normal() : 0);
        noise[i * each + j] = r.normal();
      }
      if (item.sample && c.noiseOffset > 0) {
        const offsets = randomOf(subkey(item.key, 'offset'));
        const normal = Float32Array.from({ length: ch }, () => offsets.normal());
        const [from, to] = [i * each, (i + 1) * each];
        noise.set(shifted(noise.subarray(from, to), z.subarray(from, to), normal, c), from);
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
  type Draw = readonly [step: number, key: SeedKey, pairAt: (b: number) => Encoded, stratified: boolean];
  /** samples of one batch; the pair of each place by `pairAt`. Stratified: place b gets its timestep from the b-th of equal layers. */
  const drawItems = (...[step, key, pairAt, stratified]: Draw) =>
    Array.from({ length: c.batch }, (_, b) => {
      const pair = pairAt(b);
      const one = subkey(key, b);
      const r = randomOf(subkey(one, 'choices'));
      const drawn = r.chance(highShare(step)) ? top + r.int(schedule.length - top) : r.int(schedule.length);
      const ids = r.chance(c.captionDropout) ? empty : pair.ids;
      const t = stratified ? timestepAt((b + randomOf(subkey(one, 'layer')).uniform()) / c.batch, step) : drawn;
      return { pair, ids, t, key: subkey(one, 'noise'), weight: weights[t]!, sample: true };
    });
  const drawBatch = (...draw: Draw): Batch[] => {
    const size = c.batch / c.accumulate;
    const items = drawItems(...draw);
    const one = (m: number) => make(items.slice(m * size, (m + 1) * size));
    return shared ? whenAsked(c.accumulate, one) : Array.from({ length: c.accumulate }, (_, m) => one(m));
  };
  const stratified = c.fiTimesteps === 'stratified';
  const grid = VALIDATION_GRID.map((t) => Math.min(last, Math.round((t / 1000) * (last + 1))));
  const own = (step: number, testing: boolean): Draw => [
    step,
    subkey(subkey(root, 'step'), step),
    (b) => pairOf(step, b),
    testing && stratified,
  ];
  const others = (step: number): readonly Draw[] =>
    Array.from({ length: c.fiBatches - 1 }, (_, k) => {
      const key = subkey(subkey(subkey(root, 'scores'), step), k);
      return [step, key, scored(key), stratified];
    });
  return {
    training: (step, testing = false) => drawBatch(...own(step, testing)),
    extra: (step) => others(step).flatMap((draw) => drawBatch(...draw)),
    tested: (step) =>
      [own(step, true), ...others(step)].flatMap((draw) =>
        drawItems(...draw).map(({ pair, t }) => ({ report: pair.id, t })),
      ),
    grid,
    validation(set, shuffled) {
      const items = set.flatMap((pair, i) =>
        grid.map((t, k) => ({
          pair,
          ids: shuffled ? set[(i + 1) % set.length]!.ids : pair.ids,
          t,
          key: subkey(subkey(subkey(root, 'validation'), pair.id), k),
          weight: 1,
          sample: false,
        })),
      );
      // of several sizes: a picture at a time, so that a batch is of one
      const mixed = set.some(({ latent }) => latent !== undefined);
      const size = Math.min(mixed ? VALIDATION_GRID.length : VALIDATION_BATCH, items.length);
      const out: Batch[] = [];
      for (let from = 0; from < items.length; from += size) out.push(make(items.slice(from, from + size)));
      return out;
    },
  };
}
