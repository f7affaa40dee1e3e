/** Grey pictures as the VAE takes them, and back. */
import type { Grey } from '../made/drawing.ts';

/** A grey picture [size, size] in 0..1 as RGB [size, size, 3] in [-1, 1], as models see it. */
export function toModelPixels(grey: Grey): Float32Array {
  const out = new Float32Array(grey.length * 3);
  for (let at = 0; at < out.length; at++) out[at] = 2 * grey[Math.floor(at / 3)]! - 1;
  return out;
}

/** RGB [size, size, 3] in [-1, 1] as grey [size, size] in 0..1 (mean of the channels), as detectors see it. */
export function toGrey(pixels: ArrayLike<number>): Grey {
  const out = new Float32Array(pixels.length / 3);
  for (let at = 0; at < out.length; at++) {
    const sum = pixels[3 * at]! + pixels[3 * at + 1]! + pixels[3 * at + 2]!;
    out[at] = Math.min(1, Math.max(0, sum / 6 + 0.5));
  }
  return out;
}
