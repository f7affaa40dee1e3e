/**
 * Stage 3: the U-Net and the text encoder together, v-prediction. Phase 1 learns to denoise (timesteps mostly 600–999);
 * phase 2 draws mostly from 930–999, where the picture must come from the words, until single shapes land where told.
 */
import { type Backend, mean, mul, sub, type Tensor, tensor } from '../../core/index.ts';
import { type TextEncoder, textEncoder } from '../../models/clip/text-encoder.ts';
import type { Tokenizer } from '../../models/clip/tokenizer.ts';
import { unetSchema } from '../../models/config.ts';
import { addNoise, makeSchedule, parseSchedulerConfig, trainingTarget } from '../../models/schedulers/index.ts';
import { type UNet, unet, unetSpec } from '../../models/unet/index.ts';
import { init } from '../../nn/index.ts';
import { fold, keyOf, randomOf } from '../data/random.ts';
import { LATENT, SEED, schedulerConfig, unetConfig } from './config.ts';
import { trainStage, warmCosine } from './stage.ts';
import { textParsed } from './text.ts';

export const unetParsed = unetSchema.parse(unetConfig);
export const schedule = makeSchedule(parseSchedulerConfig(schedulerConfig));
const BATCH = 16;
const LENGTH = 77;
const EACH = LATENT * LATENT * 4;

export type Denoiser = { readonly unet: UNet; readonly text: TextEncoder };
type Batch = { readonly x: Tensor; readonly t: Tensor; readonly ids: Tensor; readonly target: Tensor };

function loss(p: Denoiser, { x, t, ids, target }: Batch): Tensor {
  const context = textEncoder(p.text, textParsed, ids).lastHiddenState;
  const d = sub(unet(p.unet, unetParsed, x, t, context), target);
  return mean(mul(d, d));
}

export interface Latents {
  /** scaled posterior means, NHWC */
  readonly latents: readonly Float32Array[];
  readonly captions: readonly string[];
}
export interface Phase {
  readonly name: string;
  readonly steps: number;
  readonly lr: number;
  /** three quarters of the timesteps are uniform in [from, 999], the rest anywhere */
  readonly from: number;
}

export async function trainPhase(
  backend: Backend,
  folder: string,
  phase: Phase,
  start: Denoiser | undefined,
  text: TextEncoder,
  data: Latents,
  tokenizer: Tokenizer,
  probe?: (step: number, averaged: Denoiser) => Promise<boolean>,
): Promise<Denoiser> {
  const encoded = data.captions.map((c) => tokenizer.encode(c).ids);
  const empty = tokenizer.encode('').ids;
  const batch = (step: number): Batch => {
    const r = randomOf(fold(keyOf(SEED), `${phase.name} ${step}`));
    const [z, noise] = [new Float32Array(BATCH * EACH), new Float32Array(BATCH * EACH)];
    const [t, ids] = [new Float32Array(BATCH), new Int32Array(BATCH * LENGTH)];
    for (let b = 0; b < BATCH; b++) {
      const i = r.int(data.latents.length);
      z.set(data.latents[i]!, b * EACH);
      ids.set(r.chance(0.1) ? empty : encoded[i]!, b * LENGTH);
      t[b] = r.chance(0.75) ? phase.from + r.int(1000 - phase.from) : r.int(1000);
      for (let j = 0; j < EACH; j++) noise[b * EACH + j] = r.normal();
    }
    const shape = [BATCH, LATENT, LATENT, 4];
    return {
      x: tensor(addNoise(schedule, z, noise, t) as Float32Array, shape),
      t: tensor(t),
      ids: tensor(ids, [BATCH, LENGTH]),
      target: tensor(trainingTarget(schedule, z, noise, t) as Float32Array, shape),
    };
  };
  return trainStage<Denoiser, Batch>({
    name: phase.name,
    backend,
    folder,
    params: start ?? { unet: init(unetSpec(unetParsed), SEED + 3) as UNet, text },
    steps: phase.steps,
    loss,
    batch,
    lr: warmCosine(phase.lr, 100, phase.steps),
    adam: { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 1e-3, decoupled: true },
    clip: 1,
    ema: 0.996,
    ...(probe ? { probe, every: 300 } : {}),
  });
}
