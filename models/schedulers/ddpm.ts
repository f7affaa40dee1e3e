/**
 * DDPM: ancestral sampling from the posterior q(x' | x_t, x̂₀) with the small fixed variance.
 *
 *   x' = √ᾱ'·β/(1−ᾱ)·x̂₀ + √α·(1−ᾱ')/(1−ᾱ)·x_t + √(β·(1−ᾱ')/(1−ᾱ))·z,   α = ᾱ/ᾱ', β = 1−α;  no noise at t = 0
 *
 * Source: Ho et al. 2020, formula 7; diffusers `DDPMScheduler`, `variance_type` fixed_small.
 */
import {
  combine,
  needNoise,
  predictionCoefficients,
  refuseZeroSignal,
  type Sampler,
  START,
  spacedBy,
  spacedTimesteps,
} from './sampler.ts';
import { alphaBar, type Schedule } from './schedule.ts';

/** diffusers keeps the variance above this, so that its logarithm exists. */
const SMALLEST_VARIANCE = 1e-20;

/** @throws RangeError for a wrong number of steps @example ddpm(schedule, 1000) */
export function ddpm(read: Schedule, steps: number): Sampler {
  const schedule = spacedBy(read, 'leading');
  const timesteps = spacedTimesteps(schedule, steps);
  refuseZeroSignal(schedule, timesteps);
  return {
    name: 'ddpm',
    timesteps,
    initNoiseSigma: 1,
    stochastic: true,
    start: START,
    scaleModelInput: (_state, sample) => sample,
    step({ index }, output, sample, noise) {
      const t = timesteps[index]!;
      const bar = alphaBar(schedule, t);
      const following = timesteps[index + 1];
      const previous = following === undefined ? 1 : alphaBar(schedule, following);
      const alpha = bar / previous;
      const toX0 = (Math.sqrt(previous) * (1 - alpha)) / (1 - bar);
      const variance = Math.max((1 - alpha) * ((1 - previous) / (1 - bar)), SMALLEST_VARIANCE);
      const { x0 } = predictionCoefficients(schedule.config.prediction_type, Math.sqrt(bar), Math.sqrt(1 - bar));
      const next = combine(sample, [
        [toX0 * x0[0], output],
        [toX0 * x0[1] + (Math.sqrt(alpha) * (1 - previous)) / (1 - bar), sample],
        ...(t > 0 ? [[Math.sqrt(variance), needNoise(noise)] as const] : []),
      ]);
      return [{ index: index + 1, history: [] }, next];
    },
  };
}
