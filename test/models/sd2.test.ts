/** Stable Diffusion 2.x from its single file: text tower, U-Net, autoencoder and samples against diffusers. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { cpuBackend, evaluate, read, type Tensor, tensor } from '../../core/index.ts';
import { textEncoder, textEncoderSpec } from '../../models/clip/text-encoder.ts';
import {
  type ModelConfigs,
  parseConfig,
  parseScheduler,
  textEncoderSchema,
  unetSchema,
  vaeSchema,
} from '../../models/config.ts';
import { openBase } from '../../models/io/base.ts';
import { openLdm } from '../../models/io/ldm.ts';
import { openSafetensors } from '../../models/io/safetensors.ts';
import { type TensorOut, writeSafetensors } from '../../models/io/safetensors-write.ts';
import { ddim } from '../../models/schedulers/ddim.ts';
import { runSampler } from '../../models/schedulers/sampler.ts';
import { makeSchedule, type Samples } from '../../models/schedulers/schedule.ts';
import { load } from '../../models/spec.ts';
import { unet, unetSpec } from '../../models/unet/index.ts';
import { vaeDecode, vaeSpec } from '../../models/vae/index.ts';
import { tokenizerOf } from '../../train/model/model.ts';
import { scratch } from '../support/scratch.ts';

const GOLDEN = join(import.meta.dirname, '../golden/sd2');
const FILE = join(GOLDEN, 'sd2-like.safetensors');
const golden = JSON.parse(readFileSync(join(GOLDEN, 'expected.json'), 'utf8')) as {
  readonly configs: Readonly<Record<'unet' | 'vae' | 'text_encoder' | 'scheduler', never>>;
  readonly ids: readonly (readonly number[])[];
  readonly timesteps: readonly number[];
} & Readonly<Record<'latents' | 'context' | 'v' | 'image' | 'sampled', readonly number[]>>;
const configs: ModelConfigs = {
  unet: parseConfig(unetSchema, golden.configs.unet, 'unet'),
  vae: parseConfig(vaeSchema, golden.configs.vae, 'vae'),
  textEncoder: parseConfig(textEncoderSchema, golden.configs.text_encoder, 'text'),
  scheduler: parseScheduler(golden.configs.scheduler, 'scheduler'),
};

const cpu = cpuBackend();
const numbers = async (x: Tensor) => Float64Array.from(await read(evaluate(x, cpu)));
/** [n, c, h, w] → [n, h, w, c] */
const toLast = (data: ArrayLike<number>, c = 4, h = 8, w = 8) =>
  Float64Array.from({ length: data.length }, (_, at) => {
    const [pixel, channel] = [Math.floor(at / c), at % c];
    return data[(Math.floor(pixel / (h * w)) * c + channel) * h * w + (pixel % (h * w))]!;
  });
const error = (got: ArrayLike<number>, wanted: ArrayLike<number>) => {
  expect(got.length).toBe(wanted.length);
  const scale = Array.from(wanted).reduce((most, y) => Math.max(most, Math.abs(y)), 0);
  return Array.from(wanted).reduce((most, y, at) => Math.max(most, Math.abs(y - got[at]!)), 0) / scale;
};

