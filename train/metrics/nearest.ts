/** Has the model copied? The nearest training picture of every sample, against the distance real held-out pictures keep. */
import { encodePng } from '../data/pictures/image-write.ts';
import type { RunSummaryInput } from '../report/summary.ts';
import type { RunPair } from '../trainer/pairs.ts';

/** training pictures looked through at most */
const MOST = 2000;
/** A picture shrunk to 32×32 grey, mean 0 and deviation 1. */
function thumbnail(pixels: Float32Array, side: number): Float32Array {
  const n = 32;
  const out = new Float32Array(n * n);
  const cell = side / n;
  for (let y = 0; y < side; y++)
    for (let x = 0; x < side; x++) out[Math.floor(y / cell) * n + Math.floor(x / cell)]! += pixels[(y * side + x) * 3]!;
  const mean = out.reduce((a, b) => a + b, 0) / out.length;
  const sd = Math.sqrt(out.reduce((a, b) => a + (b - mean) ** 2, 0) / out.length) || 1;
  return out.map((v) => (v - mean) / sd);
}
const distance = (a: Float32Array, b: Float32Array): number =>
  Math.sqrt(a.reduce((s, v, i) => s + (v - b[i]!) ** 2, 0) / a.length);

/** Distances of samples and of real held-out pictures to their nearest training picture. Cost: all pairs of thumbnails. */
export async function nearestPictures(
  train: readonly RunPair[],
  real: readonly Float32Array[],
  samples: readonly Float32Array[],
  side: number,
): Promise<NonNullable<RunSummaryInput['memorisation']>> {
  const looked = train.slice(0, MOST);
  const thumbs = await Promise.all(looked.map(async (p) => thumbnail(await p.pixels(), side)));
  const nearest = (p: Float32Array) =>
    thumbs.reduce(
      (best, t, i) => {
        const d = distance(p, t);
        return d < best.d ? { d, i } : best;
      },
      { d: Number.POSITIVE_INFINITY, i: -1 },
    );
  const realDistances = real.map((p) => nearest(thumbnail(p, side)).d).sort((a, b) => a - b);
  const threshold = realDistances[Math.floor(realDistances.length * 0.01)]!;
  const ours = samples.map((p, sample) => ({ sample, ...nearest(thumbnail(p, side)) })).sort((a, b) => a.d - b.d);
  return {
    measure:
      '32×32 grey, standardised, root mean square difference; threshold: the closest 1% of real held-out pictures',
    threshold,
    below: ours.filter((o) => o.d < threshold).length,
    n: ours.length,
    pairs: await Promise.all(
      ours.slice(0, 3).map(async (o) => ({
        sample: { bytes: await encodePng(samples[o.sample]!, side) },
        nearest: { bytes: await encodePng(await looked[o.i]!.pixels(), side) },
        distance: o.d,
      })),
    ),
  };
}
