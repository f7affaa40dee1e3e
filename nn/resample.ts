import { expandTo, reshape, slice, type Tensor, take, tensor } from '../core/index.ts';
import { type Conv, conv2d } from './conv.ts';

/**
 * x[n, h, w, c] → [n, size…, c], each pixel taken from the nearest one above and to the left (torch `interpolate`,
 * mode "nearest"): source = ⌊i·h/h'⌋. Without a size both sides double.
 * Twice the size, or one pixel less, is repetition (and a cut) without any index: ⌊i·h/(2h−1)⌋ = ⌊i/2⌋ for i < 2h−1.
 */
export function upsampleNearest(x: Tensor, size?: readonly [number, number]): Tensor {
  const [n, h, w, c] = x.shape as [number, number, number, number];
  const [toH, toW] = size ?? [2 * h, 2 * w];
  if (isDouble(h, toH) && isDouble(w, toW)) {
    const repeated = expandTo(reshape(x, [n, h, 1, w, 1, c]), [n, h, 2, w, 2, c]);
    const doubled = reshape(repeated, [n, 2 * h, 2 * w, c]);
    return slice(doubled, { axis: 1, stop: toH }, { axis: 2, stop: toW });
  }
  return take(take(x, sources(h, toH), 1), sources(w, toW), 2);
}
const isDouble = (from: number, to: number): boolean => to === 2 * from || to === 2 * from - 1;
const sources = (from: number, to: number): Tensor =>
  tensor(Int32Array.from({ length: to }, (_, i) => Math.floor((i * from) / to)));

/** diffusers `Upsample2D`: nearest, then a 3×3 convolution. */
export type Upsampler<T = Tensor> = {
  /** after the picture was made larger */
  readonly conv: Conv<T>;
};
/** x[n, h, w, c] → [n, 2h, 2w, c] (or `size`): nearest, then the convolution. @throws ShapeError. cost as `conv2d` */
export const upsample = (p: Upsampler, x: Tensor, size?: readonly [number, number]): Tensor =>
  conv2d(p.conv, upsampleNearest(x, size));

/** diffusers `Downsample2D`: 3×3 convolution with stride 2. `around`: one zero on all sides; `after`: right and below. */
export type Downsampler<T = Tensor> = {
  /** the one that makes the picture smaller */
  readonly conv: Conv<T>;
};
/** x[n, h, w, c] → [n, h/2, w/2, c] for even sides. @throws ShapeError. cost as `conv2d` */
export const downsample = (p: Downsampler, x: Tensor, zeros: 'around' | 'after'): Tensor =>
  conv2d(p.conv, x, {
    stride: 2,
    padding:
      zeros === 'around'
        ? 1
        : [
            [0, 1],
            [0, 1],
          ],
  });
