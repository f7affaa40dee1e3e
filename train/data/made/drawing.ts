/** Small tools for drawing grey pictures: coordinates in [-1, 1], soft edges, smooth noise. */
import type { Random } from '../../../core/index.ts';

/** A square grey picture, row by row, values 0..1. */
export type Grey = Float32Array;

/** 1 / (1 + e^-x), the soft edge used everywhere; flat outside ±18, where its distance to 0 or 1 is < 2e-8. */
export const soft = (x: number): number => (x > 18 ? 1 : x < -18 ? 0 : 1 / (1 + Math.exp(-x)));

/** `low` at weight 0, `high` at weight 1. */
export const mix = (low: number, high: number, weight: number): number => low + (high - low) * weight;

/** The value kept inside [low, high]. */
export const clip = (value: number, low: number, high: number): number => Math.min(high, Math.max(low, value));

/** Pixel centres of a picture of this size in [-1, 1]. */
export const centres = (size: number): Float64Array =>
  Float64Array.from({ length: size }, (_, at) => (2 * at + 1) / size - 1);

/** Visits every pixel centre: (index, u to the right, v down). */
export function eachPixel(size: number, visit: (index: number, u: number, v: number) => void): void {
  const at = centres(size);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) visit(row * size + column, at[column]!, at[row]!);
  }
}

/** Value noise [size, size]: cells × cells normal numbers joined with smoothstep weights 3f² - 2f³. */
export function valueNoise(random: Random, cells: number, size: number): Float64Array {
  const grid = Float64Array.from({ length: cells * cells }, () => random.normal());
  const cell = new Int32Array(size);
  const weight = new Float64Array(size);
  for (let at = 0; at < size; at++) {
    const position = ((at + 0.5) / size) * (cells - 1);
    cell[at] = Math.min(cells - 2, Math.floor(position));
    const f = position - cell[at]!;
    weight[at] = f * f * (3 - 2 * f);
  }
  const noise = new Float64Array(size * size);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const corner = cell[row]! * cells + cell[column]!;
      const above = mix(grid[corner]!, grid[corner + 1]!, weight[column]!);
      const below = mix(grid[corner + cells]!, grid[corner + cells + 1]!, weight[column]!);
      noise[row * size + column] = mix(above, below, weight[row]!);
    }
  }
  return noise;
}

/** Adds normal noise of the given deviation and keeps the values inside 0..1. */
export function finish(picture: Float64Array, random: Random, noise: number): Grey {
  const pixels = new Float32Array(picture.length);
  for (let at = 0; at < pixels.length; at++) pixels[at] = clip(picture[at]! + random.normal(noise), 0, 1);
  return pixels;
}
