/**
 * Euler and Euler ancestral: steps along dx/dσ = (x − x̂₀)/σ in the space where x = x₀ + σ·ε.
 *
 * The model sees x/√(σ²+1), which is x_t of the schedule. Ancestral: go down to σ_down, then add σ_up of fresh noise,
 * σ_up² = σ'²·(σ²−σ'²)/σ², σ_down² = σ'² − σ_up².
 *
 * Source: Karras et al. 2022, algorithm 1; diffusers `EulerDiscreteScheduler`, `EulerAncestralDiscreteScheduler`.
 */
import {
  combine,
  needNoise,
  predictionCoefficients,
  type Sampler,
  type SamplerState,
  START,
  spacedBy,
  spacedTimesteps,
} from './sampler.ts';
import type { Samples, Schedule } from './schedule.ts';
import { interpolate, karrasSigmas, sigmaTable, sigmaToTimestep } from './sigmas.ts';

export type EulerOptions = {
  /** Noise levels evenly spaced in σ^(1/7). */
  readonly karras?: boolean;
};

function eulerSampler(read: Schedule, steps: number, karras: boolean, ancestral: boolean): Sampler {
  const schedule = spacedBy(read, 'linspace');
  const table = sigmaTable(schedule);
  const spaced = spacedTimesteps(schedule, steps, false);
  const plain = spaced.map((t) => interpolate(table, t));
  const levels = karras ? karrasSigmas(plain[0]!, plain[plain.length - 1]!, steps) : plain;
  const timesteps = karras ? levels.map((sigma) => sigmaToTimestep(table, sigma)) : spaced;
  const sigmas = [...levels, 0];
  const largest = Math.max(...levels);
  const name = ancestral ? 'euler-ancestral' : 'euler';
  return {
    name,
    timesteps,
    sigmas,
    // With leading spacing the first σ lies well below the table's end, where the sample still has signal's variance 1.
    initNoiseSigma: schedule.config.timestep_spacing === 'leading' ? Math.sqrt(largest ** 2 + 1) : largest,
    stochastic: ancestral,
    start: START,
    scaleModelInput: (state, sample) => combine(sample, [[1 / Math.sqrt(sigmas[state.index]! ** 2 + 1), sample]]),
    step({ index }: SamplerState, output: Samples, sample: Samples, noise?: Samples) {
      const sigma = sigmas[index]!;
      const to = sigmas[index + 1]!;
      const up = ancestral ? Math.sqrt((to ** 2 * (sigma ** 2 - to ** 2)) / sigma ** 2) : 0;
      const down = ancestral ? Math.sqrt(to ** 2 - up ** 2) : to;
      const a = 1 / Math.sqrt(sigma ** 2 + 1);
      const { x0 } = predictionCoefficients(schedule.config.prediction_type, a, sigma * a);
      const rate = (down - sigma) / sigma;
      const next = combine(sample, [
        [-rate * x0[0], output],
        [1 + rate * (1 - x0[1] * a), sample],
        ...(up > 0 ? [[up, needNoise(noise)] as const] : []),
      ]);
      return [{ index: index + 1, history: [] }, next];
    },
  };
}

/** @throws RangeError for a wrong number of steps @example euler(schedule, 25, { karras: true }) */
export const euler = (schedule: Schedule, steps: number, { karras = false }: EulerOptions = {}): Sampler =>
  eulerSampler(schedule, steps, karras, false);

/** @throws RangeError for a wrong number of steps @example eulerAncestral(schedule, 25) */
export const eulerAncestral = (schedule: Schedule, steps: number): Sampler =>
  eulerSampler(schedule, steps, false, true);
