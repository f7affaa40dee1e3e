/** Ranks that leave by gain: what they are missed by, against measured losses in f64; the exchange; the state after it. */
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { cast, evaluate, mapTree, mul, type Tensor, tensor, zeros } from '../../core/index.ts';
import { allot } from '../../selora/gain/allot.ts';
import { type Said, saidBy } from '../../selora/gain/carried.ts';
import { type Asked, widthOf } from '../../selora/gain/probe.ts';
import { exchange, missing, sensed, without } from '../../selora/gain/prune.ts';
import { countOf, isDue } from '../../selora/gain/schedule.ts';
import { type Gained, gainTest, type Moved } from '../../selora/gain/test.ts';
import { costOf, inputsOf, parametersOf } from '../../selora/methods/low-rank.ts';
import type { Now, Outcome } from '../../selora/methods/method.ts';
import { mapModules, moduleName, networks, type PerModule, paramsOf } from '../../train/step/step.ts';
import {
  batches,
  c,
  learned,
  lossesOf,
  modules,
  now,
  passesOf,
  places,
  programs,
  ROOM,
  ranks,
  stateWith,
} from '../support/gain-fixture.ts';
import { cpu, list } from '../support/toy-method.ts';

const state = stateWith(learned);
type Pair = { readonly A: Tensor; readonly B: Tensor };
/** the parameters with the rows of some ranks multiplied by a factor */
const scaled = (factor: (path: string, n: 'unet' | 'text', rank: number) => number): PerModule<Pair> =>
  mapModules(
    (p: Pair, path, n) => ({
      A: p.A,
      B: mul(
        p.B,
        tensor(
          Float64Array.from({ length: ROOM }, (_, r) => factor(path, n, r)),
          [ROOM, 1],
        ),
      ),
    }),
    paramsOf(state) as unknown as PerModule<Pair>,
  );
const sampleLossesAt = async (p: PerModule<Pair>): Promise<number[]> => {
  const each = await Promise.all(batches.map((b) => list(lossesOf(p, b))));
  return each.flat();
};
const meanOf = (x: readonly number[]) => x.reduce((s, v) => s + v, 0) / x.length;
const held = networks.flatMap((n) =>
  Object.entries(ranks[n]).flatMap(([path, r]) => Array.from({ length: r }, (_, rank) => ({ n, path, rank }))),
);
const at = (where: (typeof held)[number]) => (path: string, n: string, rank: number) =>
  path === where.path && n === where.n && rank === where.rank;

describe('a rank that could leave', () => {
  let said: PerModule<Said>;
  beforeAll(async () => {
    const columns = mapModules((place) => ({ K: zeros([inputsOf(place), widthOf(place, 4)]) }), modules);
    said = saidBy(
      (await passesOf(state).each(columns, [0, 2])) as readonly PerModule<Asked<Float64Array>>[],
      modules,
      4,
    );
  });

  test('its derivative of every sample is the finite difference of that loss by a factor on it', async () => {
    const h = 1e-4;
    for (const where of held.filter((_, i) => i % 3 === 0)) {
      const is = at(where);
      const [more, less] = [1 + h, 1 - h].map((f) => sampleLossesAt(scaled((...a) => (is(...a) ? f : 1))));
      const [up, down] = [await more!, await less!];
      const gates = said[where.n][where.path]!.gates[where.rank]!;
      expect(gates).toHaveLength(4);
      for (const [i, x] of up.entries())
        expect(Math.abs((x - down[i]!) / (2 * h) - gates[i]!), `${where.path} ${where.rank}`).toBeLessThan(1e-7);
      expect(sensed(gates).slope).toBeCloseTo(meanOf(Array.from(gates)), 12);
    }
  });

  test('the loss without it, through a probe, is the loss with its row at zero', async () => {
    const passes = passesOf(state);
    for (const where of [held[0]!, held[3]!]) {
      const is = at(where);
      const probe = without(modules, said, (path, n) => (path === where.path && n === where.n ? [where.rank] : []), 4);
      const want = meanOf(await sampleLossesAt(scaled((...a) => (is(...a) ? 0 : 1))));
      // the probe is of f32
      expect(Math.abs((await passes.loss(probe, [0, 2])) / want - 1)).toBeLessThan(1e-6);
    }
  });

  test('what all are missed by is the slope and a curvature that makes the least of them what was measured', async () => {
    const some = held.map(({ n, path, rank }, i) => ({
      module: moduleName(n, path),
      rank,
      cost: 2 + (i % 3),
      ...sensed(said[n][path]!.gates[rank]!),
    }));
    let asked: ReadonlyMap<string, readonly number[]> = new Map();
    const found = await missing(some, 7, 1, async (lost) => {
      asked = lost;
      return 0.02;
    });
    const gone = found.filter(({ module, rank }) => asked.get(module)?.includes(rank));
    expect(gone.length).toBeGreaterThan(1);
    expect(gone.reduce((s, { cost }) => s + cost, 0)).toBeLessThanOrEqual(7);
    expect([...asked.values()].every((r) => r.length <= 1)).toBe(true);
    expect(gone.reduce((s, { missed }) => s + missed, 0)).toBeCloseTo(0.02, 10);
    // a curvature is never below zero
    const flat = await missing(some, 7, 1, async () => -1e3);
    for (const [i, { missed }] of flat.entries()) expect(missed).toBeCloseTo(-some[i]!.slope, 12);
  });
});

