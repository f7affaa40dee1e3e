/** Growth by gain: probes against the dense gradient and its SVD in f64, the budget, noise, and what a first step really brings. */
import fc from 'fast-check';
import { Matrix, SVD } from 'ml-matrix';
import { beforeAll, describe, expect, test } from 'vitest';
import { read, slice, type Tensor, tensor } from '../../core/index.ts';
import { allot } from '../../selora/gain/allot.ts';
import { broughtBy } from '../../selora/gain/brought.ts';
import { directionsOf, rangeOf } from '../../selora/gain/directions.ts';
import { budgetOf, isDue, shareAt } from '../../selora/gain/schedule.ts';
import { type Gained, gainTest } from '../../selora/gain/test.ts';
import { costOf, inputsOf } from '../../selora/methods/low-rank.ts';
import type { Ranks } from '../../selora/methods/method.ts';
import type { Trial } from '../../selora/trial.ts';
import { type Batch, mapModules, moduleName, networks, type PerModule, paramsOf } from '../../train/step/step.ts';
import {
  batches,
  c,
  dense,
  fresh,
  now,
  passesOf,
  places,
  programs,
  ranks,
  stateWith,
} from '../support/gain-fixture.ts';
import { rng } from '../support/gradcheck.ts';
import { base, list } from '../support/toy-method.ts';

const state = stateWith(fresh);
/** the part of G outside the columns of A and within those of `range` */
function within(G: Matrix, A: Matrix, range: Matrix): Matrix {
  const projector = (m: Matrix) => {
    const { leftSingularVectors: U, diagonal } = new SVD(m, { autoTranspose: true });
    const k = diagonal.filter((s) => s > 1e-10 * diagonal[0]!).length;
    const V = U.subMatrix(0, m.rows - 1, 0, k - 1);
    return V.mmul(V.transpose());
  };
  const free = (m: Matrix) => (A.columns === 0 ? m : Matrix.sub(m, projector(A).mmul(m)));
  return projector(free(range)).mmul(G);
}
const adapterMatrix = async (n: 'unet' | 'text', path: string): Promise<Matrix> => {
  const { A } = fresh[n][path]!;
  const [rows, columns] = A.shape as [number, number];
  return columns === 0 ? new Matrix(rows, 0) : Matrix.from1DArray(rows, columns, Array.from(await list(A)));
};

