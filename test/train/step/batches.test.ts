/** Batches are pure functions of seed and step, with the shares they promise; the validation grid never moves. */
import { describe, expect, test } from 'vitest';
import { read, type Tensor } from '../../../core/index.ts';
import { makeSchedule, parseSchedulerConfig, SD15_SCHEDULER } from '../../../models/schedulers/index.ts';
import { lossWeights } from '../../../models/schedulers/loss-weights.ts';
import type { RunConfig } from '../../../train/config/config.ts';
import { resolveConfig } from '../../../train/config/resolve.ts';
import type { Encoded } from '../../../train/model/encode.ts';
import { batchSource } from '../../../train/step/batches.ts';
import type { Batch } from '../../../train/step/step.ts';

const LATENT = [2, 2, 1] as const;
const EACH = 4;
const LENGTH = 3;
const EMPTY = Int32Array.of(0, 9, 9);
const schedule = makeSchedule(parseSchedulerConfig(SD15_SCHEDULER, 'scheduler_config.json'));
const vSchedule = makeSchedule(
  parseSchedulerConfig({ ...SD15_SCHEDULER, prediction_type: 'v_prediction' }, 'scheduler_config.json'),
);

/** pair k has latent mean 100·(k + 1), so that z gives it away, and ids that name it */
const pairs = (n: number, std = 0): Encoded[] =>
  Array.from({ length: n }, (_, k) => ({
    id: `pair ${k}`,
    text: `text ${k}`,
    ids: Int32Array.of(1, k + 10, 9),
    cut: false,
    mean: new Float32Array(EACH).fill(100 * (k + 1)),
    std: new Float32Array(EACH).fill(std),
  }));
const source = (extra: Partial<RunConfig> = {}, n = 10, std = 0, steps = 1000, s = schedule) =>
  batchSource({ ...resolveConfig({ data: 'x', batch: 4 }), ...extra }, s, pairs(n, std), LATENT, EMPTY, steps);

type Field = 'x' | 't' | 'ids' | 'target' | 'weight';
type Host = { readonly [name in Field]: number[] };
const host = async (b: Batch): Promise<Host> => {
  const of = async (t: Tensor) => Array.from(await read(t));
  return {
    x: await of(b.x),
    t: await of(b.t),
    ids: await of(b.ids),
    target: await of(b.target),
    weight: await of(b.weight),
  };
};
/** z of every sample from x = √ᾱ·z + √(1−ᾱ)·ε, target = ε */
const latents = ({ x, t, target }: Host): number[] =>
  t.map((step, i) => {
    const a = schedule.alphasCumprod[step]!;
    return (x[i * EACH]! - Math.sqrt(1 - a) * target[i * EACH]!) / Math.sqrt(a);
  });
const many = async (s: ReturnType<typeof source>, steps: number, from = 0): Promise<Host[]> =>
  Promise.all(Array.from({ length: steps }, (_, k) => host(s.training(from + k)[0]!)));

test('micro-batches that are shared are made when they are asked for, and are the same', async () => {
  const c = { ...resolveConfig({ data: 'x', batch: 4 }), accumulate: 4, fiBatches: 2 };
  const of = (shared: boolean) => batchSource(c, schedule, pairs(10), LATENT, EMPTY, 10, undefined, shared);
  const [made, asked] = [of(false), of(true)];
  const list = asked.training(3);
  expect(list).toHaveLength(4);
  const third = list[2]!;
  expect(list[2]).toBe(third);
  expect(await Promise.all(list.map(host))).toEqual(await Promise.all(made.training(3).map(host)));
  expect(await Promise.all(asked.extra(3).map(host))).toEqual(await Promise.all(made.extra(3).map(host)));
});