describe('the exchange', () => {
  const offers = fc.array(
    fc.record({
      gains: fc.array(fc.integer({ min: -10, max: 40 }), { maxLength: 4 }),
      cost: fc.integer({ min: 1, max: 9 }),
      held: fc.array(fc.integer({ min: -5, max: 30 }), { maxLength: 4 }),
    }),
    { minLength: 1, maxLength: 5 },
  );
  test('stays within the budget, moves no more than it may, and what comes brings more than what goes is missed by', () => {
    fc.assert(
      fc.property(
        offers,
        fc.nat({ max: 30 }),
        fc.nat({ max: 30 }),
        fc.integer({ min: 1, max: 3 }),
        (list, free, most, probe) => {
          const named = list.map((o, i) => ({ ...o, module: `m${i}` }));
          const there = named.flatMap(({ module, cost, held: h }) =>
            h.map((missed, rank) => ({ module, rank, cost, missed })),
          );
          const plain = allot(named, free);
          const spent = (given: ReadonlyMap<string, number>) =>
            named.reduce((s, o) => s + given.get(o.module)! * o.cost, 0);
          const { given, lost } = exchange(named, there, plain, { left: free - spent(plain), most, probe });
          const gone = there.filter(({ module, rank }) => lost.get(module)?.includes(rank));
          const freed = gone.reduce((s, { cost }) => s + cost, 0);
          expect(spent(given)).toBeLessThanOrEqual(free + freed);
          expect(freed).toBeLessThanOrEqual(most);
          for (const ranksOf of lost.values()) {
            expect(ranksOf.length).toBeLessThanOrEqual(probe);
            expect(new Set(ranksOf).size).toBe(ranksOf.length);
          }
          const brought = named.reduce(
            (s, o) => s + o.gains.slice(plain.get(o.module), given.get(o.module)).reduce((a, b) => a + b, 0),
            0,
          );
          const missed = gone.reduce((s, r) => s + Math.max(0, r.missed), 0);
          if (gone.length > 0) expect(brought).toBeGreaterThan(missed);
          for (const o of named) {
            expect(given.get(o.module)!).toBeGreaterThanOrEqual(plain.get(o.module)!);
            expect(o.gains.slice(0, given.get(o.module)).every((g) => g > 0)).toBe(true);
          }
        },
      ),
    );
  });
  test('the rank that is missed least for its parameters goes for the direction that brings most for its own', () => {
    const named = [
      { module: 'a', gains: [9], cost: 2 },
      { module: 'b', gains: [8, 7], cost: 2 },
    ];
    const there = [
      { module: 'a', rank: 0, cost: 2, missed: 5 },
      { module: 'b', rank: 0, cost: 2, missed: 1 },
      { module: 'b', rank: 1, cost: 2, missed: 20 },
    ];
    const nobody = new Map([
      ['a', 0],
      ['b', 0],
    ]);
    const { given, lost } = exchange(named, there, nobody, { left: 0, most: 4, probe: 4 });
    expect([...given]).toEqual([
      ['a', 1],
      ['b', 1],
    ]);
    expect([...lost]).toEqual([
      ['b', [0]],
      ['a', [0]],
    ]);
  });
});

