/**
 * What a base must reach, measured on what it has never seen: how its autoencoder keeps films and how its untouched U-Net
 * brings them back from noise, whether shapes land where captions say, whether captions of new drawings are recognised.
 */
import { writeFile } from 'node:fs/promises';
import { mean as meanOf } from 'd3-array';
import { type Backend, randomOf, read, seedKey, subkey, tensor } from '../../core/index.ts';
import type { VaeConfig } from '../../models/config.ts';
import {
  addNoise,
  createSampler,
  type SamplerState,
  type Samples,
  trainingTarget,
} from '../../models/schedulers/index.ts';
import type { Vae } from '../../models/vae/index.ts';
import { drawFilm, GRAIN, phantom } from '../data/made/phantoms.ts';
import { readShape, scoreShapes, shapeAt } from '../data/made/shapes.ts';
import { toGrey } from '../data/pictures/grey.ts';
import { contactSheet } from '../data/pictures/image-write.ts';
import { bandEnergy, psnr, ribScore } from '../metrics/films/sharpness.ts';
import type { Pipeline } from '../model/pipeline.ts';
import { decodeProgram, denoiseProgram } from '../model/programs.ts';
import { createGenerator, seedsFrom } from '../model/sample.ts';
import { LATENT, PICTURE, SEED } from './config.ts';
import { encodeCaptions } from './unet.ts';
import { encodeAll } from './vae.ts';
import type { Captioned } from './world.ts';

const EACH = LATENT * LATENT * 4;

/** Films of a set of their own, which nothing is trained on; the same with and without grain. */
const films = (count: number, grain = GRAIN): Float32Array[] =>
  Array.from({ length: count }, (_, i) => {
    const key = subkey(subkey(seedKey(SEED), 'phantoms gate'), i);
    return drawFilm(randomOf(subkey(key, 'film')), phantom(key).findings, PICTURE, grain);
  });

/** Grey values 0…1 of scaled latents, in groups of 16. */
async function decoded(backend: Backend, p: VaePart, latents: readonly ArrayLike<number>[]): Promise<Float32Array[]> {
  const decode = decodeProgram(backend, p.config);
  const out: Float32Array[] = [];
  for (let from = 0; from < latents.length; from += 16) {
    const some = latents.slice(from, from + 16);
    const z = new Float32Array(some.length * EACH);
    for (const [i, m] of some.entries()) z.set(m, i * EACH);
    const pictures = (await read(decode(p.vae, tensor(z, [some.length, LATENT, LATENT, 4])))) as Float32Array;
    const each = PICTURE * PICTURE;
    for (let i = 0; i < some.length; i++)
      out.push(Float32Array.from({ length: each }, (_, at) => (pictures[(i * each + at) * 3]! + 1) / 2));
  }
  decode.trim();
  return out;
}

export type VaePart = { readonly vae: Vae; readonly config: VaeConfig };
const vaeOf = (p: Pipeline): VaePart => ({ vae: p.vae, config: p.configs.vae });

export interface Kept {
  /** dB against the films, mean */
  readonly psnr: number;
  /** rib score as a share of the films' */
  readonly ribs: number;
  /** energy at 0.1 to 0.25 cycles a pixel as a share of that of films without grain */
  readonly energy: number;
  /** channels whose posterior noise is below 0.3 of their deviation */
  readonly channels: number;
}

/** How the autoencoder keeps unseen films: posterior means, decoded. Cost: `count` encodings and decodings. */
export async function filmsKept(backend: Backend, p: VaePart, count: number): Promise<Kept> {
  const real = films(count);
  const { means, channels } = await encodeAll(backend, p, real, count);
  const back = await decoded(backend, p, means);
  const mean = (pictures: readonly Float32Array[], f: (x: Float32Array, i: number) => number) => meanOf(pictures, f)!;
  const energy = (x: Float32Array) => bandEnergy(x, PICTURE, 0.1, 0.25);
  const ribs = (x: Float32Array) => ribScore(x, PICTURE);
  return {
    psnr: mean(back, (x, i) => psnr(x, real[i]!)),
    ribs: mean(back, ribs) / mean(real, ribs),
    energy: mean(back, energy) / mean(films(count, 0), energy),
    channels: channels.filter((c) => c.noise < 0.3 * c.deviation).length,
  };
}

