/**
 * What every sampler is: a list of timesteps and a pure step from x_t to the next sample.
 *
 * A sampler never changes: what a multistep method remembers is a value that `step` takes and returns. Model outputs
 * are flat arrays; all coefficients are f64 and each result has the type of the sample (f32 or f64).
 */
import type { PredictionType } from './config.ts';
import { alphaBar, linspace, type Samples, type Schedule } from './schedule.ts';

/** What a sampler remembers between calls. */
export type SamplerState = {
  /** Number of calls made; the next call is at `timesteps[index]`. */
  readonly index: number;
  /** Former model outputs (in the form the method needs), newest first. */
  readonly history: readonly Samples[];
  /** A sample kept for a repeated timestep (PNDM). */
  readonly held?: Samples;
};

/** How noise is removed step by step: pure, all state goes in and out. */
export type Sampler = {
  /** What `--sampler` takes. */
  readonly name: string;
  /** The timestep of every model call, first to last; not whole numbers for some (Euler). */
  readonly timesteps: readonly number[];
  /** Noise levels σ = √(1−ᾱ)/√ᾱ of the calls and the final one, for the methods that work in σ. */
  readonly sigmas?: readonly number[];
  /** The start is standard normal noise times this. */
  readonly initNoiseSigma: number;
  /** True when `step` needs a fresh standard normal at every call. */
  readonly stochastic: boolean;
  /** State before the first call. */
  readonly start: SamplerState;
  /** What the model is given for this sample. */
  scaleModelInput(state: SamplerState, sample: Samples): Samples;
  /** One step: (model output at `timesteps[state.index]`, sample) → next state, next sample. */
  step(state: SamplerState, output: Samples, sample: Samples, noise?: Samples): readonly [SamplerState, Samples];
};

export const START: SamplerState = { index: 0, history: [] };

/** Σ cᵢ·xᵢ in the type of `like`; a coefficient of zero drops its array (so that 0·∞ cannot appear). */
export function combine(like: Samples, terms: readonly (readonly [number, Samples])[]): Samples {
  const sum = new Float64Array(like.length);
  for (const [c, x] of terms) {
    if (x.length !== sum.length)
      throw new RangeError(`model output or noise has ${x.length} values, the sample ${sum.length}`);
    if (c !== 0) for (let i = 0; i < sum.length; i++) sum[i]! += c * x[i]!;
  }
  return like instanceof Float32Array ? Float32Array.from(sum) : sum;
}

/** @throws Error when a stochastic step is called without its standard normal */
export function needNoise(noise: Samples | undefined): Samples {
  if (!noise) throw new Error('this sampler adds noise: pass a standard normal to every step');
  return noise;
}

/** Coefficients (of output, of sample) that give x₀ and ε from what the model predicts, at signal a = √ᾱ and noise b = √(1−ᾱ). */
export function predictionCoefficients(
  prediction: PredictionType,
  a: number,
  b: number,
): { readonly x0: readonly [number, number]; readonly epsilon: readonly [number, number] } {
  if (prediction === 'v_prediction') return { x0: [-b, a], epsilon: [a, b] };
  if (prediction === 'sample') return { x0: [1, 0], epsilon: [-a / b, 1 / b] };
  return { x0: [-b / a, 1 / a], epsilon: [1, 0] };
}

/** Half to even, as numpy rounds. */
export function roundHalfEven(x: number): number {
  const down = Math.floor(x);
  const rest = x - down;
  if (rest !== 0.5) return Math.round(x);
  return down % 2 === 0 ? down : down + 1;
}

/** @throws RangeError when `steps` is not a whole number from 1 to the schedule's length */
export function checkSteps(schedule: Schedule, steps: number, most = schedule.length): void {
  if (!Number.isInteger(steps) || steps < 1 || steps > most)
    throw new RangeError(`steps: expected a whole number from 1 to ${most}, found ${steps}`);
}

/**
 * The schedule as a sampler reads it: without `timestep_spacing` in the file its own class's default holds, as in
 * diffusers' `from_config`: `linspace` for DPM-Solver and Euler, `leading` for the others.
 */
export const spacedBy = (schedule: Schedule, otherwise: 'leading' | 'linspace'): Schedule =>
  schedule.config.spacingGiven
    ? schedule
    : { ...schedule, config: { ...schedule.config, timestep_spacing: otherwise } };