describe('a test by gain', () => {
  let rows: readonly Gained[];
  let columns: PerModule<Trial>;
  let after: Ranks;
  let halves: readonly PerModule<Matrix>[];
  let carried: readonly number[];
  beforeAll(async () => {
    const asked = { ...c, budgetParameters: 2000, gainCheck: 6, lr: 1e-5 };
    const outcome = await gainTest(passesOf(state) as never, now, asked)();
    rows = outcome.decisions;
    carried = outcome.carried!;
    after = outcome.ranks;
    columns = outcome.install!(mapModules(() => 64, ranks));
    halves = [await dense(state, batches[0]!), await dense(state, batches[1]!)];
  }, 300_000);

  test('directions, σ and gain are those of the dense gradient, free of the columns there are', async () => {
    let checked = 0;
    for (const n of networks)
      for (const [path, place] of places[n]) {
        const name = moduleName(n, path);
        const row = rows.find(({ module }) => module === name)!;
        const A = await adapterMatrix(n, path);
        const [one, two] = halves.map((h) => within(h[n][path]!, A, halves[0]![n][path]!)) as [Matrix, Matrix];
        const [both, svds] = [
          Matrix.add(one, two).mul(0.5),
          [one, two].map((m) => new SVD(m, { autoTranspose: true })),
        ];
        const svd = new SVD(both, { autoTranspose: true });
        expect(row.sigma / svd.diagonal[0]!, name).toBeCloseTo(1, 5);
        const across = (u: number[], x: Matrix, y: Matrix) => {
          const [a, b] = [x, y].map((m) => m.transpose().mmul(Matrix.columnVector(u)).to1DArray()) as [
            number[],
            number[],
          ];
          return { gain: a.reduce((s, v, j) => s + Math.sign(v) * b[j]!, 0), square: b.reduce((s, v) => s + v * v, 0) };
        };
        const forth = across(svds[0]!.leftSingularVectors.getColumn(0), one, two);
        const back = across(svds[1]!.leftSingularVectors.getColumn(0), two, one);
        const size =
          Math.SQRT2 *
          one
            .transpose()
            .mmul(Matrix.columnVector(svd.leftSingularVectors.getColumn(0)))
            .to1DArray()
            .reduce((s, v) => s + Math.abs(v), 0);
        expect(Math.abs(row.gain - (Math.SQRT2 * (forth.gain + back.gain)) / 2), name).toBeLessThan(1e-5 * size);
        const shares = [forth.square / svds[1]!.diagonal[0]! ** 2, back.square / svds[0]!.diagonal[0]! ** 2];
        expect(row.caught, name).toBeCloseTo((shares[0]! + shares[1]!) / 2, 4);
        expect(row.cost).toBe(costOf(place));
        if (row.added === 0) continue;
        // the first column is √2·u₁, its sign free
        const { K, slot } = columns[n][path]!;
        const k = K.shape[1]!;
        const [values, row0] = [await read(K), await read(slot)];
        expect(row0[ranks[n][path]!], `${name}: the first free rank`).toBe(1);
        const u = Array.from({ length: K.shape[0]! }, (_, i) => values[i * k]! / Math.SQRT2);
        const dot = u.reduce((s, v, i) => s + v * svd.leftSingularVectors.get(i, 0), 0);
        if (svd.diagonal[1]! < 0.98 * svd.diagonal[0]!) expect(Math.abs(dot), name).toBeCloseTo(1, 5);
        expect(
          u.reduce((s, v) => s + v * v, 0),
          name,
        ).toBeCloseTo(1, 5);
        checked++;
      }
    expect(checked).toBeGreaterThan(5);
  });

  test('what a rank brings by one short step is its gain, for as many modules as were asked for', async () => {
    const never = { batches: 2, loss: () => Promise.reject(new Error('nothing is to be measured')) };
    const still = broughtBy(never, [{ n: 'unet', path: 'a' }], {} as never, {} as never, { unet: 0, text: 0 }, 3);
    expect(await still).toEqual(new Map());
    const checked = rows.filter(({ brought }) => brought !== undefined);
    expect(checked).toHaveLength(6);
    expect(checked.every(({ added }) => added > 0)).toBe(true);
    for (const { module, brought, gain } of checked) expect(brought! / gain, module).toBeCloseTo(1, 3);
  });

  test('a gain is told by sample: each has the part its own dense gradient gives it', async () => {
    // the samples of both batches, each a batch of its own
    const each = batches.flatMap((b) =>
      [0, 1].map(
        (i) =>
          Object.fromEntries(
            Object.entries(b).map(([key, x]) => [key, slice(x as Tensor, { axis: 0, start: i, stop: i + 1 })]),
          ) as unknown as Batch,
      ),
    );
    const own = [];
    for (const one of each) own.push(await dense(state, one));
    const sums = own.map(() => 0);
    let alone = 0;
    for (const row of rows) {
      if (row.added === 0) {
        expect(row.carried).toBeUndefined();
        continue;
      }
      const [n, path] = networks.flatMap((net) => [...places[net].keys()].map((p) => [net, p] as const)).find(([net, p]) => moduleName(net, p) === row.module)!; // biome-ignore format: one line
      const A = await adapterMatrix(n, path);
      const [one, two] = halves.map((h) => within(h[n][path]!, A, halves[0]![n][path]!)) as [Matrix, Matrix];
      const sides = [one, two].map((m) => new SVD(m, { autoTranspose: true }).leftSingularVectors);
      const parts = own.map((g, i) => {
        // the half it is not in says where to look, and with which signs
        const [U, theirs] = i < 2 ? [sides[1]!, two] : [sides[0]!, one];
        let part = 0;
        for (let k = 0; k < row.added; k++) {
          const u = Matrix.columnVector(U.getColumn(k)).transpose();
          const [signs, mine] = [u.mmul(theirs).to1DArray(), u.mmul(g[n][path]!).to1DArray()];
          part += (Math.SQRT2 * signs.reduce((s, v, j) => s + Math.sign(v) * mine[j]!, 0)) / (2 * 2);
        }
        return part;
      });
      for (const [i, part] of parts.entries()) sums[i]! += part;
      const [first] = row.carried!;
      const best = parts.indexOf(Math.max(...parts));
      expect(first![0], row.module).toBe(best);
      expect(first![1] / parts[best]!, row.module).toBeCloseTo(1, 4);
      if (row.added === 1) {
        expect(parts.reduce((s, v) => s + v, 0) / row.gain, row.module).toBeCloseTo(1, 4);
        alone++;
      }
    }
    expect(alone).toBeGreaterThan(2);
    for (const [i, part] of carried.entries()) expect(part / sums[i]!).toBeCloseTo(1, 4);
  });

  test('the budget is kept to the parameter, ranks rise by what the rows say', () => {
    const parameters = rows.reduce((s, r) => s + r.cost * r.rankAfter, 0);
    expect(parameters).toBeLessThanOrEqual(2000);
    expect(parameters).toBeGreaterThan(2000 - Math.max(...rows.map((r) => r.cost)));
    for (const n of networks)
      for (const path of places[n].keys()) {
        const row = rows.find(({ module }) => module === moduleName(n, path))!;
        expect(row.rankAfter).toBe(after[n][path]);
        expect(row.rankAfter - row.added).toBe(ranks[n][path]);
      }
  });

  test('what is expected is what the first step of Adam brings on the other half', async () => {
    const points: [expected: number, found: number][] = [];
    const [lr, first] = [1e-5, batches.slice(1)];
    const none = paramsOf(state);
    const losses = async (p: PerModule<{ A: Tensor; B: Tensor }>) => {
      const each = await Promise.all(first.map((b) => list(programs.losses(p as never, base.f64, b))));
      return each.flat().reduce((s, v) => s + v, 0) / each.flat().length;
    };
    const start = await losses(none);
    for (const n of networks)
      for (const [path, place] of [...places[n]].slice(0, 8)) {
        const G = halves.map((h) => h[n][path]!);
        const u = new SVD(G[0]!, { autoTranspose: true }).leftSingularVectors.getColumn(0);
        const [mine, theirs] = G.map((m) => m.transpose().mmul(Matrix.columnVector(u)).to1DArray()) as [
          number[],
          number[],
        ];
        // Adam's first step is lr against the sign of the gradient, whatever its size
        const column = tensor(
          u.map((v) => v * Math.SQRT2),
          [inputsOf(place), 1],
          'f64',
        );
        const row = tensor(
          mine.map((v) => -lr * Math.sign(v)),
          [1, place[0]],
          'f64',
        );
        const moved = { ...none, [n]: { ...none[n], [path]: { A: column, B: row } } };
        points.push([
          lr * Math.SQRT2 * mine.reduce((s, v, j) => s + Math.sign(v) * theirs[j]!, 0),
          start - (await losses(moved as never)),
        ]);
      }
    const middle = (k: 0 | 1) => points.reduce((s, p) => s + p[k], 0) / points.length;
    const [x, y] = [middle(0), middle(1)];
    const sum = (f: (p: [number, number]) => number) => points.reduce((s, p) => s + f(p), 0);
    const r =
      sum((p) => (p[0] - x) * (p[1] - y)) / Math.sqrt(sum((p) => (p[0] - x) ** 2) * sum((p) => (p[1] - y) ** 2));
    expect(r).toBeGreaterThan(0.999);
  });
});