/** The calls of 20 DDIM steps that films are noised to. */
const NOISED = [
  { call: 16, t: 199 },
  { call: 12, t: 399 },
  { call: 8, t: 599 },
] as const;

/**
 * dB, against the autoencoder's films, at which films noised to t = 199, 399, 599 come back by the rest of 20 DDIM steps
 * with the empty caption, guidance 1.
 */
export async function filmsDenoised(backend: Backend, p: Pipeline, count: number): Promise<readonly number[]> {
  const { means } = await encodeAll(backend, vaeOf(p), films(count), count);
  const reference = await decoded(backend, vaeOf(p), means);
  const denoise = denoiseProgram(backend, p.configs.unet);
  const [empty] = await encodeCaptions(backend, p.text, p.tokenizer, ['']);
  const contexts = repeated(empty!, count);
  const z = new Float32Array(count * EACH);
  for (const [i, m] of means.entries()) z.set(m, i * EACH);
  const r = randomOf(subkey(seedKey(SEED), 'denoise gate'));
  const noise = Float32Array.from(z, () => r.normal());
  const found: number[] = [];
  for (const { call, t } of NOISED) {
    const sampler = createSampler('ddim', p.schedule, 20);
    let state: SamplerState = { ...sampler.start, index: call };
    let x: Samples = addNoise(p.schedule, z, noise, new Array(count).fill(t));
    for (const time of sampler.timesteps.slice(call)) {
      const v = await read(
        denoise(
          p.unet,
          tensor(Float32Array.from(x), [count, LATENT, LATENT, 4]),
          tensor(new Float32Array(count).fill(time)),
          contexts,
        ),
      );
      [state, x] = sampler.step(state, v as Float32Array, x);
    }
    const each = Array.from({ length: count }, (_, i) => x.subarray(i * EACH, (i + 1) * EACH));
    const back = await decoded(backend, vaeOf(p), each);
    found.push(meanOf(back, (picture, i) => psnr(picture, reference[i]!))!);
  }
  denoise.trim();
  return found;
}

const repeated = (context: Float32Array, count: number) => {
  const all = new Float32Array(count * context.length);
  for (let i = 0; i < count; i++) all.set(context, i * context.length);
  return tensor(all, [count, 77, context.length / 77]);
};

export type Placed = { readonly [k in 'x' | 'y' | 'size' | 'brightness']: number };

/** Samples of held-out single-shape captions, read back by the detector: shares of x, y, size, brightness right. */
export async function shapesPlaced(backend: Backend, p: Pipeline, count: number, sheet?: string): Promise<Placed> {
  const told = Array.from({ length: count }, (_, i) => shapeAt(SEED, 'held-out', i, 16, 'single-on-plain'));
  const pictures = await createGenerator(backend, p.configs)(
    p,
    told.map((s) => s.caption),
    {
      steps: 20,
      guidance: 3,
      sampler: 'ddim',
      seeds: seedsFrom(SEED, count),
      height: PICTURE,
      width: PICTURE,
      batch: 16,
    },
  );
  const items = pictures.slice(0, 24).map((pixels, i) => ({ pixels, caption: told[i]!.caption }));
  if (sheet) await writeFile(sheet, await contactSheet(items, PICTURE, 8));
  return scoreShapes(
    pictures.map((x, i) => ({ told: told[i]!.attributes.shapes[0]!, read: readShape(toGrey(x), PICTURE) })),
  );
}

