/** What the layers of textures share: their form, words for places and tones, a curved frame. */
import type { Random } from '../../../core/index.ts';

/** Draws one layer and says what it drew. */
export type Layer = (picture: Float64Array, size: number, random: Random) => string;

/** Where a point lies, in the words of the captioned shapes: thirds of the picture at ±0.27. */
export function placeOf(u: number, v: number): string {
  const row = v < -0.27 ? 'upper' : v > 0.27 ? 'lower' : 'middle';
  const column = u < -0.27 ? 'left' : u > 0.27 ? 'right' : 'middle';
  if (column === 'middle') return row === 'middle' ? 'in the center' : `in the ${row} part`;
  return row === 'middle' ? `on the ${column}` : `in the ${row} ${column}`;
}
export const toneOf = (amplitude: number) => (amplitude < 0 ? 'dark' : 'bright');

/** A direction and a bend: turns (u, v) into (along, across) a gently curved line through a random point. */
export function curvedFrame(random: Random): (u: number, v: number) => readonly [number, number] {
  const angle = random.uniform(0, 2 * Math.PI);
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const [centreU, centreV, bend] = [random.uniform(-0.7, 0.7), random.uniform(-0.7, 0.7), random.uniform(-0.5, 0.5)];
  return (u, v) => {
    const along = cos * (u - centreU) + sin * (v - centreV);
    const across = -sin * (u - centreU) + cos * (v - centreV);
    return [along, across - bend * along * along];
  };
}

/** Light or dark, faint or strong. */
export const amplitudeOf = (random: Random, low: number, high: number) =>
  random.uniform(low, high) * (random.chance(0.5) ? 1 : -1);