describe('--noise-offset', () => {
  /** latents [2, 2, 2] of two channels whose means are 0 and 3 */
  const two = [2, 2, 2] as const;
  const pair: Encoded = {
    id: 'p',
    text: 't',
    ids: Int32Array.of(1, 10, 9),
    cut: false,
    mean: Float32Array.of(-1, 2, 1, 4, -2, 3, 2, 3),
    std: new Float32Array(8),
  };
  const noiseOf = async (extra: Partial<RunConfig>, which: 'training' | 'validation' = 'training') => {
    const s = batchSource({ ...resolveConfig({ data: 'x', batch: 3 }), ...extra }, schedule, [pair], two, EMPTY, 10);
    const [b] = which === 'training' ? s.training(4) : s.validation([pair], false);
    return Array.from(await read(b!.target));
  };
  test('moves each channel of a sample by one number, drawn aside from everything else', async () => {
    const [plain, moved] = [await noiseOf({}), await noiseOf({ noiseOffset: 0.1 })];
    const shifts = moved.map((x, i) => x - plain[i]!);
    for (let sample = 0; sample < 3; sample++)
      for (const channel of [0, 1]) {
        const of = [0, 1, 2, 3].map((at) => shifts[sample * 8 + at * 2 + channel]!);
        for (const d of of) expect(d).toBeCloseTo(of[0]!, 6);
      }
    expect(new Set([0, 1, 8, 9, 16, 17].map((i) => shifts[i]!.toFixed(5))).size).toBe(6);
    // twice the offset is twice the shift: the normals are the same
    const twice = (await noiseOf({ noiseOffset: 0.2 })).map((x, i) => x - plain[i]!);
    for (const [i, d] of shifts.entries()) expect(twice[i]).toBeCloseTo(2 * d, 5);
  });
  test('adaptive: a channel of mean 3 moves by 0.1 + 0.5·3, one of mean 0 as without', async () => {
    const [plain, a, b] = [
      await noiseOf({}),
      await noiseOf({ noiseOffset: 0.1 }),
      await noiseOf({ noiseOffset: 0.1, noiseOffsetAdaptive: 0.5 }),
    ];
    for (const i of [0, 8, 16]) expect(b[i]).toBe(a[i]);
    for (const i of [1, 9, 17]) expect((b[i]! - plain[i]!) / (a[i]! - plain[i]!)).toBeCloseTo(16, 3);
  });
  test('the validation grid stays, and 0 changes no bit', async () => {
    expect(await noiseOf({ noiseOffset: 0.3 }, 'validation')).toEqual(await noiseOf({}, 'validation'));
    expect(await noiseOf({ noiseOffset: 0 })).toEqual(await noiseOf({}));
  });
});

