/** Stage 1: the autoencoder, on random crops of captioned shapes and rich textures. */
import {
  abs,
  add,
  type Backend,
  exp,
  mean,
  mul,
  randomOf,
  read,
  seedKey,
  sub,
  subkey,
  type Tensor,
  tensor,
} from '../../core/index.ts';
import { vaeSchema } from '../../models/config.ts';
import { type Vae, vaeDecode, vaeEncode, vaeSample, vaeSpec } from '../../models/vae/index.ts';
import { init } from '../../nn/index.ts';
import { shapeAt } from '../data/made/shapes.ts';
import { textureAt } from '../data/made/textures.ts';
import { encodeProgram } from '../model/programs.ts';
import { PICTURE, SEED, vaeConfig } from './config.ts';
import { trainStage, warmCosine } from './stage.ts';

export const vaeParsed = vaeSchema.parse({ ...vaeConfig, scaling_factor: 1 });
const CROP = 64;
const BATCH = 8;
const POOL = 1600;

/** pictures[n, h, w, 3] in [−1, 1] from grey values 0…1 */
export function toPictures(greys: readonly ArrayLike<number>[], size: number): Tensor {
  const out = new Float32Array(greys.length * size * size * 3);
  for (const [n, g] of greys.entries())
    for (let i = 0; i < size * size; i++)
      out.fill(2 * g[i]! - 1, (n * size * size + i) * 3, (n * size * size + i) * 3 + 3);
  return tensor(out, [greys.length, size, size, 3]);
}

type Batch = { readonly x: Tensor; readonly noise: Tensor; readonly kl: Tensor };

/** mean|d| + mean d² + w·mean KL per latent element */
function loss(p: Vae, { x, noise, kl }: Batch): Tensor {
  const posterior = vaeEncode(p, vaeParsed, x);
  const d = sub(vaeDecode(p, vaeParsed, vaeSample(posterior, noise)), x);
  const { mean: mu, logvar } = posterior;
  const divergence = mean(mul(sub(add(mul(mu, mu), exp(logvar)), add(logvar, 1)), 0.5));
  return add(add(mean(abs(d)), mean(mul(d, d))), mul(divergence, kl));
}

export async function trainVae(backend: Backend, folder: string, steps: number): Promise<Vae> {
  let pool: Float32Array[] = [];
  const fill = () => {
    const start = performance.now();
    pool = Array.from(
      { length: POOL },
      (_, i) =>
        (i % 2 === 0
          ? shapeAt(SEED, 'train', 100_000 + i, PICTURE).pixels
          : textureAt(SEED, i, PICTURE)) as Float32Array,
    );
    console.log(`vae: drew ${POOL} pictures in ${((performance.now() - start) / 1000).toFixed(1)} s`);
  };
  const batch = (step: number): Batch => {
    if (pool.length === 0) fill();
    const r = randomOf(subkey(seedKey(SEED), `vae ${step}`));
    const greys = Array.from({ length: BATCH }, () => {
      const picture = r.choice(pool);
      const [top, left] = [r.int(PICTURE - CROP + 1), r.int(PICTURE - CROP + 1)];
      const mirror = r.chance(0.5);
      const crop = new Float32Array(CROP * CROP);
      for (let y = 0; y < CROP; y++)
        for (let x = 0; x < CROP; x++)
          crop[y * CROP + x] = picture[(top + y) * PICTURE + left + (mirror ? CROP - 1 - x : x)]!;
      return crop;
    });
    const side = CROP / 8;
    const noise = Float32Array.from({ length: BATCH * side * side * 4 }, () => r.normal());
    // a KL weight above 1e-5 switches off latent channels for good
    return {
      x: toPictures(greys, CROP),
      noise: tensor(noise, [BATCH, side, side, 4]),
      kl: tensor(1e-6 + 4e-6 * Math.min(1, step / 1000)),
    };
  };
  return trainStage<Vae, Batch>({
    name: 'vae',
    backend,
    folder,
    params: init(vaeSpec(vaeParsed), SEED) as Vae,
    steps,
    loss,
    batch,
    lr: warmCosine(2e-3, 100, steps),
    adam: { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 1e-4, decoupled: true },
    clip: 1,
    ema: 0.995,
  });
}

export interface Encoded {
  /** posterior means, NHWC, one array per picture (not scaled) */
  readonly means: readonly Float32Array[];
  /** per channel: deviation of the means, and root mean square of the posterior's own deviation */
  readonly channels: readonly { readonly deviation: number; readonly noise: number }[];
}
/** Posterior means of many pictures, in batches. */
export async function encodeAll(
  backend: Backend,
  vae: Vae,
  greys: Iterable<ArrayLike<number>>,
  count: number,
  size = PICTURE,
): Promise<Encoded> {
  const encode = encodeProgram(backend, vaeParsed);
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