describe("a single file of Stable Diffusion 2's form, made by diffusers' own script", () => {
  let context: Tensor;
  let latents: Tensor;
  let network: (x: Tensor, t: readonly number[]) => Tensor;
  beforeAll(async () => {
    const parts = await openLdm(FILE, configs);
    const text = await load(textEncoderSpec(configs.textEncoder), parts.text_encoder, { dtype: 'f64' });
    context = textEncoder(
      text,
      configs.textEncoder,
      tensor(Int32Array.from(golden.ids.flat()), [2, 12]),
    ).lastHiddenState;
    latents = tensor(toLast(golden.latents), [2, 8, 8, 4], 'f64');
    const params = await load(unetSpec(configs.unet), parts.unet, { dtype: 'f64' });
    network = (x, t) => unet(params, configs.unet, x, tensor(Int32Array.from(t)), context);
  });
  it('the text tower: its last layer but one, after the final norm', async () => {
    expect(error(await numbers(context), golden.context)).toBeLessThan(1e-8);
  });
  // diffusers takes sines and cosines of the timestep in f32
  it('the U-Net: linear projections, heads by level', async () => {
    const v = await numbers(network(latents, golden.timesteps));
    expect(error(v, toLast(golden.v))).toBeLessThan(1e-7);
  });
  it('samples of a model that predicts v', async () => {
    const model = (x: Samples, t: number) =>
      numbers(network(tensor(Float64Array.from(x), [2, 8, 8, 4], 'f64'), [t, t]));
    const got = await runSampler(ddim(makeSchedule(configs.scheduler), 3), model, toLast(golden.latents));
    // its schedule is f32, too
    expect(error(got, toLast(golden.sampled))).toBeLessThan(1e-6);
  });
  it('the autoencoder', async () => {
    const { vae } = await openLdm(FILE, configs);
    const params = await load(vaeSpec(configs.vae), vae, { dtype: 'f64' });
    const one = tensor(toLast(golden.latents.slice(0, 256)), [1, 8, 8, 4], 'f64');
    const image = await numbers(vaeDecode(params, configs.vae, one));
    // every eighth pixel is kept
    const kept = Array.from({ length: 3 * 64 }, (_, at) => {
      const [channel, y, x] = [Math.floor(at / 64), 8 * Math.floor((at % 64) / 8), 8 * (at % 8)];
      return image[(y * 64 + x) * 3 + channel]!;
    });
    expect(error(kept, golden.image)).toBeLessThan(1e-8);
  });
});

describe('a file alone tells', () => {
  const named = async (name: string, more: readonly string[] = [], metadata: Record<string, string> = {}) => {
    const { tensors } = await openSafetensors(FILE);
    const out = new Map<string, TensorOut>(
      [...tensors.keys(), ...more].map((key) => [key, { dtype: 'U8', shape: [0], data: new Uint8Array(0) }]),
    );
    const file = join(scratch, name);
    await writeSafetensors(file, out, new Map(Object.entries(metadata)));
    return openBase(file);
  };
  it.each<[string, string, number, readonly string[], Record<string, string>]>([
    ['v2-1_768-ema-pruned.safetensors', 'v_prediction', 96, [], {}],
    ['v2-1_512-ema-pruned.safetensors', 'epsilon', 64, [], {}],
    ['512-base-ema.safetensors', 'epsilon', 64, [], {}],
    ['my-base.safetensors', 'v_prediction', 96, ['v_pred'], {}],
    ['some-base.safetensors', 'v_prediction', 96, [], { 'modelspec.prediction_type': 'v' }],
    ['some.safetensors', 'epsilon', 64, [], { 'modelspec.prediction_type': 'epsilon' }],
  ])('%s: %s, latents of %i', async (name, prediction, side, more, metadata) => {
    const { configs, pad } = await named(name, more, metadata);
    expect([configs.scheduler.prediction_type, configs.unet.sample_size, pad]).toEqual([prediction, side, '!']);
    expect(configs.unet.attention_head_dim).toEqual([5, 10, 20, 20]);
    expect([configs.textEncoder.num_hidden_layers, configs.textEncoder.hidden_act]).toEqual([23, 'gelu']);
  });
  it('its texts are padded with id 0, and a folder written from it says so', async () => {
    const { tokenizer, raw } = await tokenizerOf(await named('pad.safetensors'));
    const { ids } = tokenizer.encode('a film');
    const end = ids.indexOf(49_407);
    expect(end).toBeGreaterThan(1);
    expect([...ids.subarray(end + 1)].every((id) => id === 0)).toBe(true);
    for (const name of ['tokenizer_config.json', 'special_tokens_map.json'])
      expect(JSON.parse(new TextDecoder().decode(raw.get(name)))).toMatchObject({ pad_token: '!' });
  });
});
