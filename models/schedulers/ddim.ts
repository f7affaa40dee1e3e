/**
 * DDIM: the deterministic sampler (η = 0) and its stochastic family (η up to 1, which is DDPM's variance).
 *
 *   x' = √ᾱ'·x̂₀ + √(1−ᾱ'−σ²)·ε̂ + σ·z,   σ = η·√((1−ᾱ')/(1−ᾱ)·(1−ᾱ/ᾱ')),   ᾱ' = ᾱ at t − T/steps
 *
 * Source: Song et al. 2021, formulas 12 and 16; diffusers `DDIMScheduler`.
 */
import {
  alphaBarOrFinal,
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

export type DdimOptions = {
  /** Share of the noise that is drawn afresh, 0..1. */
  readonly eta?: number;
};

/** @throws RangeError for a wrong number of steps or η outside 0..1 @example ddim(schedule, 50) */
export function ddim(read: Schedule, steps: number, { eta = 0 }: DdimOptions = {}): Sampler {
  const schedule = spacedBy(read, 'leading');
  if (!(eta >= 0 && eta <= 1)) throw new RangeError(`eta: expected a number from 0 to 1, found ${eta}`);
  const timesteps = spacedTimesteps(schedule, steps);
  refuseZeroSignal(schedule, timesteps);
  const stride = Math.floor(schedule.length / steps);
  return {
    name: 'ddim',
    timesteps,
    initNoiseSigma: 1,
    stochastic: eta > 0,
    start: START,
    scaleModelInput: (_state, sample) => sample,
    step({ index }, output, sample, noise) {
      const t = timesteps[index]!;
      const bar = alphaBar(schedule, t);
      const previous = alphaBarOrFinal(schedule, t - stride);
      const sigma = eta * Math.sqrt(((1 - previous) / (1 - bar)) * (1 - bar / previous));
      const { x0, epsilon } = predictionCoefficients(
        schedule.config.prediction_type,
        Math.sqrt(bar),
        Math.sqrt(1 - bar),
      );
      const toX0 = Math.sqrt(previous);
      const direction = Math.sqrt(1 - previous - sigma * sigma);
      const next = combine(sample, [
        [toX0 * x0[0] + direction * epsilon[0], output],
        [toX0 * x0[1] + direction * epsilon[1], sample],
        ...(sigma > 0 ? [[sigma, needNoise(noise)] as const] : []),
      ]);
      return [{ index: index + 1, history: [] }, next];
    },
  };
}
