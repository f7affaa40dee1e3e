/**
 * Last stage: the decoder alone, on latents that are not quite right. Latents that a U-Net makes are off by some hundredths
 * of their deviation, and an autoencoder hides fine lines in differences as small; a decoder that has seen such errors does
 * not draw them. Likeness alone makes pictures soft: where a latent does not say where a line lies, the most likely grey
 * is none. So the loss asks for its strength, too. The encoder stays as it is, and with it every latent.
 */
import {
  abs,
  add,
  type Backend,
  mean,
  mul,
  randomOf,
  reshape,
  seedKey,
  slice,
  sqrt,
  sub,
  subkey,
  type Tensor,
  tensor,
} from '../../core/index.ts';
import { type Vae, vaeDecode, vaeEncode } from '../../models/vae/index.ts';
import type { Raster } from '../data/made/drawings.ts';
import { SEED } from './config.ts';
import { trainStage, warmCosine } from './stage.ts';
import { BATCH, CROP, cropsOf, edges, toPictures, vaeParsed } from './vae.ts';

/** Largest error of a latent, in deviations of all latents together; uniform from 0 for each picture. */
const SPREAD = 0.15;

type Part = Pick<Vae, 'decoder' | 'post_quant_conv'>;
type Batch = {
  readonly x: Tensor;
  readonly error: Tensor;
  readonly frozen: Pick<Vae, 'encoder' | 'quant_conv'>;
};

/** The fields that the strength of fine structure is taken in: FIELDS × FIELDS in what is left of a crop. */
const FIELDS = 4;

/**
 * √mean (x[i+k] − x[i])² in each of a crop's fields, for both axes and k = 2 and 3, [b, FIELDS, FIELDS] each: how strong
 * structure of 0.1 to 0.25 cycles a pixel is there, whatever it is (a step of k passes 4·sin²(πkf) of the energy at f).
 */
export function strengths(x: Tensor): Tensor[] {
  const side = CROP - 4;
  const part = side / FIELDS;
  /** the crop's middle, moved by so many pixels along an axis */
  const moved = (axis: number, by: number): Tensor =>
    [1, 2].reduce((y, a) => {
      const start = a === axis ? by : 2;
      return slice(y, { axis: a, start, stop: start + side });
    }, x);
  return [1, 2].flatMap((axis) =>
    [2, 3].map((k) => {
      const d = sub(moved(axis, 4), moved(axis, 4 - k));
      const fields = reshape(mul(d, d), [x.shape[0]!, FIELDS, part, FIELDS, part * x.shape[3]!]);
      return sqrt(add(mean(fields, [2, 4]), 1e-5));
    }),
  );
}

/** How much the loss asks for strength beside likeness; at 3 the energy of films at 0.1 to 0.25 cycles a pixel is just short. */
const STRENGTH = 4;

/** mean|d| + mean d² + mean|∇d|/2 + strength's mean|difference| of what is decoded from the posterior mean with an error */
function loss(p: Part, { x, error, frozen }: Batch): Tensor {
  const z = add(vaeEncode(frozen, vaeParsed, x).mean, error);
  const y = vaeDecode(p, vaeParsed, z);
  const d = sub(y, x);
  const now = strengths(y);
  const missing = strengths(x)
    .map((s, i) => mean(abs(sub(now[i]!, s))))
    .reduce((a, b) => add(a, b));
  const likeness = add(add(mean(abs(d)), mean(mul(d, d))), mul(edges(d), 0.5));
  return add(likeness, mul(missing, STRENGTH / now.length));
}

/** The autoencoder with its decoder trained further; `deviation` is that of all latents together. */
export async function trainDecoder(
  backend: Backend,
  folder: string,
  vae: Vae,
  deviation: number,
  steps: number,
  rasters: readonly Raster[],
  probe: (step: number, averaged: Vae) => Promise<boolean>,
): Promise<Vae> {
  const { encoder, quant_conv, ...start } = vae;
  const crops = cropsOf('decoder', rasters, steps);
  const side = CROP / 8;
  const batch = (step: number): Batch => {
    const r = randomOf(subkey(seedKey(SEED), `decoder ${step}`));
    const x = toPictures(crops(r), CROP);
    const error = new Float32Array(BATCH * side * side * 4);
    for (let b = 0; b < BATCH; b++) {
      const spread = SPREAD * deviation * r.uniform(0, 1);
      for (let i = 0; i < side * side * 4; i++) error[b * side * side * 4 + i] = spread * r.normal();
    }
    return { x, error: tensor(error, [BATCH, side, side, 4]), frozen: { encoder, quant_conv } };
  };
  const trained = await trainStage<Part, Batch>({
    name: 'decoder',
    backend,
    folder,
    params: start,
    steps,
    loss,
    batch,
    lr: warmCosine(5e-4, 100, steps),
    adam: { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 1e-4, decoupled: true },
    clip: 1,
    ema: 0.995,
    probe: (step, averaged) => probe(step, { ...vae, ...averaged }),
    every: 500,
  });
  return { ...vae, ...trained };
}