describe('a test that prunes', () => {
  const settings = { ...c, prune: 0.5, probe: 4, lr: 0.5, budgetParameters: parametersOf(ranks, places) };
  const step: Now<never> = { ...now, step: 10, steps: 100 };
  let outcome: Outcome<Moved, never, Gained>;
  beforeAll(async () => {
    outcome = await gainTest(passesOf(state) as never, step, settings)();
  }, 120_000);

  test('parameters move between modules, and their number stays', () => {
    const lost = outcome.decisions.reduce((s, row) => s + (row.lost ?? 0), 0);
    const added = outcome.decisions.reduce((s, row) => s + row.added, 0);
    expect(lost).toBeGreaterThan(0);
    expect(added).toBeGreaterThan(0);
    expect(parametersOf(outcome.ranks, places)).toBeLessThanOrEqual(settings.budgetParameters);
    for (const row of outcome.decisions) {
      const [n, path] = networks.flatMap((net) => [...places[net].keys()].map((p) => [net, p] as const)).find(([net, p]) => moduleName(net, p) === row.module)!; // biome-ignore format: one line
      expect(row.rankAfter).toBe(ranks[n][path]! + row.added - (row.lost ?? 0));
      expect(row.rankAfter).toBe(outcome.ranks[n][path]);
      expect(row.lost === undefined).toBe(row.missed === undefined);
    }
  });

  test('what stays keeps its numbers, moments and ages; what comes has none', async () => {
    const room = mapModules(() => 8, ranks);
    const moved = outcome.install!(room);
    // moments and ages that tell their rank
    const told = (x: Tensor, axis: 0 | 1, by: number) =>
      mul(
        x,
        tensor(
          Float64Array.from({ length: 8 }, (_, r) => by * (r + 1)),
          axis === 1 ? [1, 8] : [8, 1],
        ),
      );
    const wide = stateWith(learned, 8);
    const full = mapModules(
      (s: (typeof wide)['unet'][string], path, n) =>
        evaluate(
          {
            ...s,
            m: { A: told(s.p.A, 1, 2), B: told(s.p.B, 0, 2) },
            v: { A: told(s.p.A, 1, 3), B: told(s.p.B, 0, 3) },
            age: tensor(
              Float64Array.from({ length: 8 }, (_, r) => (r < ranks[n][path]! ? 10 + r : 0)),
              [8],
            ),
          },
          cpu,
        ),
      wide,
    );
    const next = programs.install(
      full as never,
      mapModules(
        (x: Moved) =>
          evaluate(
            mapTree((t: Tensor) => cast(t, 'f64'), x),
            cpu,
          ),
        moved,
      ) as never,
    ) as unknown as typeof full;
    let seen = 0;
    for (const row of outcome.decisions.filter(({ lost }) => lost !== undefined)) {
      const [n, path] = networks.flatMap((net) => [...places[net].keys()].map((p) => [net, p] as const)).find(([net, p]) => moduleName(net, p) === row.module)!; // biome-ignore format: one line
      const [before, after] = [learned[n][path]!, next[n][path]!];
      const dOut = before.B.shape[1]!;
      const rowsOf = async (x: Tensor) => {
        const all = await list(x);
        return Array.from({ length: x.shape[0]! }, (_, r) => all.slice(r * dOut, (r + 1) * dOut));
      };
      const [old, now8, m] = [await rowsOf(before.B), await rowsOf(after.p.B), await rowsOf(after.m.B)];
      const ages = await list(after.age);
      const stay = ranks[n][path]! - row.lost!;
      for (let r = 0; r < 8; r++) {
        if (r >= stay) {
          expect(now8[r]!.every((x) => x === 0) && m[r]!.every((x) => x === 0) && ages[r] === 0).toBe(true);
          continue;
        }
        const from = ages[r]! - 10;
        expect(now8[r]).toEqual(old[from]);
        expect(m[r]).toEqual(old[from]!.map((x) => x * 2 * (from + 1)));
        seen++;
      }
    }
    expect(seen).toBeGreaterThan(0);
  });
});

test('it tests on after all is given out', () => {
  expect([isDue(c, 20, 100), isDue({ ...c, prune: 0.1 }, 20, 100)]).toEqual([false, true]);
  expect([countOf(c, 100), countOf({ ...c, prune: 0.1 }, 100)]).toEqual([1, 5]);
  expect(costOf([3, 2, 5, 5])).toBe(53);
});
