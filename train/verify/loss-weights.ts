/** Checks SNR, loss weights, zero terminal SNR and noise offset of a golden directory (`weights.*`, SD 1.5's schedule). */
import { join } from 'node:path';
import { z } from 'zod';
import type { PredictionType } from '../../models/schedulers/config.ts';
import { makeSchedule, parseSchedulerConfig, SD15_SCHEDULER, snr } from '../../models/schedulers/index.ts';
import { type LossWeight, lossWeights } from '../../models/schedulers/loss-weights.ts';
import { offsetNoise } from '../../models/schedulers/noise-offset.ts';
import { type GoldenCase, type GoldenTensors, need, readGoldenJson, readGoldenTensors } from './golden.ts';
import { F64_TOLERANCE, F64_WHY } from './trajectory.ts';

export const WEIGHT_FILES = ['weights.json', 'weights.safetensors'] as const;

const schema = z.object({
  offset_cases: z.record(z.string(), z.object({ offset: z.number(), adaptive: z.number().nullable() })).default({}),
  loss: z.record(z.string(), z.number()).default({}),
});

type Named = { readonly weight: LossWeight; readonly prediction: PredictionType };

/** `min_snr.5.epsilon`, `debiased.v_prediction`, `scale_v_like_noise`, `unweighted` → our weight, or undefined. */
function weightOf(name: string): Named | undefined {
  if (name === 'scale_v_like_noise') return { weight: { name: 'v-like-noise' }, prediction: 'v_prediction' };
  if (name === 'unweighted') return { weight: { name: 'plain' }, prediction: 'epsilon' };
  const match = /^(min_snr\.(?<gamma>[\d.]+)|debiased)\.(?<prediction>epsilon|v_prediction)$/.exec(name);
  if (!match) return undefined;
  const { gamma, prediction } = match.groups as { gamma?: string; prediction: PredictionType };
  const weight: LossWeight = gamma ? { name: 'min-snr', gamma: Number(gamma) } : { name: 'debiased' };
  return { weight, prediction };
}

/** Largest relative difference of an entry: the tables span five orders of magnitude. Entries of 0 count absolutely. */
function entrywiseError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Infinity;
  const errors = Array.from(expected, (b, i) => Math.abs(actual[i]! - b) / (Math.abs(b) || 1));
  return errors.reduce((worst, error) => (error <= worst ? worst : Number.isNaN(error) ? Infinity : error), 0);
}

/** mean over samples of w(tᵢ)·mean (prediction − target)² */
function weightedLoss(weights: Float64Array, tensors: GoldenTensors): number {
  const [prediction, target, timesteps] = ['prediction', 'target', 'timesteps'].map(
    (n) => need(tensors, `loss.${n}`).data,
  );
  const size = prediction!.length / timesteps!.length;
  const squares = prediction!.map((p, i) => weights[timesteps![Math.floor(i / size)]!]! * (p - target![i]!) ** 2);
  return squares.reduce((sum, x) => sum + x, 0) / squares.length;
}

/** @throws FileError or Error when a file or a tensor is missing or malformed */
export async function* verifyWeights(directory: string): AsyncGenerator<GoldenCase> {
  const json = await readGoldenJson(directory, 'weights.json', schema);
  const tensors = await readGoldenTensors(join(directory, 'weights.safetensors'));
  const table = snr(makeSchedule(SD15_SCHEDULER));
  const zero = makeSchedule(parseSchedulerConfig({ ...SD15_SCHEDULER, rescale_betas_zero_snr: true }));
  const compare = (name: string, actual: ArrayLike<number>, expected: ArrayLike<number>): GoldenCase => ({
    case: `weights ${name}`,
    error: entrywiseError(actual, expected),
    tolerance: F64_TOLERANCE,
    why: F64_WHY,
  });

  for (const [name, { data }] of tensors) {
    const named = weightOf(name);
    if (named) yield compare(name, lossWeights(named.weight, named.prediction, table), data);
    else if (name === 'snr') yield compare(name, table, data);
    else if (name === 'zero_snr.betas') yield compare(name, zero.betas, data);
    else if (name === 'zero_snr.alphas_cumprod') yield compare(name, zero.alphasCumprod, data);
  }
  for (const [name, loss] of Object.entries(json.loss)) {
    const named = weightOf(name);
    if (!named) continue;
    const weights = lossWeights(named.weight, named.prediction, table);
    yield compare(`loss ${name}`, [weightedLoss(weights, tensors)], [loss]);
  }
  for (const [name, settings] of Object.entries(json.offset_cases)) {
    const [noise, normal, latents] = ['noise', 'normal', 'latents'].map((n) => need(tensors, `offset.${n}`).data);
    yield compare(
      `offset ${name}`,
      offsetNoise(noise!, normal!, latents!, settings),
      need(tensors, `offset.${name}`).data,
    );
  }
}