describe('directions', () => {
  const normal = (random: () => number) => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const noise = (rows: number, columns: number, random: () => number) =>
    Matrix.from1DArray(
      rows,
      columns,
      Array.from({ length: rows * columns }, () => normal(random)),
    );
  const rowsOf = (m: Matrix) => ({ data: m.to1DArray(), shape: [m.rows, m.columns] as const });

  test('of noise bring nothing on average, though in the half they were taken from they seem to', () => {
    const random = rng(5);
    const [gains, own]: [number[], number[]] = [[], []];
    for (let trial = 0; trial < 300; trial++) {
      const [one, two, omega] = [noise(12, 9, random), noise(12, 9, random), noise(4, 9, random)];
      const Q = rangeOf(rowsOf(one.mmul(omega.transpose())), { data: [], shape: [12, 0] });
      const [a, b] = [one, two].map((G) => rowsOf(Q.transpose().mmul(G))) as [
        ReturnType<typeof rowsOf>,
        ReturnType<typeof rowsOf>,
      ];
      gains.push(directionsOf(Q, a, b)[0]!.gain);
      own.push(directionsOf(Q, a, a)[0]!.gain);
    }
    const stats = (x: readonly number[]) => {
      const m = x.reduce((s, v) => s + v, 0) / x.length;
      return [m, Math.sqrt(x.reduce((s, v) => s + (v - m) ** 2, 0) / (x.length - 1) / x.length)] as const;
    };
    expect(Math.abs(stats(gains)[0])).toBeLessThan(3.5 * stats(gains)[1]);
    expect(stats(own)[0]).toBeGreaterThan(30 * stats(own)[1]);
  });

  test('lie outside the columns a module has, and there are none where it has them all', () => {
    const random = rng(6);
    const A = noise(6, 2, random);
    const Q = rangeOf(rowsOf(noise(6, 6, random)), rowsOf(A));
    expect(Q.columns).toBe(4);
    for (const v of A.transpose().mmul(Q).to1DArray()) expect(Math.abs(v)).toBeLessThan(1e-9);
    expect(rangeOf(rowsOf(noise(6, 6, random)), rowsOf(noise(6, 6, random))).columns).toBe(0);
    expect(rangeOf(rowsOf(Matrix.zeros(6, 3)), { data: [], shape: [6, 0] }).columns).toBe(0);
  });
});

