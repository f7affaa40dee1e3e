/** Pictures as Inception takes them. */

/** RGB bytes, data[(y·width + x)·3 + c]. */
export interface Rgb {
  /** pixels along a row */
  readonly width: number;
  /** rows */
  readonly height: number;
  /** bytes, channels interleaved */
  readonly data: ArrayLike<number>;
}
/** Side of its pictures. */
export const SIDE = 299;

/**
 * Bilinear to 299×299 as TensorFlow 1 did it, also when enlarging: output i looks at i·in/out (no half pixel, the ratio a
 * float32), neighbours end at the last pixel; then (x − 128)/128. This is what the published FID numbers are taken with;
 * other rules give other numbers.
 * Source: torch-fidelity's `interpolate_bilinear_2d_like_tensorflow1x`.
 */
export function inceptionPixels({ width, height, data }: Rgb): Float32Array {
  const out = new Float32Array(SIDE * SIDE * 3);
  const places = (n: number) => {
    const ratio = Math.fround(n / SIDE);
    return Array.from({ length: SIDE }, (_, i) => {
      const at = Math.fround(i * ratio);
      const low = Math.floor(at);
      return { low, high: Math.min(low + 1, n - 1), share: at - low };
    });
  };
  const [columns, rows] = [places(width), places(height)];
  let o = 0;
  for (const { low: top, high: bottom, share: v } of rows)
    for (const { low: left, high: right, share: u } of columns)
      for (let c = 0; c < 3; c++) {
        const at = (y: number, x: number) => data[(y * width + x) * 3 + c]!;
        const [a, b] = [at(top, left), at(bottom, left)];
        const upper = a + (at(top, right) - a) * u;
        const lower = b + (at(bottom, right) - b) * u;
        out[o++] = (upper + (lower - upper) * v - 128) / 128;
      }
  return out;
}
