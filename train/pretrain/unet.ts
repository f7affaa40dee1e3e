/**
 * Stage 3: the U-Net on the warm-started text encoder, v-prediction. The text encoder stays as it is: trained along, it
 * loses the place of things (from 100% to chance by a linear probe) long before the U-Net asks for it. Phases differ in
 * the timesteps drawn and in how much of each set of pictures they see.
 */
import {
  type Backend,
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
import { idsTensor, type TextEncoder } from '../../models/clip/text-encoder.ts';
import type { Tokenizer } from '../../models/clip/tokenizer.ts';
import { unetSchema } from '../../models/config.ts';
import { addNoise, makeSchedule, parseSchedulerConfig, trainingTarget } from '../../models/schedulers/index.ts';
import { type UNet, unet, unetSpec } from '../../models/unet/index.ts';
import { init } from '../../nn/index.ts';
import { contextProgram } from '../model/programs.ts';
import { LATENT, SEED, schedulerConfig, unetConfig } from './config.ts';
import { trainStage, warmCosine, warmFlat } from './stage.ts';
import { textParsed } from './text-encoder.ts';

export const unetParsed = unetSchema.parse(unetConfig);
export const schedule = makeSchedule(parseSchedulerConfig(schedulerConfig));
const BATCH = 16;
const LENGTH = 77;
const EACH = LATENT * LATENT * 4;

export type Denoiser = { readonly unet: UNet; readonly text: TextEncoder };
type Batch = { readonly x: Tensor; readonly t: Tensor; readonly context: Tensor; readonly target: Tensor };

function loss(p: UNet, { x, t, context, target }: Batch): Tensor {
  const d = sub(unet(p, unetParsed, x, t, context), target);
  return mean(mul(d, d));
}

/** Hidden states of many captions, [77·48] each: computed once, since the text encoder does not change. */
export async function encodeCaptions(
  backend: Backend,
  text: TextEncoder,
  tokenizer: Tokenizer,
  captions: readonly string[],
): Promise<Float32Array[]> {
  const run = contextProgram(backend, textParsed);
  const out: Float32Array[] = [];
  for (let from = 0; from < captions.length; from += 64) {
    const some = captions.slice(from, from + 64);
    const h = (await read(run(text, idsTensor(some.map((c) => tokenizer.encode(c).ids))))) as Float32Array;
    const each = h.length / some.length;
    for (let i = 0; i < some.length; i++) out.push(h.slice(i * each, (i + 1) * each));
  }
  run.trim();
  return out;
}

/** Pictures that a phase draws from. */
export interface Latents {
  /** scaled posterior means, NHWC */
  readonly latents: readonly Float32Array[];
  /** hidden states of the captions */
  readonly contexts: readonly Float32Array[];
  /** share of the batch */
  readonly share: number;
}
export interface Phase {
  readonly name: string;
  readonly steps: number;
  readonly lr: number;
  /** this share of the timesteps is uniform in [from, 999], the rest anywhere */
  readonly share: number;
  readonly from: number;
  /** the rate stays flat up to the last so many steps; without it, it follows a cosine */
  readonly tail?: number;
  /** decay of the weights' moving average */
  readonly ema: number;
}

export async function trainPhase(
  backend: Backend,
  folder: string,
  phase: Phase,
  start: UNet | undefined,
  sets: readonly Latents[],
  empty: Float32Array,
  probe?: (step: number, averaged: UNet) => Promise<boolean>,
): Promise<UNet> {
  const batch = (step: number): Batch => {
    const r = randomOf(subkey(seedKey(SEED), `${phase.name} ${step}`));
    const [z, noise] = [new Float32Array(BATCH * EACH), new Float32Array(BATCH * EACH)];
    const width = empty.length;
    const [t, context] = [new Float32Array(BATCH), new Float32Array(BATCH * width)];
    for (let b = 0; b < BATCH; b++) {
      const data = sets[r.weighted(sets.map(({ share }) => share))]!;
      const i = r.int(data.latents.length);
      z.set(data.latents[i]!, b * EACH);
      context.set(r.chance(0.1) ? empty : data.contexts[i]!, b * width);
      t[b] = r.chance(phase.share) ? phase.from + r.int(1000 - phase.from) : r.int(1000);
      for (let j = 0; j < EACH; j++) noise[b * EACH + j] = r.normal();
    }
    const shape = [BATCH, LATENT, LATENT, 4];
    return {
      x: tensor(addNoise(schedule, z, noise, t) as Float32Array, shape),
      t: tensor(t),
      context: tensor(context, [BATCH, LENGTH, width / LENGTH]),
      target: tensor(trainingTarget(schedule, z, noise, t) as Float32Array, shape),
    };
  };
  return trainStage<UNet, Batch>({
    name: phase.name,
    backend,
    folder,
    params: start ?? (init(unetSpec(unetParsed), SEED + 3) as UNet),
    steps: phase.steps,
    loss,
    batch,
    lr:
      phase.tail === undefined
        ? warmCosine(phase.lr, 100, phase.steps)
        : warmFlat(phase.lr, 100, phase.steps, phase.tail),
    adam: { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 1e-3, decoupled: true },
    clip: 1,
    ema: phase.ema,
    ...(probe ? { probe, every: 300 } : {}),
  });
}
