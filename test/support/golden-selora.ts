/**
 * Makes a golden directory for SeLoRA on a tiny model, in the form a person with PyTorch would: no vmap, no padded ranks, no
 * shared backward pass. Gradients sample by sample on the reference backend in f64, scores and Adam as plain loops here.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { evaluate, grad, type Tensor, tensor } from '../../core/index.ts';
import { textEncoder, textEncoderSpec } from '../../models/clip/text-encoder.ts';
import { openBase } from '../../models/io/base.ts';
import { type TensorOut, writeSafetensors } from '../../models/io/safetensors-write.ts';
import type { Part } from '../../models/names.ts';
import { linearPaths, load } from '../../models/spec.ts';
import { unet, unetSpec } from '../../models/unet/index.ts';
import { mse } from '../../nn/index.ts';
import { attach } from '../../selora/attach.ts';
import { cpu, numbers, rng } from './gradcheck.ts';
import { sizeOf, TINY_SPECS, writeTinyBase } from './tiny-base.ts';

type Host = { readonly shape: readonly [number, number]; readonly data: Float64Array };
type Module = { readonly A: Host; readonly B: Host; readonly K: Host };
type Gradients = {
  readonly loss: number;
  readonly of: readonly { readonly A: Float64Array; readonly B: Float64Array }[];
};

const SAMPLES = 3;
const SIZE = 8;
const LENGTH = 77;
const ADAM = { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0 } as const;

const f32 = (values: readonly number[]): Float64Array => Float64Array.from(values, Math.fround);

/** Writes `tiny-sd/`, `selora.json` and `selora.safetensors` to an empty folder. */
export async function writeSeloraGolden(folder: string, seed: number): Promise<void> {
  const random = rng(seed);
  const draw = (n: number, size: number) => f32(Array.from({ length: n }, () => (2 * random() - 1) * size));
  await mkdir(folder, { recursive: true });
  /** norms scale by about 1, linears and convolutions keep the size of what they are given */
  const weights = (part: Part): ReadonlyMap<string, TensorOut> =>
    new Map(
      [...TINY_SPECS[part]].map(([name, shape]): [string, TensorOut] => {
        const n = sizeOf(shape);
        const isScale = shape.length === 1 && name.endsWith('.weight');
        const spread = isScale || shape.length === 1 ? 0.3 : Math.sqrt(3 / (n / shape[0]!));
        return [name, { dtype: 'F32', shape, data: Float32Array.from(draw(n, spread), (x) => x + (isScale ? 1 : 0)) }];
      }),
    );
  await writeTinyBase(join(folder, 'tiny-sd'), {
    weights: { unet: weights('unet'), vae: weights('vae'), text_encoder: weights('text_encoder') },
  });
  const { configs, parts } = await openBase(join(folder, 'tiny-sd'));
  const net = await load(unetSpec(configs.unet), parts.unet, { dtype: 'f64' });
  const text = await load(textEncoderSpec(configs.textEncoder), parts.text_encoder, { dtype: 'f64' });

  const paths = [
    ...linearPaths(unetSpec(configs.unet)).map((p) => `unet.${p}`),
    ...linearPaths(textEncoderSpec(configs.textEncoder)).map((p) => `text_encoder.${p}`),
  ];
  const modules = new Map(
    paths.map((path, i): [string, Module] => {
      const [part, name] = path.startsWith('unet.')
        ? (['unet', path.slice(5)] as const)
        : (['text_encoder', path.slice(13)] as const);
      const [dOut, dIn] = TINY_SPECS[part].get(`${name}.weight`)! as readonly [number, number];
      const rank = 1 + (i % 3);
      return [
        path,
        {
          A: { shape: [dIn, rank], data: draw(dIn * rank, 0.5) },
          B: { shape: [rank, dOut], data: draw(rank * dOut, 0.3) },
          K: { shape: [dIn, 1], data: draw(dIn, 0.5) },
        },
      ];
    }),
  );
  const latent = 4 * SIZE * SIZE;
  const batch = {
    noisy: draw(SAMPLES * latent, 1.5),
    noise: draw(SAMPLES * latent, 1.5),
    timesteps: Array.from({ length: SAMPLES }, () => Math.floor(random() * 1000)),
    ids: Array.from({ length: SAMPLES * LENGTH }, () => Math.floor(random() * configs.textEncoder.vocab_size)),
  };

  /** loss and gradient of one sample, the adapters as they are */
  const sampleGradients = async (list: readonly Pick<Module, 'A' | 'B'>[], sample: number): Promise<Gradients> => {
    const part = (x: Float64Array) =>
      // NCHW → NHWC
      tensor(
        Float64Array.from(
          { length: latent },
          (_, i) => x[sample * latent + (i % 4) * SIZE * SIZE + Math.floor(i / 4)]!,
        ),
        [1, SIZE, SIZE, 4],
        'f64',
      );
    const ids = tensor(Int32Array.from(batch.ids.slice(sample * LENGTH, (sample + 1) * LENGTH)), [1, LENGTH], 'i32');
    const t = tensor(Int32Array.of(batch.timesteps[sample]!), [1], 'i32');
    const loss = (adapters: readonly { A: Tensor; B: Tensor }[]): Tensor => {
      const of = (prefix: string) =>
        Object.fromEntries(
          paths.flatMap((p, i) => (p.startsWith(prefix) ? [[p.slice(prefix.length), adapters[i]!]] : [])),
        );
      const context = textEncoder(attach(text, of('text_encoder.'), 1), configs.textEncoder, ids).lastHiddenState;
      return mse(unet(attach(net, of('unet.'), 1), configs.unet, part(batch.noisy), t, context), part(batch.noise));
    };
    const given = list.map(({ A, B }) => ({ A: tensor(A.data, A.shape, 'f64'), B: tensor(B.data, B.shape, 'f64') }));
    const done = evaluate({ loss: loss(given), g: grad(loss)(given) }, cpu);
    const of: { A: Float64Array; B: Float64Array }[] = [];
    for (const g of done.g)
      of.push({ A: Float64Array.from(await numbers(g.A)), B: Float64Array.from(await numbers(g.B)) });
    return { loss: (await numbers(done.loss))[0]!, of };
  };
  const allSamples = async (list: readonly Pick<Module, 'A' | 'B'>[]): Promise<Gradients[]> => {
    const all: Gradients[] = [];
    for (let i = 0; i < SAMPLES; i++) all.push(await sampleGradients(list, i));
    return all;
  };
  const squares = (all: readonly Gradients[], module: number, side: 'A' | 'B'): number =>
    all.reduce((sum, g) => sum + g.of[module]![side].reduce((s, x) => s + x * x, 0), 0) / SAMPLES;
  const scores = (all: readonly Gradients[]) =>
    paths.map((_, m) => ({ A: squares(all, m, 'A'), B: squares(all, m, 'B') }));
  const mean = (all: readonly Gradients[]): number => all.reduce((sum, g) => sum + g.loss, 0) / SAMPLES;

  const list = [...modules.values()];
  const expanded = (m: Pick<Module, 'A' | 'B'>, K: Host): Pick<Module, 'A' | 'B'> => {
    const [dIn, r] = m.A.shape;
    const dOut = m.B.shape[1];
    const A = Float64Array.from({ length: dIn * (r + 1) }, (_, i) =>
      i % (r + 1) === r ? K.data[Math.floor(i / (r + 1))]! : m.A.data[Math.floor(i / (r + 1)) * r + (i % (r + 1))]!,
    );
    const B = new Float64Array((r + 1) * dOut);
    B.set(m.B.data);
    return { A: { shape: [dIn, r + 1], data: A }, B: { shape: [r + 1, dOut], data: B } };
  };
  const start = list.map(
    ({ A, B }): Pick<Module, 'A' | 'B'> => ({
      A: { shape: [A.shape[0], 1], data: Float64Array.from({ length: A.shape[0] }, (_, i) => A.data[i * A.shape[1]]!) },
      B: { shape: [1, B.shape[1]], data: new Float64Array(B.shape[1]) },
    }),
  );
  const original = await allSamples(list);
  const wider = list.map((m) => expanded(m, m.K));
  const grown = await allSamples(wider);
  const [before, after] = [scores(original), scores(grown)];
  const startSamples = await allSamples(start);
  const [startBefore, startAfter] = [
    scores(startSamples),
    scores(await allSamples(start.map((m, i) => expanded(m, list[i]!.K)))),
  ];

  const tensors = new Map<string, TensorOut>();
  const put = (name: string, shape: readonly number[], data: Float64Array) =>
    tensors.set(name, { dtype: 'F64', shape, data });
  put('noisy_latents', [SAMPLES, 4, SIZE, SIZE], batch.noisy);
  put('noise', [SAMPLES, 4, SIZE, SIZE], batch.noise);
  tensors.set('timesteps', { dtype: 'I32', shape: [SAMPLES], data: Int32Array.from(batch.timesteps) });
  tensors.set('input_ids', { dtype: 'I32', shape: [SAMPLES, LENGTH], data: Int32Array.from(batch.ids) });
  for (const [i, path] of paths.entries()) {
    const m = list[i]!;
    for (const side of ['A', 'B', 'K'] as const) put(`adapter.${path}.${side}`, m[side].shape, m[side].data);
    for (const side of ['A', 'B'] as const) {
      const total = new Float64Array(m[side].data.length);
      for (const g of original) for (const [k, x] of g.of[i]![side].entries()) total[k]! += x / SAMPLES;
      put(`grad.${path}.${side}`, m[side].shape, total);
    }
  }
  const whole = [paths[0]!, paths.at(-1)!];
  for (const path of whole)
    for (const side of ['A', 'B'] as const) {
      const i = paths.indexOf(path);
      const all = (adapters: typeof wider, of: readonly Gradients[], name: string) =>
        put(
          `${name}.${path}.${side}`,
          [SAMPLES, ...adapters[i]![side].shape],
          Float64Array.from(of.flatMap((g) => [...g.of[i]![side]])),
        );
      all(list, original, 'per_sample_grad');
      all(wider, grown, 'expanded.per_sample_grad');
    }

  // Adam as in Kingma & Ba, entry by entry
  const losses = [mean(original)];
  let current: Pick<Module, 'A' | 'B'>[] = list;
  const moments = list.map(({ A, B }) => ({
    A: { m: new Float64Array(A.data.length), v: new Float64Array(A.data.length) },
    B: { m: new Float64Array(B.data.length), v: new Float64Array(B.data.length) },
  }));
  let samples = original;
  for (let step = 1; step <= 3; step++) {
    current = current.map((module, i) => {
      const side = (key: 'A' | 'B'): Host => ({
        shape: module[key].shape,
        data: module[key].data.map((p, k) => {
          const g = samples.reduce((sum, s) => sum + s.of[i]![key][k]!, 0) / SAMPLES;
          const { m, v } = moments[i]![key];
          m[k] = ADAM.betas[0] * m[k]! + (1 - ADAM.betas[0]) * g;
          v[k] = ADAM.betas[1] * v[k]! + (1 - ADAM.betas[1]) * g * g;
          const [mHat, vHat] = [m[k]! / (1 - ADAM.betas[0] ** step), v[k]! / (1 - ADAM.betas[1] ** step)];
          return p - (ADAM.lr * mHat) / (Math.sqrt(vHat) + ADAM.eps);
        }),
      });
      return { A: side('A'), B: side('B') };
    });
    samples = await allSamples(current);
    losses.push(mean(samples));
    if (step !== 2)
      for (const [i, path] of paths.entries())
        for (const key of ['A', 'B'] as const)
          put(`adam${step}.${path}.${key}`, current[i]![key].shape, current[i]![key].data);
  }
  const json = {
    modules: Object.fromEntries(
      paths.map((path, i) => {
        const { A, B } = list[i]!;
        const fi = before[i]!.A + before[i]!.B;
        const fi_exp = after[i]!.A + after[i]!.B;
        const first = startBefore[i]!.A + startBefore[i]!.B;
        const firstExp = startAfter[i]!.A + startAfter[i]!.B;
        return [
          path,
          {
            d_in: A.shape[0],
            d_out: B.shape[1],
            rank: A.shape[1],
            fi_A: before[i]!.A,
            fi_B: before[i]!.B,
            fi,
            fi_exp,
            ratio: fi_exp / fi,
            start: { fi: first, fi_exp: firstExp, ratio: firstExp / first },
          },
        ];
      }),
    ),
    full_per_sample_gradients_of: whole,
    numbers: {
      loss_without_adapters: mean(startSamples),
      loss: losses[0],
      loss_float32: losses[0]! * (1 + 2 ** -22),
      per_sample_losses: original.map((g) => g.loss),
      adam: { ...ADAM, losses },
      // what the reference backend is off by in f32 here, rounded up
      float32_vs_float64: {
        grad_rel_l2_max: 1e-5,
        fi_rel_max: 2e-5,
        ratio_abs_max: 1e-5,
        adam1_abs_max: 2e-5,
        adam5_abs_max: 2e-5,
      },
    },
  };
  await writeSafetensors(join(folder, 'selora.safetensors'), tensors);
  await writeFile(join(folder, 'selora.json'), JSON.stringify(json));
}
