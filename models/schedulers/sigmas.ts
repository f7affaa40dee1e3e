/**
 * Noise levels σ_t = √((1−ᾱ_t)/ᾱ_t) for the samplers that work in σ (Euler, DPM-Solver++).
 *
 * Source: Karras et al. 2022 ("Elucidating the design space of diffusion-based generative models"), formula 5.
 */
import { linspace, type Schedule } from './schedule.ts';

/** ᾱ taken for the last timestep where it is zero (zero terminal SNR), so that σ stays finite: 2⁻²⁴, as diffusers. */
const SMALLEST_ALPHA_BAR = 2 ** -24;

/** σ of every training timestep, rising, [T]. */
export const sigmaTable = (schedule: Schedule): Float64Array =>
  schedule.alphasCumprod.map((a, t) => {
    const bar = t === schedule.length - 1 && schedule.config.rescale_betas_zero_snr ? SMALLEST_ALPHA_BAR : a;
    return Math.sqrt((1 - bar) / bar);
  });

/** Table value at a timestep that need not be whole: linear between its neighbours, constant outside. */
export function interpolate(table: Float64Array, t: number): number {
  const at = Math.min(Math.max(t, 0), table.length - 1);
  const low = Math.floor(at);
  const high = Math.min(low + 1, table.length - 1);
  return table[low]! + (at - low) * (table[high]! - table[low]!);
}

const RHO = 7;

/** n noise levels from `max` down to `min`, evenly spaced in σ^(1/7). */
export const karrasSigmas = (max: number, min: number, n: number): number[] =>
  linspace(0, 1, n).map((ramp) => (max ** (1 / RHO) + ramp * (min ** (1 / RHO) - max ** (1 / RHO))) ** RHO);

/** The (fractional) timestep whose σ this is: linear in log σ between neighbours of the rising table, clipped to it. */
export function sigmaToTimestep(table: Float64Array, sigma: number): number {
  let low = 0;
  let high = table.length - 1;
  if (high === 0) return 0;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (table[middle]! <= sigma) low = middle;
    else high = middle;
  }
  const from = Math.log(table[low]!);
  const w = (from - Math.log(Math.max(sigma, 1e-10))) / (from - Math.log(table[high]!));
  return low + Math.min(Math.max(w, 0), 1);
}
