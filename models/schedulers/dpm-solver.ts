/**
 * DPM-Solver++ (multistep, order 1 or 2) on x̂₀: the exponential integrator in λ = log(√ᾱ/√(1−ᾱ)) = −log σ.
 *
 *   order 1   x' = (b'/b)·x − a'·(e^{−h}−1)·D₀                         h = λ'−λ,  a = √ᾱ,  b = √(1−ᾱ)
 *   midpoint  … − ½·a'·(e^{−h}−1)·D₁                                   D₀ = x̂₀(now), D₁ = (D₀ − x̂₀(before))·h/h_before
 *   heun      … + a'·((e^{−h}−1)/h + 1)·D₁
 *
 * The first call is of order 1; so is the last one where the final σ is 0 or there are fewer than 15 steps.
 * Source: Lu et al. 2022, "DPM-Solver++", algorithm 2; diffusers `DPMSolverMultistepScheduler`.
 */
import {
  checkSteps,
  combine,
  inTable,
  predictionCoefficients,
  roundHalfEven,
  type Sampler,
  START,
  spacedBy,
  spacedTimesteps,
} from './sampler.ts';
import { linspace, type Schedule } from './schedule.ts';
import { interpolate, karrasSigmas, sigmaTable, sigmaToTimestep } from './sigmas.ts';

export type DpmSolverOptions = {
  readonly order?: 1 | 2;
  readonly solver?: 'midpoint' | 'heun';
  /** Noise levels evenly spaced in σ^(1/7). */
  readonly karras?: boolean;
  /** Where the last step ends: σ = 0, or the smallest σ of training. */
  readonly finalSigma?: 'zero' | 'sigma_min';
};

/** Fewer steps than this end with an order-1 step whatever the final σ. */
const FEW_STEPS = 15;

/** As `spacedTimesteps`, but leading and linspace divide the range into steps + 1 parts and leave out the lowest. */
function timestepsOf(schedule: Schedule, steps: number): number[] {
  const { timestep_spacing: spacing, steps_offset: offset } = schedule.config;
  if (spacing === 'trailing') return spacedTimesteps(schedule, steps);
  checkSteps(schedule, steps, schedule.length - 1);
  if (spacing === 'linspace')
    return linspace(0, schedule.length - 1, steps + 1)
      .slice(1)
      .reverse()
      .map(roundHalfEven);
  const ratio = Math.floor(schedule.length / (steps + 1));
  return inTable(
    schedule,
    Array.from({ length: steps }, (_, i) => (steps - i) * ratio + offset),
  );
}

/** a = √ᾱ and b = √(1−ᾱ) at noise level σ = b/a. */
function signalAndNoise(sigma: number): { a: number; b: number } {
  const a = 1 / Math.sqrt(sigma * sigma + 1);
  return { a, b: sigma * a };
}

/** @throws RangeError for a wrong number of steps @example dpmSolver(schedule, 20, { karras: true }) */
export function dpmSolver(read: Schedule, steps: number, options: DpmSolverOptions = {}): Sampler {
  const schedule = spacedBy(read, 'linspace');
  const { order = 2, solver = 'midpoint', karras = false, finalSigma = 'zero' } = options;
  const table = sigmaTable(schedule);
  const spaced = timestepsOf(schedule, steps);
  const levels = karras
    ? karrasSigmas(table[table.length - 1]!, table[0]!, steps)
    : spaced.map((t) => interpolate(table, t));
  const timesteps = karras ? levels.map((sigma) => roundHalfEven(sigmaToTimestep(table, sigma))) : spaced;
  const sigmas = [...levels, finalSigma === 'zero' ? 0 : table[0]!];
  const lambda = (i: number) => -Math.log(sigmas[i]!);
  return {
    name: 'dpm-solver++',
    timesteps,
    sigmas,
    initNoiseSigma: 1,
    stochastic: false,
    start: START,
    scaleModelInput: (_state, sample) => sample,
    step({ index, history }, output, sample) {
      const from = signalAndNoise(sigmas[index]!);
      const to = signalAndNoise(sigmas[index + 1]!);
      const { x0 } = predictionCoefficients(schedule.config.prediction_type, from.a, from.b);
      const now = combine(output, [
        [x0[0], output],
        [x0[1], sample],
      ]);
      const h = lambda(index + 1) - lambda(index);
      const decay = Math.expm1(-h);
      const lastCall = index === steps - 1 && (finalSigma === 'zero' || steps < FEW_STEPS);
      const before = history[0];
      const second = order === 2 && before !== undefined && !lastCall;
      const ratio = second ? h / (lambda(index) - lambda(index - 1)) : 0;
      const slope = second ? to.a * (solver === 'heun' ? decay / h + 1 : -decay / 2) * ratio : 0;
      const next = combine(sample, [
        [to.b / from.b, sample],
        [-to.a * decay + slope, now],
        ...(second ? [[-slope, before] as const] : []),
      ]);
      return [{ index: index + 1, history: [now] }, next];
    },
  };
}
