/** A budget of ranks dealt out by scores. */
import { modulesOf, type PerModule, type PerNetwork, perModule } from '../networks.ts';
import { mostRank, parametersOf, totalRankOf } from './low-rank.ts';
import type { Places, Ranks } from './method.ts';

/**
 * Whole numbers in proportion to the scores, each at least `least` and at most its own `most`, whose sum is the budget
 * exactly: clamp(λ·score) with the λ that gives the budget; remainders go to the largest first, the earlier of equal ones before
 * the later. A score of 0 gets more than the least only where all others are full.
 * @throws RangeError where the bounds leave no room for the budget
 * @example allocate([3, 1], 8, 1, [5, 8]) // [5, 3]
 */
export function allocate(scores: readonly number[], budget: number, least: number, most: readonly number[]): number[] {
  const n = scores.length;
  const room = most.reduce((a, b) => a + b, 0);
  if (budget < n * least || budget > room)
    throw new RangeError(`a budget of ${budget} ranks for ${n} modules, expected ${n * least} to ${room}`);
  const bad = scores.findIndex((s) => !Number.isFinite(s) || s < 0);
  if (bad >= 0) throw new RangeError(`the score of module ${bad + 1} is ${scores[bad]}`);
  const largest = Math.max(...scores);
  const weights = scores.map((s) => (largest === 0 ? 1 : Math.max(s / largest, 1e-12)));
  const at = (logarithm: number) => weights.map((w, i) => Math.min(most[i]!, Math.max(least, Math.exp(logarithm) * w)));
  let [low, high] = [-50, 50];
  for (let k = 0; k < 100; k++) {
    const middle = (low + high) / 2;
    if (at(middle).reduce((a, b) => a + b, 0) < budget) low = middle;
    else high = middle;
  }
  const exact = at(low);
  const out = exact.map(Math.floor);
  const missing = budget - out.reduce((a, b) => a + b, 0);
  const order = exact
    .map((x, i) => ({ i, rest: x - out[i]! }))
    .filter(({ i }) => out[i]! < most[i]!)
    // equal but for rounding: the earlier first
    .sort((a, b) => (Math.abs(b.rest - a.rest) < 1e-9 ? a.i - b.i : b.rest - a.rest));
  for (const { i } of order.slice(0, missing)) out[i]!++;
  return out;
}

/** What ranks are dealt out within: of one module, and in all (null: as many ranks as there were). */
export type Bounds = { readonly least: number; readonly most: number; readonly parameters: number | null };

/** @throws RangeError where the least ranks have more parameters than the budget */
export function checkBounds({ least, parameters }: Bounds, ranks: Ranks, places: PerNetwork<Places>): void {
  const all = modulesOf(ranks);
  const needed = parametersOf(perModule(new Array(all.length).fill(least), ranks), places);
  if (parameters !== null && needed > parameters)
    throw new RangeError(
      `--budget-parameters ${parameters}: ${all.length} modules of rank ${least} have ${needed} parameters, expected at least that`,
    );
}

/**
 * Ranks of all modules in proportion to their scores, within bounds and a module's sides: as many as the ranks given have in
 * all, or as have at most so many parameters (less than one rank more of a module would add), or all there is room for.
 */
export function dealt(
  scores: PerModule<number>,
  ranks: Ranks,
  places: PerNetwork<Places>,
  { least, most, parameters }: Bounds,
): Ranks {
  const all = modulesOf(ranks);
  const room = all.map(({ n, path }) => Math.min(most, mostRank(places[n].get(path)!)));
  const [fewest, sum] = [Math.min(least, ...room), room.reduce((a, b) => a + b, 0)];
  const each = all.map(({ n, path }) => scores[n][path]!);
  const deal = (budget: number): Ranks => perModule(allocate(each, budget, fewest, room), ranks);
  if (parameters === null) return deal(Math.min(totalRankOf(ranks), sum));
  let [low, high] = [fewest * all.length, sum];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (parametersOf(deal(middle), places) <= parameters) low = middle;
    else high = middle - 1;
  }
  return deal(low);
}
