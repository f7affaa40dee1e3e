/** A candidate column tried in a free rank of a padded adapter: in place, out of the update, measured, installed. */
import { add, dot, mapTree, mean, mul, reshape, sub, sum, type Tensor, type Tree } from '../core/index.ts';
import type { Adapter } from './adapter.ts';
import { fisherByRank, type Measure as MeasureName, naturalByRank, type RankSums, squaresByRank } from './fisher.ts';
import type { Measure, Slot } from './methods/method.ts';

/** A candidate: its column K[d_in, 1] and the free rank it is tried in as a one-hot row [1, c]. */
export type Trial = { readonly K: Tensor; readonly slot: Tensor };

/** K[d_in, 1], slot[1, c] → [d_in, c]: K in the slot's column. */
export const columnAt = (K: Tensor, slot: Tensor): Tensor =>
  reshape(dot(reshape(K, [1, K.shape[0]!, 1]), reshape(slot, [1, 1, slot.shape[1]!])), [K.shape[0]!, slot.shape[1]!]);

/** The adapter with the candidate in its free column. */
export const withCandidate = ({ A, B }: Adapter, { K, slot }: Trial): Adapter => ({ A: add(A, columnAt(K, slot)), B });

/** The candidate's row of B takes no part in the update of the step that tests it. */
export function withoutCandidate(g: Adapter, { slot }: Trial): Adapter {
  const keep = sub(1, slot);
  return { A: g.A, B: mul(g.B, reshape(keep, [keep.shape[1]!, 1])) };
}

/**
 * An accepted candidate: K in its free column, the new rank at age 0 (its moments are zero already). `restart`: the module's
 * moments and ages begin anew, as in the published code. A row of zeros leaves the module as it is.
 */
export function installed(slot: Slot<Adapter>, { K, slot: at }: Trial, restart: boolean): Slot<Adapter> {
  const p = { A: add(slot.p.A, columnAt(K, at)), B: slot.p.B };
  const row = reshape(at, slot.age.shape);
  if (!restart) return { ...slot, p, age: mul(slot.age, sub(1, row)) };
  // 1 for a module that stays as it is, 0 for one that grows
  const stays = sub(1, sum(row));
  const kept = mapTree((x: Tensor) => mul(x, stays), { m: slot.m, v: slot.v });
  return { p, ...kept, age: mul(slot.age, stays) };
}

const fisher = fisherByRank as (g: Adapter) => Tree<Tensor>;
type Kept = RankSums<Tensor>;
/** What each measure keeps of the gradients of samples, and the sums by rank it makes of that. */
export const measures: { readonly [name in MeasureName]: Measure<Adapter, RankSums<Tensor>> } = {
  fisher: { samples: fisher, scores: (_g, kept) => kept as Kept },
  batch: { scores: (g) => squaresByRank(g) },
  signal: { samples: fisher, scores: (g, kept) => ({ ...(kept as Kept), signal: squaresByRank(g).b }) },
  natural: {
    samples: ({ A, B }) => ({ A: mean(mul(A, A), 0), B: mean(mul(B, B), 0) }),
    scores: (g, kept) => naturalByRank(g, kept as Adapter),
  },
};
