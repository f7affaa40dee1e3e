/** A decoded picture, and what the model's VAE is given of it. */
import { type CropSize, type Filter, type Pixels, resizeAndCrop8, resizeAndCropFloat } from './resample.ts';

/** A decoded image, [height, width, channels] with 1 (grey) or 3 (RGB) channels; white is 2^depth - 1. */
export type Picture = (
  | (Pixels<Uint8Array> & { readonly depth: 8; readonly channels: 1 | 3 })
  | (Pixels<Uint16Array> & { readonly depth: 16; readonly channels: 1 | 3 })
) & {
  /** It was stored lying or mirrored, with a mark that says how it stands (EXIF), and was turned. */
  readonly turned?: true;
};

/**
 * A picture as the model's VAE takes it: shortest side resized to `side`, middle cut out, grey repeated three times,
 * [side, side, 3] in [-1, 1], or [height, width, 3] of a size that it is scaled to cover. 8-bit pictures go through Pillow's 8-bit arithmetic (torchvision `Resize`, `CenterCrop`,
 * `ToTensor`, `Normalize(0.5, 0.5)`), 16-bit ones through real numbers without rounding.
 * @param bits of a 16-bit picture's numbers that are used: 2^bits − 1 is white, and so is what lies above
 * @example trainingPixels(await readImage('film.png'), 224).length // 224 · 224 · 3
 */
export function trainingPixels(
  picture: Picture,
  size: CropSize,
  { filter = 'bilinear', bits = 16 }: { filter?: Exclude<Filter, 'nearest'>; bits?: number } = {},
): Float32Array {
  const white = 2 ** Math.min(bits, picture.depth) - 1;
  const { channels, data } =
    picture.depth === 8
      ? resizeAndCrop8(picture, size, filter)
      : resizeAndCropFloat({ ...picture, data: new Float32Array(picture.data) }, size, filter);
  const [width, height] = typeof size === 'number' ? [size, size] : [size.width, size.height];
  const out = new Float32Array(width * height * 3);
  for (let at = 0; at < out.length; at++) {
    const value = data[channels === 3 ? at : Math.floor(at / 3)]!;
    // Filters with negative lobes overshoot in real numbers; 8-bit arithmetic has clipped already.
    out[at] = Math.min(1, Math.max(-1, value / (white / 2) - 1));
  }
  return out;
}