/**
 * How often, among the captions of all, a picture's own one makes the untouched U-Net's error on it least (the same noise
 * for all captions, t = 699, 799, 899): the base itself as the judge. Chance is 1/count. Cost: 3·count² predictions.
 */
export async function captionsRecognised(
  backend: Backend,
  p: Pipeline,
  pictures: readonly Captioned[],
): Promise<number> {
  const n = pictures.length;
  const { means } = await encodeAll(
    backend,
    vaeOf(p),
    pictures.map(({ pixels }) => pixels),
    n,
  );
  const contexts = await encodeCaptions(
    backend,
    p.text,
    p.tokenizer,
    pictures.map(({ caption }) => caption),
  );
  const all = new Float32Array(n * contexts[0]!.length);
  for (const [i, c] of contexts.entries()) all.set(c, i * c.length);
  const context = tensor(all, [n, 77, contexts[0]!.length / 77]);
  const denoise = denoiseProgram(backend, p.configs.unet);
  let right = 0;
  for (const [i, m] of means.entries()) {
    const errors = new Float64Array(n);
    for (const t of [699, 799, 899]) {
      const r = randomOf(subkey(subkey(seedKey(SEED), `recognised ${t}`), i));
      const noise = Float32Array.from(m, () => r.normal());
      const [x, target] = [addNoise(p.schedule, m, noise, [t]), trainingTarget(p.schedule, m, noise, [t])];
      const many = new Float32Array(n * EACH);
      for (let k = 0; k < n; k++) many.set(x, k * EACH);
      const v = (await read(
        denoise(p.unet, tensor(many, [n, LATENT, LATENT, 4]), tensor(new Float32Array(n).fill(t)), context),
      )) as Float32Array;
      for (let k = 0; k < n; k++) for (let j = 0; j < EACH; j++) errors[k]! += (v[k * EACH + j]! - target[j]!) ** 2;
    }
    if (errors.every((e, k) => k === i || e > errors[i]!)) right++;
  }
  denoise.trim();
  return right / n;
}

/** Everything that is asked of a base. */
export interface Measured {
  readonly kept: Kept;
  readonly denoised: readonly number[];
  readonly placed: Placed;
  readonly recognised: number;
}

const GATES: readonly { readonly what: string; readonly least: number; readonly of: (m: Measured) => number }[] = [
  { what: 'autoencoder, unseen films, dB', least: 33, of: (m) => m.kept.psnr },
  { what: "… ribs' contrast, share of the films'", least: 0.85, of: (m) => m.kept.ribs },
  { what: "… energy at 0.1–0.25 cycles/pixel, share of grainless films'", least: 0.8, of: (m) => m.kept.energy },
  { what: '… live latent channels', least: 4, of: (m) => m.kept.channels },
  { what: 'films noised to t = 199 and denoised, dB', least: 30, of: (m) => m.denoised[0]! },
  { what: '… t = 399', least: 27, of: (m) => m.denoised[1]! },
  { what: '… t = 599', least: 25, of: (m) => m.denoised[2]! },
  { what: 'shapes where captions say, left to right', least: 0.97, of: (m) => m.placed.x },
  { what: '… top to bottom', least: 0.97, of: (m) => m.placed.y },
  { what: '… size', least: 0.95, of: (m) => m.placed.size },
  { what: 'captions of drawings never seen recognised', least: 0.25, of: (m) => m.recognised },
];

/** One line for each gate, and whether all are passed. */
export function gates(m: Measured): { readonly lines: readonly string[]; readonly passed: boolean } {
  const rows = GATES.map(({ what, least, of }) => ({ what, least, value: of(m), met: of(m) >= least }));
  return {
    lines: rows.map(
      ({ what, least, value, met }) =>
        `${met ? 'passed' : 'MISSED'}  ${what}: ${Number(value.toPrecision(4))} (≥ ${least})`,
    ),
    passed: rows.every(({ met }) => met),
  };
}
