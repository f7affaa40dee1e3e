/**
 * Aspect-ratio buckets: a few sizes with about as many pixels as a square, so that pictures keep their proportions and
 * those of one size make a batch.
 */

/** Pixels across and down. */
export type Size = { readonly width: number; readonly height: number };

/** Longest side over shortest, at most. */
const STRETCH = 2;

/**
 * The sizes beside side × side: sides are multiples of `step`, no more pixels than the square, the ratio at most 2.
 * @param multiple what both sides must be multiples of
 * @example bucketsOf(512, 8).map(({ width, height }) => `${width}x${height}`) // 384x640 … 512x512 … 640x384
 */
export function bucketsOf(side: number, multiple: number): readonly Size[] {
  // about an eighth of the side, as kohya's 64 at 512
  const step = Math.max(1, Math.round(side / 8 / multiple)) * multiple;
  const sizes: Size[] = [];
  for (let width = step; width <= side * STRETCH; width += step) {
    const height = Math.floor((side * side) / width / step) * step;
    const ratio = Math.max(width, height) / Math.min(width, height);
    if (height > 0 && ratio <= STRETCH && !(width === side && height === side)) sizes.push({ width, height });
  }
  return [...sizes, { width: side, height: side }].sort((a, b) => a.width / a.height - b.width / b.height);
}

/** The size whose proportions are nearest to a picture's, by the ratio of ratios; of equals the one with more pixels. */
export function bucketFor(sizes: readonly Size[], picture: Size): Size {
  const off = ({ width, height }: Size) => Math.abs(Math.log((width * picture.height) / (height * picture.width)));
  return sizes.reduce((best, each) => {
    const [a, b] = [off(each), off(best)];
    if (Math.abs(a - b) < 1e-9) return each.width * each.height > best.width * best.height ? each : best;
    return a < b ? each : best;
  });
}
