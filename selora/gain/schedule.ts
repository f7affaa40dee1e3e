/** When `--criterion gain` tests, and how many parameters may be in use then. */
import { costOf, mostRank, parametersOf } from '../methods/low-rank.ts';
import type { Places, Ranks } from '../methods/method.ts';
import { mapModules, networks, type PerNetwork } from '../networks.ts';

/** The settings of a run that the test reads. */
export type Gaining = {
  readonly budgetParameters: number | null;
  readonly growFirst: number;
  readonly growUntil: number;
  readonly testEvery: number;
  readonly probe: number;
  readonly prune: number;
  readonly gainLeast: number;
  readonly gainCheck: number;
  readonly lr?: number;
  readonly textLr?: number | null;
};
/** The parameters a run may have in all: as told, else those of LoRA of rank 4 on its linear layers (all, without any). */
export function budgetOf(c: Pick<Gaining, 'budgetParameters'>, places: PerNetwork<Places>): number {
  if (c.budgetParameters !== null) return c.budgetParameters;
  const all = networks.flatMap((n) => [...places[n].values()]);
  const linears = all.filter((place) => place.length === 2);
  return (linears.length > 0 ? linears : all).reduce((n, place) => n + 4 * costOf(place), 0);
}
/** The budget spread evenly: what is foreseen of a run whose first test deals it out. */
export function evenly(
  c: Pick<Gaining, 'budgetParameters' | 'growFirst'>,
  ranks: Ranks,
  places: PerNetwork<Places>,
): Ranks {
  const all = networks.flatMap((n) => [...places[n].values()]).reduce((sum, place) => sum + costOf(place), 0);
  const each = Math.ceil((budgetOf(c, places) * c.growFirst) / all);
  return mapModules((r: number, path, n) => Math.max(r, Math.min(each, mostRank(places[n].get(path)!))), ranks);
}
/** @throws RangeError for a budget below what a run begins with */
export function checkBudget(c: Pick<Gaining, 'budgetParameters'>, ranks: Ranks, places: PerNetwork<Places>): void {
  const [has, most] = [parametersOf(ranks, places), budgetOf(c, places)];
  if (has > most)
    throw new RangeError(
      `--budget-parameters ${most}: the adapters begin with ${has} parameters, expected at least that`,
    );
}

/** how many tests come after the first: none where all is given out by it and nothing moves */
const testsAfter = (c: Gaining, steps: number): number =>
  c.growFirst < 1 || c.prune > 0 ? Math.floor((steps * c.growUntil) / c.testEvery) : 0;
/** whether a step tests: the first for `growFirst` of the budget, then every t-th until `growUntil` of the run */
export const isDue = (c: Gaining, step: number, steps: number): boolean =>
  (step === 1 && c.growFirst > 0) || (step % c.testEvery === 0 && step / c.testEvery <= testsAfter(c, steps));
/** how many steps test */
export const countOf = (c: Gaining, steps: number): number =>
  testsAfter(c, steps) + (c.growFirst > 0 && !(c.testEvery === 1 && testsAfter(c, steps) > 0) ? 1 : 0);
/** the share of the budget that may be in use after the test of a step */
export function shareAt(c: Gaining, step: number, steps: number): number {
  const tests = testsAfter(c, steps);
  const done = Math.min(tests, Math.floor(step / c.testEvery));
  return tests === 0 ? c.growFirst : c.growFirst + ((1 - c.growFirst) * done) / tests;
}
