/**
 * How much the loss of a sample counts, by its timestep: loss = mean over samples of weight(tᵢ)·mean (prediction − target)².
 *
 * Plain MSE on ε spends most of its effort on the last bits of grain (low t, high SNR); every other weight here moves
 * effort to the timesteps that decide what is in the picture. With s = SNR_t:
 *
 *   name        ε-prediction            v-prediction
 *   plain       1                       1                          Ho et al. 2020 (the paper's)
 *   clip-snr    clip(1/s, low, high)    the same                   turns few fine-tuning steps into films
 *   min-snr     min(s, γ)/s             min(s, γ)/(s + 1)          Hang et al. 2023
 *   debiased    1/√min(s, 1000)         1/(min(s, 1000) + 1)       Yu et al. 2023, as kohya-ss has it
 *   v-like-ε    1                       m/(m+1), m = min(s, 1000)  kohya's scale_v_pred_loss_like_noise_pred
 *
 * x₀-prediction: min-snr takes min(s, γ) and the others the ε column.
 */
import { z } from 'zod';
import type { PredictionType } from './config.ts';

export const LOSS_WEIGHTS = ['plain', 'clip-snr', 'min-snr', 'debiased', 'v-like-noise'] as const;
export type LossWeightName = (typeof LOSS_WEIGHTS)[number];

export type LossWeight = {
  readonly name: LossWeightName;
  /** γ of min-snr (5). */
  readonly gamma?: number;
  /** Bounds of clip-snr (0.05 and 8, for ε; with v, whose loss weighs high t already, 1 is a better upper bound). */
  readonly low?: number;
  readonly high?: number;
};

/** The same for settings from outside. */
export const lossWeightSchema = z
  .object({
    name: z.enum(LOSS_WEIGHTS).default('plain'),
    gamma: z.number().gt(0).max(1e6).optional(),
    low: z.number().min(0).max(1e6).optional(),
    high: z.number().gt(0).max(1e6).optional(),
  })
  .refine(({ low = CLIP_LOW, high = CLIP_HIGH }) => low <= high, {
    path: ['low'],
    error: 'must not exceed high',
  });

const CLIP_LOW = 0.05;
const CLIP_HIGH = 8;
/** kohya's bound on the SNR, so that low timesteps keep some weight. */
const SNR_BOUND = 1000;

/**
 * Weight of one timestep from its SNR. SNR 0 (zero terminal SNR) gives ∞ or NaN where the formula does: only v-prediction
 * and clip-snr make sense there.
 * @example lossWeight({ name: 'min-snr' }, 'epsilon', 10) // 0.5
 */
export function lossWeight(weight: LossWeight, prediction: PredictionType, snr: number): number {
  const v = prediction === 'v_prediction';
  const bounded = Math.min(snr, SNR_BOUND);
  switch (weight.name) {
    case 'plain':
      return 1;
    case 'clip-snr':
      return Math.min(Math.max(1 / snr, weight.low ?? CLIP_LOW), weight.high ?? CLIP_HIGH);
    case 'min-snr': {
      const least = Math.min(snr, weight.gamma ?? 5);
      if (prediction === 'sample') return least;
      return least / (v ? snr + 1 : snr);
    }
    case 'debiased':
      return v ? 1 / (bounded + 1) : 1 / Math.sqrt(bounded);
    case 'v-like-noise':
      return v ? bounded / (bounded + 1) : 1;
  }
}

/**
 * Weights of all timesteps, [T].
 * @throws Error when a weight is not finite, naming the timestep
 * @example lossWeights({ name: 'clip-snr' }, 'epsilon', snr(schedule))[999]
 */
export function lossWeights(weight: LossWeight, prediction: PredictionType, snr: ArrayLike<number>): Float64Array {
  const weights = Float64Array.from(snr, (s) => lossWeight(weight, prediction, s));
  const bad = weights.findIndex((w) => !Number.isFinite(w));
  if (bad >= 0)
    throw new Error(
      `loss weight ${weight.name} with prediction_type ${prediction} is ${weights[bad]} at timestep ${bad}, where the SNR is ${snr[bad]}`,
    );
  return weights;
}