describe('training batches', () => {
  test('are pure functions of seed and step, in any order', async () => {
    const [a, b] = [source({ seed: 5 }, 7, 1), source({ seed: 5 }, 7, 1)];
    const forward = await many(a, 6);
    for (const k of [5, 0, 3, 3, 1]) expect(await host(b.training(k)[0]!)).toEqual(forward[k]);
    const other = await host(source({ seed: 6 }, 7, 1).training(0)[0]!);
    expect(other.x).not.toEqual(forward[0]!.x);
    expect(new Set(forward.map((f) => f.target.join())).size).toBe(6);
  });

  test('captions in chunks keep their ids, piece by piece', async () => {
    const [first] = source({ captionChunks: 3, batch: 4 }).training(0);
    expect(first!.ids.shape).toEqual([4, 3, LENGTH / 3]);
    expect(await read(first!.ids)).toEqual(await read(source({ batch: 4 }).training(0)[0]!.ids));
  });

  test('every epoch shows every pair once, each epoch in another order, batches run on across epochs', async () => {
    const s = source({ batch: 4, lossWeight: 'plain', timesteps: 'uniform' }, 10);
    const order = (await many(s, 15)).flatMap((b) => b.ids.filter((_, i) => i % LENGTH === 1).map((id) => id - 10));
    const epochs = Array.from({ length: 6 }, (_, e) => order.slice(e * 10, e * 10 + 10));
    for (const e of epochs) expect([...e].sort((p, q) => p - q)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(new Set(epochs.map((e) => e.join())).size).toBe(6);
  });

  test('a text stays with its picture', async () => {
    for (const b of await many(source(), 10))
      for (const [i, z] of latents(b).entries()) expect(Math.round(z / 100) - 1 + 10).toBe(b.ids[i * LENGTH + 1]);
  });

  test('the posterior is sampled afresh: mean and deviation are those of the pair', async () => {
    const s = source({ batch: 8 }, 1, 3);
    const z = (await many(s, 400)).flatMap(latents);
    const mean = z.reduce((p, v) => p + v, 0) / z.length;
    const deviation = Math.sqrt(z.reduce((p, v) => p + (v - mean) ** 2, 0) / z.length);
    // 3,200 draws: 4 standard errors
    expect(Math.abs(mean - 100)).toBeLessThan((4 * 3) / Math.sqrt(3200));
    expect(Math.abs(deviation / 3 - 1)).toBeLessThan(4 / Math.sqrt(2 * 3200));
  });

  test('the noise is standard normal and never repeated', async () => {
    const noise = (await many(source({ batch: 8 }), 200)).flatMap((b) => b.target);
    const n = noise.length;
    const moment = (k: number) => noise.reduce((p, v) => p + v ** k, 0) / n;
    expect(Math.abs(moment(1))).toBeLessThan(4 / Math.sqrt(n));
    expect(Math.abs(moment(2) - 1)).toBeLessThan(4 * Math.sqrt(2 / n));
    expect(Math.abs(moment(4) - 3)).toBeLessThan(4 * Math.sqrt(96 / n));
    expect(new Set(noise).size).toBeGreaterThan(n * 0.999);
  });

  test('x and target follow the schedule: ε and v', async () => {
    const [e, v] = [source(), source({}, 10, 0, 1000, vSchedule)];
    for (const k of [0, 1, 2]) {
      const [eps, vel] = [await host(e.training(k)[0]!), await host(v.training(k)[0]!)];
      expect(vel.x).toEqual(eps.x);
      for (const [i, z] of latents(eps).entries()) {
        const a = schedule.alphasCumprod[eps.t[i]!]!;
        const want = Math.sqrt(a) * eps.target[i * EACH]! - Math.sqrt(1 - a) * z;
        // z comes back through f32 values: at high t it is divided by √ᾱ ≈ 0.07
        expect(Math.abs(vel.target[i * EACH]! - want)).toBeLessThan(1e-4 * Math.max(100, Math.abs(z)));
      }
    }
  });

  test.each([
    ['plain', {}],
    ['clip-snr', { lossLow: 0.1, lossHigh: 3 }],
    ['min-snr', { gamma: 5 }],
  ] as const)('loss weights are in place: %s', async (lossWeight, extra) => {
    const table = lossWeights(
      {
        name: lossWeight,
        ...('gamma' in extra ? { gamma: extra.gamma } : {}),
        ...('lossLow' in extra ? { low: extra.lossLow, high: extra.lossHigh } : {}),
      },
      'epsilon',
      schedule.alphasCumprod.map((a) => a / (1 - a)),
    );
    for (const b of await many(source({ lossWeight, ...extra }), 20))
      expect(b.weight).toEqual(b.t.map((t) => Math.fround(table[t]!)));
  });

  test('micro-batches are the batch, cut', async () => {
    const [whole, cut] = [source({ batch: 6 }, 10, 1), source({ batch: 6, accumulate: 3 }, 10, 1)];
    const one = await host(whole.training(3)[0]!);
    const parts = await Promise.all(cut.training(3).map(host));
    expect(parts.map((p) => p.t.length)).toEqual([2, 2, 2]);
    for (const name of ['x', 't', 'ids', 'target', 'weight'] as const)
      expect(parts.flatMap((p) => p[name])).toEqual(one[name]);
  });
});

/** within 4.5 standard errors of a share p */
const share = (hits: number, n: number, p: number) =>
  expect(Math.abs(hits / n - p), `${hits} of ${n} for ${p}`).toBeLessThan(4.5 * Math.sqrt((p * (1 - p)) / n));

describe('batches of an expansion test', () => {
  const layers = (t: readonly number[], n: number) => t.map((x) => Math.floor((x / 1000) * n));
  test('stratified: one timestep from each of equally likely layers; other steps and other draws as always', async () => {
    const [plain, strata] = [source({ batch: 8 }), source({ batch: 8, fiTimesteps: 'stratified' })];
    for (let step = 0; step < 40; step++) {
      const one = await host(strata.training(step, true)[0]!);
      expect(layers(one.t, 8)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
      const drawn = await host(plain.training(step, true)[0]!);
      expect(one.ids).toEqual(drawn.ids);
      expect(drawn).toEqual(await host(plain.training(step)[0]!));
      expect(await host(strata.training(step)[0]!)).toEqual(drawn);
    }
  });
  test('stratified high timesteps: 60% and a tenth of the rest from 900 up, as when drawn one by one', async () => {
    const s = source({ batch: 100, fiTimesteps: 'stratified', timesteps: 'high' });
    for (let step = 0; step < 5; step++) {
      const { t } = await host(s.training(step, true)[0]!);
      // 0.6 + 0.4·0.1 of 100; the layer on the edge may fall on either side
      expect(Math.abs(t.filter((x) => x >= 900).length - 64)).toBeLessThanOrEqual(1);
      expect(t.every((x, i) => i === 0 || x >= t[i - 1]!)).toBe(true);
      expect(t.every((x) => Number.isInteger(x) && x >= 0 && x <= 999)).toBe(true);
    }
  });
  test('extra batches: as many as asked for, cut like the step, of pairs and noise of their own', async () => {
    expect(source().extra(3)).toEqual([]);
    const s = source({ fiBatches: 3, accumulate: 2 }, 10, 1);
    const extra = await Promise.all(s.extra(39).map(host));
    expect(extra.map((e) => e.t.length)).toEqual([2, 2, 2, 2]);
    expect(await Promise.all(s.extra(39).map(host))).toEqual(extra);
    const own = await Promise.all(s.training(39, true).map(host));
    expect(new Set([...extra, ...own].map((e) => e.target.join())).size).toBe(6);
    expect((await Promise.all(s.extra(40).map(host))).map((e) => e.target)).not.toEqual(extra.map((e) => e.target));
    // all pairs take part in the end
    const seen = new Set<number>();
    for (let k = 0; k < 40; k++)
      for (const e of await Promise.all(s.extra(k).map(host))) for (const id of e.ids) seen.add(id);
    for (let id = 10; id < 20; id++) expect(seen.has(id)).toBe(true);
  });
});

describe('shares', () => {
  const texts = (b: Host) => b.t.map((_, i) => b.ids.slice(i * LENGTH, (i + 1) * LENGTH).join());
  test('captions are dropped with the given probability, and dropped ones are the empty text', async () => {
    const dropped = async (captionDropout: number) => {
      const all = (await many(source({ captionDropout, batch: 8 }), 250)).flatMap(texts);
      return { n: all.length, hits: all.filter((t) => t === EMPTY.join()).length };
    };
    expect((await dropped(0)).hits).toBe(0);
    const one = await dropped(1);
    expect(one.hits).toBe(one.n);
    const { hits, n } = await dropped(0.1);
    share(hits, n, 0.1);
  });

  test('uniform timesteps: every tenth alike, both ends reached', async () => {
    const t = (await many(source({ timesteps: 'uniform', batch: 8 }), 1500)).flatMap((b) => b.t);
    for (let d = 0; d < 10; d++) share(t.filter((x) => Math.floor(x / 100) === d).length, t.length, 0.1);
    expect([Math.min(...t), Math.max(...t)]).toEqual([0, 999]);
  });

  test("high timesteps: 60% from 900–999, the rest from everywhere; 'mixed' goes down to 20% after 60% of the run", async () => {
    const tops = async (timesteps: 'high' | 'mixed', from: number) => {
      const t = (await many(source({ timesteps, batch: 8 }, 10, 0, 1000), 250, from)).flatMap((b) => b.t);
      expect(Math.min(...t)).toBeLessThan(50);
      return [t.filter((x) => x >= 900).length, t.length] as const;
    };
    for (const [timesteps, from, p] of [
      ['high', 0, 0.6],
      ['high', 700, 0.6],
      ['mixed', 0, 0.6],
      ['mixed', 700, 0.2],
    ] as const)
      share(...(await tops(timesteps, from)), p + (1 - p) * 0.1);
  });
});

describe('the validation grid', () => {
  const grid = async (s: ReturnType<typeof source>, set: readonly Encoded[], shuffled = false) => {
    const all = await Promise.all(s.validation(set, shuffled).map(host));
    const join = (name: Field) => all.flatMap((b) => b[name]);
    return { x: join('x'), t: join('t'), ids: join('ids'), target: join('target'), weight: join('weight') };
  };
  test('five timesteps for every pair, weight 1, no dropout, the mean of the posterior', async () => {
    const set = pairs(5, 2);
    const g = await grid(source({ captionDropout: 1, lossWeight: 'clip-snr' }), set);
    expect(g.t).toEqual(set.flatMap(() => [125, 375, 625, 875, 975]));
    expect(g.weight.every((w) => w === 1)).toBe(true);
    expect(g.ids.filter((_, i) => i % LENGTH === 1)).toEqual(set.flatMap((_, k) => [0, 1, 2, 3, 4].map(() => k + 10)));
    for (const [i, z] of latents(g).entries()) expect(z / (100 * (Math.floor(i / 5) + 1))).toBeCloseTo(1, 3);
  });
  test('is the same at every call and whatever the training does; a pair keeps its noise in another set', async () => {
    const set = pairs(6, 1);
    const first = await grid(source(), set);
    const trained = source({ batch: 8, lr: 1, captionDropout: 0.5, timesteps: 'high' }, 3, 1);
    trained.training(17);
    expect(await grid(trained, set)).toEqual(first);
    const some = await grid(source(), set.slice(2));
    expect(some.target).toEqual(first.target.slice(2 * 5 * EACH));
    expect(new Set(first.target).size).toBe(first.target.length);
    expect((await grid(source({ seed: 2 }), set)).target).not.toEqual(first.target);
  });
  test("shuffled gives every picture its neighbour's report and changes nothing else", async () => {
    const set = pairs(4);
    const [plain, shuffled] = [await grid(source(), set), await grid(source(), set, true)];
    expect({ ...shuffled, ids: plain.ids }).toEqual(plain);
    expect(shuffled.ids.filter((_, i) => i % LENGTH === 1)).toEqual(
      [1, 2, 3, 0].flatMap((k) => [0, 1, 2, 3, 4].map(() => k + 10)),
    );
  });
});
