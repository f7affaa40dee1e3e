/** Structural similarity of two pictures, plain and over several resolutions. */

/** A picture, channels after one another: data[(c·height + y)·width + x]. */
export interface Planes {
  readonly width: number;
  readonly height: number;
  readonly channels: number;
  readonly data: ArrayLike<number>;
}
export interface SsimOptions {
  /** largest difference of two values: 255 for bytes */
  readonly range: number;
  /** side of the Gaussian window, odd */
  readonly window?: number;
  readonly sigma?: number;
}
export const MS_SSIM_WEIGHTS = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333] as const;

function gaussian(size: number, sigma: number): Float64Array {
  const w = Float64Array.from({ length: size }, (_, i) => Math.exp(-((i - (size - 1) / 2) ** 2) / (2 * sigma ** 2)));
  const sum = w.reduce((a, b) => a + b, 0);
  return w.map((x) => x / sum);
}
type Plane = { readonly width: number; readonly height: number; readonly data: Float64Array };

/** the window's means, without padding */
function blurred({ width, height, data }: Plane, w: Float64Array): Plane {
  const k = w.length;
  const [to, down] = [width - k + 1, height - k + 1];
  const rows = new Float64Array(to * height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < to; x++) {
      let s = 0;
      for (let i = 0; i < k; i++) s += w[i]! * data[y * width + x + i]!;
      rows[y * to + x] = s;
    }
  const out = new Float64Array(to * down);
  for (let y = 0; y < down; y++)
    for (let x = 0; x < to; x++) {
      let s = 0;
      for (let i = 0; i < k; i++) s += w[i]! * rows[(y + i) * to + x]!;
      out[y * to + x] = s;
    }
  return { width: to, height: down, data: out };
}
const both = (a: Plane, b: Plane): Plane => ({ ...a, data: a.data.map((x, i) => x * b.data[i]!) });

/** mean over pixels of luminance·contrast and of the contrast term alone */
function terms(a: Plane, b: Plane, { range, window = 11, sigma = 1.5 }: SsimOptions) {
  if (Math.min(a.width, a.height) < window)
    throw new RangeError(`pictures of ${a.width} x ${a.height} pixels, expected ${window} or more along each side`);
  const w = gaussian(window, sigma);
  const [c1, c2] = [(0.01 * range) ** 2, (0.03 * range) ** 2];
  const of = (p: Plane) => blurred(p, w).data;
  const [ma, mb, aa, bb, ab] = [of(a), of(b), of(both(a, a)), of(both(b, b)), of(both(a, b))];
  let [ssim, contrast] = [0, 0];
  for (let i = 0; i < ma.length; i++) {
    const [x, y] = [ma[i]!, mb[i]!];
    const cs = (2 * (ab[i]! - x * y) + c2) / (aa[i]! - x * x + (bb[i]! - y * y) + c2);
    contrast += cs / ma.length;
    ssim += (cs * (2 * x * y + c1)) / (x * x + y * y + c1) / ma.length;
  }
  return { ssim, contrast };
}

/** 2×2 means; an odd side gets a row of zeros in front, which counts */
function halved({ width, height, data }: Plane): Plane {
  const [px, py] = [width % 2, height % 2];
  const [to, down] = [Math.floor((width + 2 * px - 2) / 2) + 1, Math.floor((height + 2 * py - 2) / 2) + 1];
  const at = (x: number, y: number) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : data[y * width + x]!);
  const out = new Float64Array(to * down);
  for (let y = 0; y < down; y++)
    for (let x = 0; x < to; x++) {
      const [i, j] = [2 * x - px, 2 * y - py];
      out[y * to + x] = (at(i, j) + at(i + 1, j) + at(i, j + 1) + at(i + 1, j + 1)) / 4;
    }
  return { width: to, height: down, data: out };
}
function planes({ width, height, channels, data }: Planes): Plane[] {
  const n = width * height;
  return Array.from({ length: channels }, (_, c) => ({
    width,
    height,
    data: Float64Array.from({ length: n }, (_, i) => data[c * n + i]!),
  }));
}
function pairs(a: Planes, b: Planes): readonly (readonly [Plane, Plane])[] {
  if (a.width !== b.width || a.height !== b.height || a.channels !== b.channels)
    throw new RangeError(`pictures of ${a.width} x ${a.height} and ${b.width} x ${b.height} pixels`);
  const other = planes(b);
  return planes(a).map((p, c) => [p, other[c]!]);
}
const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

/**
 * SSIM: a Gaussian window 11 of sigma 1.5 without padding, K = 0.01 and 0.03, mean over pixels, then channels.
 * Source: Wang et al. 2004. @throws RangeError for pictures of different sizes or smaller than the window
 */
export const ssim = (a: Planes, b: Planes, options: SsimOptions): number =>
  mean(pairs(a, b).map(([x, y]) => terms(x, y, options).ssim));

/** Levels that a picture of this side has room for, at most five: the window must fit into the smallest. */
export const levelsFor = (side: number, window = 11): number =>
  [1, 2, 3, 4, 5].filter((levels) => side / 2 ** (levels - 1) >= window).length;

/**
 * MS-SSIM: contrast terms of all levels but the last and the SSIM of the last, each cut at 0, to the powers of the
 * weights; the product per channel, then the mean. One negative term makes it 0. With the usual five levels and window 11
 * a side must be above 160.
 * Source: Wang, Simoncelli and Bovik 2003. @throws RangeError for pictures that are too small
 */
export function msSsim(
  a: Planes,
  b: Planes,
  options: SsimOptions,
  weights: readonly number[] = MS_SSIM_WEIGHTS,
): number {
  return mean(
    pairs(a, b).map(([x, y]) => {
      let [p, q] = [x, y];
      let product = 1;
      for (const [level, weight] of weights.entries()) {
        const { ssim: whole, contrast } = terms(p, q, options);
        product *= Math.max(0, level === weights.length - 1 ? whole : contrast) ** weight;
        [p, q] = [halved(p), halved(q)];
      }
      return product;
    }),
  );
}
