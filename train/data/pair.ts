import type { Size } from './buckets.ts';

/** A picture with its text, before any model has seen it. */
export interface Pair {
  readonly id: string;
  readonly text: string;
  /** RGB [side, side, 3] in [−1, 1] */
  readonly pixels: () => Promise<Float32Array>;
  /** The picture in about its own proportions (--buckets): RGB [height, width, 3] in [−1, 1] */
  readonly sized?: Size & { readonly pixels: () => Promise<Float32Array> };
}