describe('the allotment', () => {
  const offers = fc.array(
    fc.record({
      gains: fc.array(fc.integer({ min: -10, max: 40 }), { maxLength: 5 }),
      cost: fc.integer({ min: 1, max: 9 }),
      owed: fc.integer({ min: -1, max: 2 }),
    }),
    { minLength: 1, maxLength: 5 },
  );
  test('never spends more than there is, takes ranks in order, none that brings nothing, and stops only where none fits', () => {
    fc.assert(
      fc.property(offers, fc.integer({ min: -3, max: 40 }), (list, budget) => {
        const named = list.map((o, i) => ({ ...o, module: `m${i}` }));
        const given = allot(named, budget);
        const spent = named.reduce((s, o) => s + given.get(o.module)! * o.cost, 0);
        expect(spent).toBeLessThanOrEqual(Math.max(0, budget));
        for (const o of named) {
          const k = given.get(o.module)!;
          expect(o.gains.slice(0, k).every((g) => g > 0)).toBe(true);
          expect(k < o.gains.length && o.gains[k]! > 0 && o.cost <= budget - spent).toBe(false);
        }
      }),
    );
  });
  test('the ranks that bring most for their parameters come first', () => {
    const given = allot(
      [
        { module: 'dear', gains: [8, 8], cost: 4 },
        { module: 'cheap', gains: [3, 1], cost: 1 },
        { module: 'worse', gains: [-1, 9], cost: 1 },
      ],
      6,
    );
    expect([...given.values()]).toEqual([1, 2, 0]);
  });
  test('what is owed comes before what brings more, as far as it brings anything', () => {
    const given = allot(
      [
        { module: 'dear', gains: [8, 8], cost: 4, owed: -1 },
        { module: 'cheap', gains: [3, 1], cost: 1, owed: 1 },
        { module: 'worse', gains: [0.5, 0.4], cost: 1, owed: 1 },
        { module: 'worst', gains: [-1], cost: 1, owed: 2 },
      ],
      6,
    );
    expect([...given.values()]).toEqual([1, 1, 1, 0]);
  });
});

describe('the schedule', () => {
  const at = (given: Partial<typeof c>) => ({ ...c, ...given });
  test('all at the first step, or a part of it and the rest in equal parts', () => {
    expect([1, 2, 10, 40].map((s) => isDue(c, s, 100))).toEqual([true, false, false, false]);
    const half = at({ growFirst: 0.5, growUntil: 0.4 });
    expect([1, 5, 10, 20, 40, 50].map((s) => isDue(half, s, 100))).toEqual([true, false, true, true, true, false]);
    expect([1, 10, 20, 30, 40].map((s) => shareAt(half, s, 100))).toEqual([0.5, 0.625, 0.75, 0.875, 1]);
    const late = at({ growFirst: 0 });
    expect([1, 10].map((s) => isDue(late, s, 100))).toEqual([false, true]);
  });
  test('the budget without a number is that of LoRA r = 4 on the linear layers', () => {
    const want = networks
      .flatMap((n) => [...places[n].values()])
      .filter((p) => p.length === 2)
      .reduce((s, [dOut, dIn]) => s + 4 * (dOut + dIn), 0);
    expect(budgetOf(c, places)).toBe(want);
  });
});
