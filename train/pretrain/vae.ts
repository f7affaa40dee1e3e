/** Stage 1: the autoencoder, on random crops of rich textures and of the captioned world. */
import {
  abs,
  add,
  type Backend,
  exp,
  mean,
  mul,
  type Random,
  randomOf,
  read,
  seedKey,
  slice,
  sub,
  subkey,
  type Tensor,
  tensor,
} from '../../core/index.ts';
import { type VaeConfig, vaeSchema } from '../../models/config.ts';
import { type Vae, vaeDecode, vaeEncode, vaeSample, vaeSpec } from '../../models/vae/index.ts';
import { init } from '../../nn/index.ts';
import type { Raster } from '../data/made/drawings.ts';
import { encodeProgram } from '../model/programs.ts';
import { PICTURE, SEED, vaeConfig } from './config.ts';
import { trainStage, warmCosine } from './stage.ts';
import { unnamedAt } from './world.ts';

export const vaeParsed = vaeSchema.parse({ ...vaeConfig, scaling_factor: 1 });
export const CROP = 64;
export const BATCH = 8;
/** Pictures that crops are cut from; fewer where few steps will see them. */
const POOL = 6000;

/** pictures[n, h, w, 3] in [−1, 1] from grey values 0…1 */
export function toPictures(greys: readonly ArrayLike<number>[], size: number): Tensor {
  const out = new Float32Array(greys.length * size * size * 3);
  for (const [n, g] of greys.entries())
    for (let i = 0; i < size * size; i++)
      out.fill(2 * g[i]! - 1, (n * size * size + i) * 3, (n * size * size + i) * 3 + 3);
  return tensor(out, [greys.length, size, size, 3]);
}

type Batch = { readonly x: Tensor; readonly noise: Tensor; readonly kl: Tensor; readonly edge: Tensor };

/** mean |∂d/∂y| + mean |∂d/∂x| over one and two pixels: what a difference d is in fine structure. */
export function edges(d: Tensor): Tensor {
  const along = (axis: number, step: number) =>
    mean(abs(sub(slice(d, { axis, start: step }), slice(d, { axis, stop: CROP - step }))));
  return add(add(along(1, 1), along(2, 1)), add(along(1, 2), along(2, 2)));
}

/** mean|d| + mean d² + edge·mean|∇d| + kl·mean KL per latent element */
function loss(p: Vae, { x, noise, kl, edge }: Batch): Tensor {
  const posterior = vaeEncode(p, vaeParsed, x);
  const d = sub(vaeDecode(p, vaeParsed, vaeSample(posterior, noise)), x);
  const { mean: mu, logvar } = posterior;
  const divergence = mean(mul(sub(add(mul(mu, mu), exp(logvar)), add(logvar, 1)), 0.5));
  return add(add(add(mean(abs(d)), mean(mul(d, d))), mul(edges(d), edge)), mul(divergence, kl));
}

/**
 * The posterior begins with a deviation of 0.05 instead of 1: else the encoder must first blow up its latents to be
 * heard over their noise (24.2 dB instead of 23.2 on films after 600 steps).
 */
function started(): Vae {
  const p = init(vaeSpec(vaeParsed), SEED) as Vae;
  const bias = Float32Array.from([0, 0, 0, 0, -6, -6, -6, -6]);
  return { ...p, quant_conv: { ...p.quant_conv, bias: tensor(bias, [8]) } } as Vae;
}

/** Batches of crops, mirrored at times, out of a pool of pictures that is drawn when the first is asked for. */
export function cropsOf(name: string, rasters: readonly Raster[], steps: number): (r: Random) => Float32Array[] {
  let pool: Float32Array[] = [];
  const fill = () => {
    const start = performance.now();
    pool = Array.from({ length: Math.min(POOL, BATCH * steps) }, (_, i) => unnamedAt(rasters, i));
    console.log(`${name}: drew ${pool.length} pictures in ${((performance.now() - start) / 1000).toFixed(1)} s`);
  };
  return (r) => {
    if (pool.length === 0) fill();
    return Array.from({ length: BATCH }, () => {
      const picture = r.choice(pool);
      const [top, left] = [r.int(PICTURE - CROP + 1), r.int(PICTURE - CROP + 1)];
      const mirror = r.chance(0.5);
      const crop = new Float32Array(CROP * CROP);
      for (let y = 0; y < CROP; y++)
        for (let x = 0; x < CROP; x++)
          crop[y * CROP + x] = picture[(top + y) * PICTURE + left + (mirror ? CROP - 1 - x : x)]!;
      return crop;
    });
  };
}

export async function trainVae(
  backend: Backend,
  folder: string,
  steps: number,
  rasters: readonly Raster[],
  probe: (step: number, averaged: Vae) => Promise<boolean>,
): Promise<Vae> {
  const crops = cropsOf('vae', rasters, steps);
  const batch = (step: number): Batch => {
    const r = randomOf(subkey(seedKey(SEED), `vae ${step}`));
    const greys = crops(r);
    const side = CROP / 8;
    const noise = Float32Array.from({ length: BATCH * side * side * 4 }, () => r.normal());
    // a KL weight above 1e-5 switches off latent channels for good
    return {
      x: toPictures(greys, CROP),
      noise: tensor(noise, [BATCH, side, side, 4]),
      kl: tensor(1e-6 + 4e-6 * Math.min(1, step / 1000)),
      // coarse structure first
      edge: tensor(0.5 * Math.min(1, Math.max(0, step / steps - 0.15) / 0.2)),
    };
  };
  return trainStage<Vae, Batch>({
    name: 'vae',
    backend,
    folder,
    params: started(),
    steps,
    loss,
    batch,
    lr: warmCosine(1.5e-3, 100, steps),
    adam: { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 1e-4, decoupled: true },
    clip: 1,
    ema: 0.995,
    probe,
    every: 500,
  });
}

export interface Encoded {
  /** posterior means, NHWC, one array per picture */
  readonly means: readonly Float32Array[];
  /** per channel: deviation of the means, and root mean square of the posterior's own deviation */
  readonly channels: readonly { readonly deviation: number; readonly noise: number }[];
}
/** Posterior means of many pictures, in batches, scaled as the configuration says. */
export async function encodeAll(
  backend: Backend,
  { vae, config }: { readonly vae: Vae; readonly config: VaeConfig },
  greys: Iterable<ArrayLike<number>>,
  count: number,
  size = PICTURE,
): Promise<Encoded> {
  const encode = encodeProgram(backend, config);
  const means: Float32Array[] = [];
  const sums = Array.from({ length: 4 }, () => ({ n: 0, s: 0, ss: 0, v: 0 }));
  let group: ArrayLike<number>[] = [];
  const flush = async () => {
    if (group.length === 0) return;
    const out = encode(vae, toPictures(group, size));
    const [m, std] = [(await read(out.mean)) as Float32Array, (await read(out.std)) as Float32Array];
    const each = m.length / group.length;
    for (let i = 0; i < group.length; i++) means.push(m.slice(i * each, (i + 1) * each));
    for (let i = 0; i < m.length; i++) {
      const c = sums[i % 4]!;
      c.n++;
      c.s += m[i]!;
      c.ss += m[i]! * m[i]!;
      c.v += std[i]! ** 2;
    }
    group = [];
  };
  for (const g of greys) {
    group.push(g);
    if (group.length === 16) await flush();
    if (means.length >= count) break;
  }
  await flush();
  encode.trim();
  return {
    means,
    channels: sums.map((c) => ({ deviation: Math.sqrt(c.ss / c.n - (c.s / c.n) ** 2), noise: Math.sqrt(c.v / c.n) })),
  };
}
