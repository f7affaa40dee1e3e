/**
 * The forward process of diffusion: a table of ᾱ_t and the three things done with it.
 *
 *   x_t = √ᾱ_t · x₀ + √(1−ᾱ_t) · ε          v_t = √ᾱ_t · ε − √(1−ᾱ_t) · x₀          SNR_t = ᾱ_t / (1−ᾱ_t)
 *
 * All arithmetic is f64; samples may be f32 or f64 and keep their type.
 * Reference: diffusers `DDPMScheduler` (Ho et al. 2020; v: Salimans & Ho 2022; zero SNR: Lin et al. 2023).
 */
import type { PredictionType, SchedulerConfig } from './config.ts';

/** Latents, noise or model outputs, flat. */
export type Samples = Float32Array | Float64Array;

/** The tables of one noise schedule, indexed by the training timestep 0..T−1. */
export type Schedule = {
  /** What it was made from. */
  readonly config: SchedulerConfig;
  /** T, the number of training timesteps. */
  readonly length: number;
  /** βₜ, the variance of the noise that step t adds. */
  readonly betas: Float64Array;
  /** ᾱₜ = Π (1 − βₛ) over s ≤ t. */
  readonly alphasCumprod: Float64Array;
};

/** n values from `from` to `to`, both included (numpy's linspace). */
export const linspace = (from: number, to: number, n: number): number[] =>
  Array.from({ length: n }, (_, i) => (i === n - 1 && n > 1 ? to : from + (i * (to - from)) / Math.max(1, n - 1)));

/** β of the cosine schedule of Nichol & Dhariwal: 1 − f((i+1)/T)/f(i/T), f(u) = cos²((u+.008)/1.008·π/2), at most .999. */
function cosineBetas(length: number): number[] {
  const bar = (u: number) => Math.cos((((u + 0.008) / 1.008) * Math.PI) / 2) ** 2;
  return Array.from({ length }, (_, i) => Math.min(1 - bar((i + 1) / length) / bar(i / length), 0.999));
}

function baseBetas(config: SchedulerConfig): number[] {
  const { beta_start, beta_end, num_train_timesteps: length } = config;
  if (config.trained_betas) return [...config.trained_betas];
  if (config.beta_schedule === 'linear') return linspace(beta_start, beta_end, length);
  if (config.beta_schedule === 'squaredcos_cap_v2') return cosineBetas(length);
  return linspace(Math.sqrt(beta_start), Math.sqrt(beta_end), length).map((root) => root * root);
}

/** ᾱ_t = ∏_{s≤t} (1−β_s). */
export function cumulativeAlphas(betas: ArrayLike<number>): Float64Array {
  const bar = new Float64Array(betas.length);
  let product = 1;
  for (let t = 0; t < bar.length; t++) {
    product *= 1 - betas[t]!;
    bar[t] = product;
  }
  return bar;
}

/**
 * Moves and stretches √ᾱ so that ᾱ_{T−1} = 0 and ᾱ₀ stays; returns the β that give it (the last one is 1).
 * Source: Lin et al. 2023, "Common diffusion noise schedules and sample steps are flawed", algorithm 1.
 */
export function zeroTerminalSnr(betas: ArrayLike<number>): Float64Array {
  const roots = cumulativeAlphas(betas).map(Math.sqrt);
  const first = roots[0]!;
  const last = roots[roots.length - 1]!;
  const bar = roots.map((root) => ((root - last) * (first / (first - last))) ** 2);
  return bar.map((value, t) => 1 - (t === 0 ? value : value / bar[t - 1]!));
}

/**
 * Builds the tables of a noise schedule.
 * @example makeSchedule(SD15_SCHEDULER).alphasCumprod[999] // 0.00466…
 */
export function makeSchedule(config: SchedulerConfig): Schedule {
  const plain = baseBetas(config);
  const betas = config.rescale_betas_zero_snr ? zeroTerminalSnr(plain) : Float64Array.from(plain);
  return { config, length: betas.length, betas, alphasCumprod: cumulativeAlphas(betas) };
}

/** @throws RangeError when t is not a whole number of 0..T−1 */
export function alphaBar(schedule: Schedule, t: number): number {
  const value = schedule.alphasCumprod[t];
  if (value === undefined)
    throw new RangeError(`timestep ${t}: expected a whole number from 0 to ${schedule.length - 1}`);
  return value;
}

/** √ᾱ_t (the signal's share) and √(1−ᾱ_t) (the noise's) of every given timestep; what a training graph needs as data. */
export function noiseCoefficients(
  schedule: Schedule,
  timesteps: ArrayLike<number>,
): { readonly signal: Float64Array; readonly noise: Float64Array } {
  const bar = Float64Array.from(timesteps, (t) => alphaBar(schedule, t));
  return { signal: bar.map(Math.sqrt), noise: bar.map((a) => Math.sqrt(1 - a)) };
}

const like = (sample: Samples): Samples =>
  sample instanceof Float32Array ? new Float32Array(sample.length) : new Float64Array(sample.length);

/** out[i] = a[t_b]·x[i] + b[t_b]·y[i] with b the sample that entry i belongs to. */
function mix(x: Samples, y: Samples, a: Float64Array, b: Float64Array): Samples {
  if (x.length !== y.length || x.length % a.length !== 0)
    throw new RangeError(`${x.length} and ${y.length} values do not make ${a.length} equal samples (one per timestep)`);
  const size = x.length / a.length;
  const out = like(x);
  for (let n = 0, i = 0; n < a.length; n++) for (let k = 0; k < size; k++, i++) out[i] = a[n]! * x[i]! + b[n]! * y[i]!;
  return out;
}

/**
 * x_t = √ᾱ_t·x₀ + √(1−ᾱ_t)·ε, samples [n,…] flat, one timestep per sample.
 * @throws RangeError when the lengths do not fit or a timestep is outside the table
 * @example addNoise(schedule, latents, noise, [500, 20]) // two samples
 */
export function addNoise(schedule: Schedule, sample: Samples, noise: Samples, timesteps: ArrayLike<number>): Samples {
  const c = noiseCoefficients(schedule, timesteps);
  return mix(sample, noise, c.signal, c.noise);
}

/** v_t = √ᾱ_t·ε − √(1−ᾱ_t)·x₀, samples [n,…] flat, one timestep per sample. @throws RangeError as addNoise */
export function getVelocity(
  schedule: Schedule,
  sample: Samples,
  noise: Samples,
  timesteps: ArrayLike<number>,
): Samples {
  const c = noiseCoefficients(schedule, timesteps);
  return mix(
    noise,
    sample,
    c.signal,
    c.noise.map((b) => -b),
  );
}

/** What the model is trained to give for x_t: ε, v or x₀ by the schedule's prediction type. @throws RangeError as addNoise */
export function trainingTarget(
  schedule: Schedule,
  sample: Samples,
  noise: Samples,
  timesteps: ArrayLike<number>,
  prediction: PredictionType = schedule.config.prediction_type,
): Samples {
  if (prediction === 'v_prediction') return getVelocity(schedule, sample, noise, timesteps);
  return prediction === 'epsilon' ? noise : sample;
}

/** SNR_t = ᾱ_t / (1−ᾱ_t) of every training timestep, [T]. */
export const snr = (schedule: Schedule): Float64Array => schedule.alphasCumprod.map((a) => a / (1 - a));
