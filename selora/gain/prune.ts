/**
 * Growth backwards: ranks that the loss would hardly miss give their parameters to directions that would lower it more. What
 * a rank is missed by is told to second order by gradients of single samples, and the size of the second order by one
 * measured loss; the removal itself is measured before it is made.
 */
import { tensor } from '../../core/index.ts';
import { inputsOf } from '../methods/low-rank.ts';
import type { Place } from '../methods/method.ts';
import { mapModules, type PerModule } from '../networks.ts';
import type { Offer } from './allot.ts';
import type { Said } from './carried.ts';
import { type Probe, still, widthOf } from './probe.ts';

/** A rank that is there: where, what its parameters cost, and what the loss would rise by without it. */
export type Held = { readonly module: string; readonly rank: number; readonly cost: number; readonly missed: number };
/** Ranks given and lost by module. */
export type Exchange = {
  readonly given: ReadonlyMap<string, number>;
  readonly lost: ReadonlyMap<string, readonly number[]>;
};

/**
 * Beyond what `given` has already: again and again the offer that brings most for its parameters takes the place of the ranks
 * that are missed least for theirs, while it brings more than they are missed by together. At most `most` parameters and
 * `probe` ranks of a module move.
 * @param left parameters that are free beside those given
 */
export function exchange(
  offers: readonly Offer[],
  held: readonly Held[],
  given: ReadonlyMap<string, number>,
  { left, most, probe }: { readonly left: number; readonly most: number; readonly probe: number },
): Exchange {
  const taken = new Map(given);
  const lost = new Map<string, number[]>();
  const pool = [...held].sort((a, b) => a.missed / a.cost - b.missed / b.cost);
  const open = new Set(offers);
  const next = (o: Offer) => o.gains[taken.get(o.module) ?? 0] ?? 0;
  let [free, movable] = [left, most];
  for (;;) {
    let best: Offer | undefined;
    for (const offer of open) {
      if (!(next(offer) > 0)) open.delete(offer);
      else if (!best || next(offer) / offer.cost > next(best) / best.cost) best = offer;
    }
    if (!best) return { given: taken, lost };
    const going: Held[] = [];
    let room = free;
    for (const rank of pool) {
      if (room >= best.cost) break;
      const gone = (lost.get(rank.module)?.length ?? 0) + going.filter(({ module }) => module === rank.module).length;
      if (gone >= probe) continue;
      going.push(rank);
      room += rank.cost;
    }
    const moved = going.reduce((n, { cost }) => n + cost, 0);
    const missed = going.reduce((n, rank) => n + Math.max(0, rank.missed), 0);
    if (room < best.cost || moved > movable || missed >= next(best)) {
      open.delete(best);
      continue;
    }
    for (const rank of going) {
      lost.set(rank.module, [...(lost.get(rank.module) ?? []), rank.rank]);
      pool.splice(pool.indexOf(rank), 1);
    }
    taken.set(best.module, (taken.get(best.module) ?? 0) + 1);
    free = room - best.cost;
    movable -= moved;
  }
}

/** The first two derivatives of the loss by a factor on a rank: its mean over samples, and the mean of squares (Fisher). */
export function sensed(gates: Float64Array): { readonly slope: number; readonly square: number } {
  let [slope, square] = [0, 0];
  for (const x of gates) {
    slope += x / gates.length;
    square += x ** 2 / gates.length;
  }
  return { slope, square };
}

/** A probe that takes ranks away: K = −A_r beside R = B_r, so that A·B + K·R is the module without them. */
export const without = (
  places: PerModule<Place>,
  said: PerModule<Said>,
  lost: (path: string, n: 'unet' | 'text') => readonly number[],
  probe: number,
): PerModule<Probe> =>
  mapModules((place: Place, path, n): Probe => {
    const [dIn, dOut, q] = [inputsOf(place), place[0], widthOf(place, probe)];
    const { A, B, gates } = said[n][path]!;
    const gone = lost(path, n);
    if (gone.length === 0) return still(place, probe);
    const [K, R] = [new Float32Array(dIn * q), new Float32Array(q * dOut)];
    for (const [k, r] of gone.entries()) {
      for (let i = 0; i < dIn; i++) K[i * q + k] = -A[i * gates.length + r]!;
      for (let j = 0; j < dOut; j++) R[k * dOut + j] = B[r * dOut + j]!;
    }
    return { K: tensor(K, [dIn, q]), R: tensor(R, [q, dOut]) };
  }, places);

/**
 * What every rank is missed by, −slope + ½·c·square. Squares of single samples' derivatives are the curvature but for a
 * factor; c is the one that makes what is expected of the ranks of the least squares, `most` parameters of them, what the
 * loss rises by without them.
 */
export async function missing(
  ranks: readonly (Omit<Held, 'missed'> & { readonly slope: number; readonly square: number })[],
  most: number,
  probe: number,
  rise: (lost: ReadonlyMap<string, readonly number[]>) => Promise<number>,
): Promise<readonly Held[]> {
  const lost = new Map<string, number[]>();
  let [left, slope, square] = [most, 0, 0];
  for (const rank of [...ranks].sort((a, b) => a.square / a.cost - b.square / b.cost)) {
    const gone = lost.get(rank.module) ?? [];
    if (rank.cost > left || gone.length >= probe) continue;
    lost.set(rank.module, [...gone, rank.rank]);
    left -= rank.cost;
    slope += rank.slope;
    square += rank.square;
  }
  const c = square > 0 ? Math.max(0, (2 * ((await rise(lost)) + slope)) / square) : 0;
  return ranks.map(({ slope, square, ...rank }) => ({ ...rank, missed: -slope + (c * square) / 2 }));
}
