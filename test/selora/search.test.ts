/** Evolutionary search: budget, determinism, going on, the best of small spaces, and that it beats drawing at random. */
import { describe, expect, test } from 'vitest';
import { randomOf } from '../../core/index.ts';
import { foldKey, hostKey } from '../../selora/adapter.ts';
import { best, type Candidate, candidateCost, type Evolution, nextCandidate, type Scored, type SearchSpace, uniformCandidates, within } from '../../selora/search.ts'; // biome-ignore format: one line

const evolution = (seed: number, budget: number): Evolution => ({ key: hostKey(seed), budget, population: 40, parents: 10, mutation: 0.1 }); // biome-ignore format: one line
function searched(
  space: SearchSpace,
  e: Evolution,
  n: number,
  lossOf: (c: Candidate) => number,
  from: readonly Scored[] = [],
) {
  // biome-ignore format: one line
  const scored = [...from];
  while (scored.length < n) {
    const choices = nextCandidate(space, e, scored);
    if (choices === undefined) break;
    scored.push({ choices, loss: lossOf(choices) });
  }
  return scored;
}
/** modules of different worth with diminishing returns: the loss falls by a gain for each rank */
function problem(modules: number, seed: number) {
  const random = randomOf(hostKey(seed));
  const space = Array.from({ length: modules }, () => {
    const unit = 10 + random.int(90);
    return [0, unit, 2 * unit, 4 * unit];
  });
  const worth = space.map(() => random.uniform() ** 3);
  const loss = (c: Candidate) => 10 - c.reduce((sum, choice, m) => sum + worth[m]! * [0, 1, 1.6, 2][choice]!, 0);
  return { space, loss };
}

describe('candidates', () => {
  const { space, loss } = problem(30, 3);
  const budget = 0.3 * space.reduce((n, costs) => n + costs.at(-1)!, 0);
  test('fit the budget, are never drawn twice, and choose what there is', () => {
    const scored = searched(space, evolution(1, budget), 200, loss);
    expect(scored).toHaveLength(200);
    expect(new Set(scored.map((s) => s.choices.join())).size).toBe(200);
    for (const { choices } of scored) {
      expect(candidateCost(space, choices)).toBeLessThanOrEqual(budget);
      for (const [m, choice] of choices.entries()) expect(space[m]![choice]).toBeDefined();
    }
  });
  test('begin with those that choose alike, as far as they fit', () => {
    const alike = uniformCandidates(space, budget);
    expect(alike.map((c) => c[0])).toEqual([1, 0]);
    expect(searched(space, evolution(1, budget), 2, loss).map((s) => s.choices)).toEqual(alike);
  });
  test('follow from key, number and scores alone: a search that goes on is the one that did not stop', () => {
    const whole = searched(space, evolution(7, budget), 120, loss);
    expect(searched(space, evolution(7, budget), 120, loss, whole.slice(0, 53))).toEqual(whole);
    expect(searched(space, evolution(8, budget), 120, loss)).not.toEqual(whole);
  });
  test('are made to fit by cheaper choices only', () => {
    for (let k = 0; k < 50; k++) {
      const random = randomOf(foldKey(hostKey(5), k));
      const dear = space.map((costs) => random.int(costs.length));
      const fitting = within(space, dear, budget, random);
      expect(candidateCost(space, fitting)).toBeLessThanOrEqual(budget);
      for (const [m, choice] of fitting.entries()) expect(space[m]![choice]!).toBeLessThanOrEqual(space[m]![dear[m]!]!);
    }
    expect(within(space, space.map(() => 3), 0, randomOf(hostKey(1)))).toEqual(space.map(() => 0)); // biome-ignore format: one line
  });
  test('a loss that is no number is worst, the earlier of equals best', () => {
    const of = (...losses: number[]) => losses.map((loss, i) => ({ choices: [i], loss }));
    expect(best(of(Number.NaN, 2, 1, 1)).choices).toEqual([2]);
    expect(() => best([])).toThrow('nothing was scored');
  });
});

describe('what is found', () => {
  test('in a small space the best there is, which is then searched through', () => {
    const { space, loss } = problem(4, 9);
    const budget = 0.4 * space.reduce((n, costs) => n + costs.at(-1)!, 0);
    const all = Array.from({ length: 4 ** 4 }, (_, k) => [0, 1, 2, 3].map((m) => Math.floor(k / 4 ** m) % 4));
    const fitting = all.filter((c) => candidateCost(space, c) <= budget);
    const scored = searched(space, evolution(2, budget), 1000, loss);
    expect(best(scored).loss).toBe(Math.min(...fitting.map(loss)));
    expect(scored.length).toBeLessThanOrEqual(fitting.length);
    expect(scored.length).toBeGreaterThan(0.6 * fitting.length);
  });
  test('in a large one more than by as many random draws, for every seed of ten', () => {
    const { space, loss } = problem(60, 21);
    const budget = 0.3 * space.reduce((n, costs) => n + costs.at(-1)!, 0);
    for (let seed = 1; seed <= 10; seed++) {
      const e = evolution(seed, budget);
      const evolved = best(searched(space, e, 400, loss)).loss;
      const drawn = best(searched(space, { ...e, population: 400 }, 400, loss)).loss;
      expect(evolved, `seed ${seed}`).toBeLessThan(drawn);
    }
  });
});
