/** What nearest neighbours tell of two sets of feature vectors: precision, recall, density, coverage, copies. */
import type { Features } from './frechet.ts';

const distance = (x: ArrayLike<number>, y: ArrayLike<number>): number => {
  let sum = 0;
  for (let j = 0; j < x.length; j++) sum += (x[j]! - y[j]!) ** 2;
  return Math.sqrt(sum);
};
const table = (a: Features, b: Features): Float64Array[] => a.map((x) => Float64Array.from(b, (y) => distance(x, y)));

/** Distance of every vector to its k-th neighbour in its own set, itself not counted. @throws RangeError for a set of k or fewer */
export function radii(set: Features, k: number): Float64Array {
  if (set.length <= k)
    throw new RangeError(`${set.length} feature vectors, expected more than ${k} for ${k} neighbours`);
  return Float64Array.from(table(set, set), (row) => row.toSorted()[k]!);
}

/** Each vector's nearest of another set. Cost: all pairs */
export const nearestOf = (
  set: Features,
  others: Features,
): readonly { readonly index: number; readonly distance: number }[] =>
  set.map((x) =>
    others.reduce(
      (best: { index: number; distance: number }, y, index) => {
        const d = distance(x, y);
        return d < best.distance ? { index, distance: d } : best;
      },
      { index: -1, distance: Number.POSITIVE_INFINITY },
    ),
  );

/** Four shares; density may exceed 1. */
export interface Neighbourhood {
  /** fakes inside the ball of any real one: are they real-looking? */
  readonly precision: number;
  /** reals inside the ball of any fake one: is everything there? */
  readonly recall: number;
  /** balls of reals that hold a fake, by k and fakes: precision that an outlier with a large ball does not lift */
  readonly density: number;
  /** reals whose own ball holds a fake: recall that outliers among the fakes do not lift */
  readonly coverage: number;
}

/**
 * Balls reach to the k-th neighbour of their own set; inside is strictly nearer.
 * Source: Kynkäänniemi et al. 2019 (precision, recall); Naeem et al. 2020 (density, coverage). Cost: all pairs
 * @throws RangeError for a set of k or fewer
 */
export function neighbourhood(real: Features, fake: Features, k = 5): Neighbourhood {
  const [own, theirs] = [radii(real, k), radii(fake, k)];
  const d = table(real, fake);
  const share = (n: number, test: (i: number) => boolean) =>
    Array.from({ length: n }, (_, i) => i).filter(test).length / n;
  let inside = 0;
  for (const [i, row] of d.entries()) inside += row.reduce((n, x) => n + (x < own[i]! ? 1 : 0), 0);
  return {
    precision: share(fake.length, (j) => d.some((row, i) => row[j]! < own[i]!)),
    recall: share(real.length, (i) => d[i]!.some((x, j) => x < theirs[j]!)),
    density: inside / (k * fake.length),
    coverage: share(real.length, (i) => Math.min(...d[i]!) < own[i]!),
  };
}
