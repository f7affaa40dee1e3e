/**
 * PNDM without Runge-Kutta steps (PLMS), SD 1.5's own sampler: a linear multistep method of order up to 4 on ε̂.
 *
 * The second timestep is visited twice: call 0 makes a trial step, call 1 repeats it from the kept sample with the
 * mean of both slopes (Heun), later calls extrapolate from the last 2, 3 and 4 outputs (Adams–Bashforth).
 *
 *   x' = √(ᾱ'/ᾱ)·x − (ᾱ'−ᾱ)·ε̂ / (ᾱ·√(1−ᾱ') + √(ᾱ·(1−ᾱ)·ᾱ'))
 *
 * Source: Liu et al. 2022, formulas 9 and 12; diffusers `PNDMScheduler` with `skip_prk_steps`.
 */
import {
  alphaBarOrFinal,
  combine,
  predictionCoefficients,
  type Sampler,
  START,
  spacedBy,
  spacedTimesteps,
} from './sampler.ts';
import { alphaBar, type Samples, type Schedule } from './schedule.ts';

/** Adams–Bashforth weights of the newest 2, 3 and 4 outputs. */
const ADAMS_BASHFORTH: readonly (readonly number[])[] = [
  [1],
  [3 / 2, -1 / 2],
  [23 / 12, -16 / 12, 5 / 12],
  [55 / 24, -59 / 24, 37 / 24, -9 / 24],
];

/** @throws RangeError for a wrong number of steps, prediction type `sample` or zero terminal SNR @example pndm(schedule, 50) // 51 calls */
export function pndm(read: Schedule, steps: number): Sampler {
  const schedule = spacedBy(read, 'leading');
  const prediction = schedule.config.prediction_type;
  if (prediction === 'sample')
    throw new RangeError('pndm: expected prediction_type epsilon or v_prediction, found sample');
  const once = spacedTimesteps(schedule, steps);
  const dark = once.find((t) => schedule.alphasCumprod[t] === 0);
  if (dark !== undefined)
    throw new RangeError(
      `pndm: this base's schedule leaves no signal at timestep ${dark} (zero terminal SNR), by which pndm divides; use another sampler, such as ddim`,
    );
  const timesteps = steps === 1 ? once : [once[0]!, once[1]!, ...once.slice(1)];
  const stride = Math.floor(schedule.length / steps);

  /** From timestep `from` to `to`; v is turned into ε at `from`. */
  const advance = (sample: Samples, output: Samples, from: number, to: number): Samples => {
    const bar = alphaBar(schedule, from);
    const next = alphaBarOrFinal(schedule, to);
    const { epsilon } = predictionCoefficients(prediction, Math.sqrt(bar), Math.sqrt(1 - bar));
    const slope = -(next - bar) / (bar * Math.sqrt(1 - next) + Math.sqrt(bar * (1 - bar) * next));
    return combine(sample, [
      [Math.sqrt(next / bar) + slope * epsilon[1], sample],
      [slope * epsilon[0], output],
    ]);
  };

  return {
    name: 'pndm',
    timesteps,
    initNoiseSigma: 1,
    stochastic: false,
    start: START,
    scaleModelInput: (_state, sample) => sample,
    step({ index, history, held }, output, sample) {
      const t = timesteps[index]!;
      if (index === 1) {
        const mean = combine(output, [
          [0.5, output],
          [0.5, history[0]!],
        ]);
        return [{ index: 2, history }, advance(held!, mean, t + stride, t)];
      }
      const outputs = [output, ...history].slice(0, 4);
      const weights = ADAMS_BASHFORTH[outputs.length - 1]!;
      const slope = combine(
        output,
        outputs.map((x, i) => [weights[i]!, x] as const),
      );
      const state = { index: index + 1, history: outputs, ...(index === 0 ? { held: sample } : {}) };
      return [state, advance(sample, slope, t, t - stride)];
    },
  };
}