/**
 * Timesteps of `steps` model calls, falling. Table 2 of Lin et al. 2023 (the three spacings), with diffusers' roundings.
 * @param rounded false leaves linspace fractional (Euler)
 */
export function spacedTimesteps(schedule: Schedule, steps: number, rounded = true): number[] {
  const { timestep_spacing: spacing, steps_offset: offset } = schedule.config;
  const length = schedule.length;
  checkSteps(schedule, steps);
  if (spacing === 'trailing')
    return Array.from({ length: steps }, (_, i) => roundHalfEven(length - (i * length) / steps) - 1);
  if (spacing === 'linspace')
    return linspace(0, length - 1, steps)
      .reverse()
      .map((t) => (rounded ? roundHalfEven(t) : t));
  const ratio = Math.floor(length / steps);
  return inTable(
    schedule,
    Array.from({ length: steps }, (_, i) => (steps - 1 - i) * ratio + offset),
  );
}

/** @throws RangeError when steps_offset pushes a timestep past the end of the table */
export function inTable(schedule: Schedule, timesteps: number[]): number[] {
  const past = timesteps.find((t) => t > schedule.length - 1);
  if (past !== undefined)
    throw new RangeError(
      `scheduler config: steps_offset: ${schedule.config.steps_offset} makes timestep ${past}, the last one is ${schedule.length - 1}`,
    );
  return timesteps;
}

/** ᾱ before the first training step: 1, or ᾱ₀ where `set_alpha_to_one` is false (as in SD). */
export const finalAlphaBar = (schedule: Schedule): number =>
  schedule.config.set_alpha_to_one ? 1 : schedule.alphasCumprod[0]!;

/** ᾱ at t, or the final one for t < 0. @throws RangeError past the table */
export const alphaBarOrFinal = (schedule: Schedule, t: number): number =>
  t < 0 ? finalAlphaBar(schedule) : alphaBar(schedule, t);

/**
 * Refuses a start where the signal is exactly zero and the model predicts noise: x₀ = (x − b·ε)/0.
 * @throws RangeError
 */
export function refuseZeroSignal(schedule: Schedule, timesteps: readonly number[]): void {
  const at = timesteps.find((t) => schedule.alphasCumprod[t] === 0);
  if (at !== undefined && schedule.config.prediction_type === 'epsilon')
    throw new RangeError(
      `scheduler config: rescale_betas_zero_snr leaves no signal at timestep ${at}, which needs prediction_type v_prediction, found epsilon`,
    );
}

/** Classifier-free guidance: uncond + scale·(cond − uncond). @throws RangeError when the lengths differ */
export const guide = (uncond: Samples, cond: Samples, scale: number): Samples =>
  combine(uncond, [
    [1 - scale, uncond],
    [scale, cond],
  ]);

/** What `runSampler` may be told beside model and noise. */
export type RunOptions = {
  /** The standard normal for call k; needed by stochastic samplers. */
  readonly noise?: (call: number) => Samples;
  /** Called after every step with the new sample. */
  readonly onStep?: (call: number, calls: number, sample: Samples) => void;
};

/**
 * Runs a sampler from standard normal noise to a sample: one model call per timestep.
 * @param model what is to be called with the (scaled) sample and the timestep; gives ε, v or x₀
 * @throws Error when a stochastic sampler gets no noise; RangeError when lengths differ
 * cost: one model call per timestep, O(values · terms) for the step itself
 * @example await runSampler(createSampler('ddim', schedule, 20), (x, t) => unet(x, t), normal(4 * 16 * 16))
 */
export async function runSampler(
  sampler: Sampler,
  model: (input: Samples, timestep: number, call: number) => Promise<Samples> | Samples,
  start: Samples,
  options: RunOptions = {},
): Promise<Samples> {
  if (sampler.stochastic && !options.noise) throw new Error(`sampler ${sampler.name} needs noise at every step`);
  const calls = sampler.timesteps.length;
  let state = sampler.start;
  let sample = combine(start, [[sampler.initNoiseSigma, start]]);
  for (let call = 0; call < calls; call++) {
    const output = await model(sampler.scaleModelInput(state, sample), sampler.timesteps[call]!, call);
    [state, sample] = sampler.step(state, output, sample, options.noise?.(call));
    options.onStep?.(call, calls, sample);
  }
  return sample;
}
