/** Candidate columns tried in free ranks of a padded adapter: in place, out of the update, installed. */
import { add, dot, mapTree, max, mul, reshape, sub, sum, type Tensor } from '../core/index.ts';
import type { Adapter } from './adapter.ts';
import type { Slot } from './methods/method.ts';

/** Candidates, one or several: their columns K[d_in, k] and the free ranks they are tried in, a one-hot row each [k, c]. */
export type Trial = { readonly K: Tensor; readonly slot: Tensor };

/** K[d_in, k], slot[k, c] → [d_in, c]: each column of K where its row says; a row of zeros takes it nowhere. */
export const columnsAt = (K: Tensor, slot: Tensor): Tensor =>
  reshape(dot(reshape(K, [1, ...K.shape]), reshape(slot, [1, ...slot.shape])), [K.shape[0]!, slot.shape[1]!]);

/** Which ranks have a candidate: [c] of 0 and 1. */
const taken = (slot: Tensor): Tensor => (slot.shape[0] === 1 ? reshape(slot, [slot.shape[1]!]) : sum(slot, 0));

/** The adapter with the candidates in their free columns. */
export const withCandidate = ({ A, B }: Adapter, { K, slot }: Trial): Adapter => ({ A: add(A, columnsAt(K, slot)), B });

/** The candidates' rows of B take no part in the update of the step that tests them. */
export const withoutCandidate = (g: Adapter, { slot }: Trial): Adapter => ({
  A: g.A,
  B: mul(g.B, reshape(sub(1, taken(slot)), [slot.shape[1]!, 1])),
});

/**
 * Accepted candidates: K in their free columns, new ranks at age 0 (its moments are zero already). `restart`: the module's
 * moments and ages begin anew, as in the published code. Rows of zeros leave the module as it is.
 */
export function installed(slot: Slot<Adapter>, { K, slot: at }: Trial, restart: boolean): Slot<Adapter> {
  const p = { A: add(slot.p.A, columnsAt(K, at)), B: slot.p.B };
  const row = taken(at);
  if (!restart) return { ...slot, p, age: mul(slot.age, sub(1, row)) };
  // 1 for a module that stays as it is, 0 for one that grows
  const stays = sub(1, max(row));
  const kept = mapTree((x: Tensor) => mul(x, stays), { m: slot.m, v: slot.v });
  return { p, ...kept, age: mul(slot.age, stays) };
}
