/**
 * Noise with an offset per channel, so that a model learns to move a picture's mean brightness.
 *
 *   ε'[n,c,h,w] = ε[n,c,h,w] + o·z[n,c],   o = offset, or max(0, offset + adaptive·|mean over h,w of latents[n,c]|)
 *
 * Source: N. Guttenberg 2023, "Diffusion with offset noise"; adaptive form: kohya-ss `custom_train_functions`.
 */
import type { Samples } from './schedule.ts';

export type NoiseOffset = {
  /** Size of the offset; 0.05–0.1 is usual. */
  readonly offset: number;
  /** How much a channel's mean brightness adds to it. */
  readonly adaptive?: number | null;
};

/**
 * @param noise [n,c,h,w] flat, standard normal
 * @param normal [n·c], standard normal
 * @param latents as noise; only read by the adaptive form
 * @throws RangeError when the lengths do not fit
 * @example offsetNoise(noise, normal, latents, { offset: 0.1 })
 */
export function offsetNoise(noise: Samples, normal: Samples, latents: Samples, settings: NoiseOffset): Samples {
  const plane = noise.length / normal.length;
  if (!Number.isInteger(plane) || latents.length !== noise.length)
    throw new RangeError(
      `noise ${noise.length}, latents ${latents.length} and normal ${normal.length} values do not fit`,
    );
  const shifts = Float64Array.from(normal, (z, channel) => {
    if (!settings.adaptive) return settings.offset * z;
    let sum = 0;
    for (let i = channel * plane; i < (channel + 1) * plane; i++) sum += latents[i]!;
    return Math.max(0, settings.offset + settings.adaptive * Math.abs(sum / plane)) * z;
  });
  return noise.map((e, i) => e + shifts[Math.floor(i / plane)]!);
}
