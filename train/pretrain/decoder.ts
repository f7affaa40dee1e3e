/**
 * Last stage: the decoder alone, on latents that are not quite right. Latents that a U-Net makes are off by some hundredths
 * of their deviation, and an autoencoder hides fine lines in differences as small; a decoder that has seen such errors does
 * not draw them. The encoder stays as it is, and with it every latent.
 */
import {
  abs,
  add,
  type Backend,
  mean,
  mul,
  randomOf,
  seedKey,
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

/** mean|d| + mean d² + mean|∇d|/2 of what is decoded from the posterior mean with an error */
function loss(p: Part, { x, error, frozen }: Batch): Tensor {
  const z = add(vaeEncode(frozen, vaeParsed, x).mean, error);
  const d = sub(vaeDecode(p, vaeParsed, z), x);
  return add(add(mean(abs(d)), mean(mul(d, d))), mul(edges(d), 0.5));
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
