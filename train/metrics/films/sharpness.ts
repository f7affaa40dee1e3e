/** How sharp a film is: contrast of its ribs, energy of its fine structure, and distance to another picture. */
import { RIB_SPACING, ribCourse } from '../../data/made/anatomy.ts';
import { eachPixel } from '../../data/made/drawing.ts';
import { lungDistance } from '../../data/made/phantoms.ts';

/** Where ribs lie over air in every film: inside the lungs, away from heart, shoulder blade and diaphragm. */
const overAir = (x: number, v: number): boolean =>
  x > (v > 0 ? 0.4 : 0.27) && x < 0.66 && v > -0.52 && v < 0.28 && lungDistance(x, v) < 0.9;

/** Root mean square of a profile along `course`, less its mean over one rib's distance; in grey values. */
function ripple(pixels: ArrayLike<number>, size: number, side: number, course: (x: number) => number): number {
  const step = 2 / size;
  const bins = Math.ceil(2.8 / step);
  const [sums, counts] = [new Float64Array(bins), new Float64Array(bins)];
  eachPixel(size, (at, u, v) => {
    const x = side * u;
    if (x <= 0 || !overAir(x, v)) return;
    const bin = Math.floor((v - course(x) + 1.4) / step);
    sums[bin]! += pixels[at]!;
    counts[bin]! += 1;
  });
  const reach = Math.round(RIB_SPACING / step / 2);
  let [squares, used] = [0, 0];
  for (let bin = 0; bin < bins; bin++) {
    if (counts[bin]! < 0.1 * size) continue;
    let [sum, count] = [0, 0];
    for (let near = Math.max(0, bin - reach); near <= Math.min(bins - 1, bin + reach); near++) {
      sum += sums[near]!;
      count += counts[near]!;
    }
    squares += (sums[bin]! / counts[bin]! - sum / count) ** 2;
    used++;
  }
  return Math.sqrt(squares / Math.max(1, used));
}

/**
 * Contrast of the ribs in 10⁻³ grey: ripple of the lungs' mean along the ribs' own course, less that along the mirrored
 * course, which noise, blotches and level bands have alike; about 35 in phantoms, 0 without ribs.
 */
export function ribScore(pixels: ArrayLike<number>, size: number): number {
  const sides = [-1, 1].map(
    (side) =>
      ripple(pixels, size, side, ribCourse) - ripple(pixels, size, side, (x) => 2 * ribCourse(0.3) - ribCourse(x)),
  );
  return (1000 * (sides[0]! + sides[1]!)) / 2;
}

/** Energy of a picture at `low` to `high` cycles a pixel (any direction), under a Hann window; a sum of squares. */
export function bandEnergy(pixels: ArrayLike<number>, size: number, low: number, high: number): number {
  const window = Float64Array.from({ length: size }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * (i + 0.5)) / size));
  const turn = (k: number) => (2 * Math.PI * k) / size;
  const [cos, sin] = [Math.cos, Math.sin].map((f) => Float64Array.from({ length: size }, (_, k) => f(turn(k)))) as [
    Float64Array,
    Float64Array,
  ];
  let mean = 0;
  for (let i = 0; i < size * size; i++) mean += pixels[i]! / (size * size);
  const most = Math.floor(high * size);
  // rows first, frequencies 0…most; then columns, −most…most
  const [re, im] = [new Float64Array(size * (most + 1)), new Float64Array(size * (most + 1))];
  for (let y = 0; y < size; y++)
    for (let k = 0; k <= most; k++)
      for (let x = 0; x < size; x++) {
        const value = (pixels[y * size + x]! - mean) * window[x]! * window[y]!;
        re[y * (most + 1) + k]! += value * cos[(k * x) % size]!;
        im[y * (most + 1) + k]! -= value * sin[(k * x) % size]!;
      }
  let energy = 0;
  for (let k = 0; k <= most; k++)
    for (let l = -most; l <= most; l++) {
      const frequency = Math.hypot(k, l) / size;
      if (frequency < low || frequency > high) continue;
      let [a, b] = [0, 0];
      for (let y = 0; y < size; y++) {
        const at = (((l * y) % size) + size) % size;
        const [r, i] = [re[y * (most + 1) + k]!, im[y * (most + 1) + k]!];
        a += r * cos[at]! + i * sin[at]!;
        b += i * cos[at]! - r * sin[at]!;
      }
      energy += (k === 0 ? 1 : 2) * (a * a + b * b);
    }
  return energy / size ** 4;
}

/** −10 log₁₀ mean (a − b)² of pictures in 0…1, in dB. */
export function psnr(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return -10 * Math.log10(sum / a.length);
}
