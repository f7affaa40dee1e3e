/** Growth by gain: probes against the dense gradient and its SVD in f64, the budget, noise, and what a first step really brings. */
import fc from 'fast-check';
import { Matrix, SVD } from 'ml-matrix';
import { beforeAll, describe, expect, test } from 'vitest';
import { cast, evaluate, grad, mean, permute, read, type Tensor, tensor } from '../../core/index.ts';
import { adaptablePaths, specShapes } from '../../models/spec.ts';
import { unetSpec } from '../../models/unet/index.ts';
import { kaimingUniform } from '../../selora/adapter.ts';
import { allot } from '../../selora/gain/allot.ts';
import { directionsOf, rangeOf } from '../../selora/gain/directions.ts';
import type { Probe, Probed } from '../../selora/gain/probe.ts';
import { budgetOf, costOf, type Gained, gainTest, isDue, shareAt } from '../../selora/gain/test.ts';
import { inputsOf } from '../../selora/methods/low-rank.ts';
import type { Now, Passes, Place, Ranks } from '../../selora/methods/method.ts';
import { settingsOf } from '../../selora/methods/registry.ts';
import { selora } from '../../selora/methods/selora.ts';
import type { Trial } from '../../selora/trial.ts';
import { adamDefaults } from '../../train/optimise/optimizer.ts';
import { sampleLosses } from '../../train/step/gradients.ts';
import { createSteps, mapModules, moduleName, networks, type PerModule, paramsOf } from '../../train/step/step.ts';
import { rng } from '../support/gradcheck.ts';
import { batch, configs, linears, stateOf } from '../support/step-fixture.ts';
import { base, cpu, list } from '../support/toy-method.ts';

const SCALE = 0.8;
const settings = settingsOf(selora, { criterion: 'gain', rank: 0, scale: SCALE, probe: 256, testEvery: 10 });
const c = settings as unknown as Parameters<typeof gainTest>[2];
const spec = unetSpec(configs.unet);
const shapes = specShapes(spec);
const places = {
  unet: new Map(adaptablePaths(spec).map((p) => [p, shapes.get(`${p}.weight`) as unknown as Place])),
  text: linears.text as ReadonlyMap<string, Place>,
};
const modules: PerModule<Place> = { unet: Object.fromEntries(places.unet), text: Object.fromEntries(places.text) };
const ranks: Ranks = mapModules((_place, path) => (path.endsWith('to_q') ? 2 : path.endsWith('to_k') ? 1 : 0), modules);
/** adapters with B = 0 in the modules that have ranks, in a room of 4 */
const adapters = mapModules((place: Place, path, n) => {
  const rank = ranks[n][path]!;
  const A = kaimingUniform([7, path.length], inputsOf(place), inputsOf(place) * rank, { a: 0 });
  return {
    A: tensor(Array.from(A), [inputsOf(place), rank], 'f64'),
    B: tensor(new Float64Array(rank * place[0]), [rank, place[0]]),
  };
}, modules);
const now: Now<never> = {
  step: 1,
  steps: 100,
  key: [3, 4],
  places,
  ranks,
  room: { unet: 4, text: 4 },
  memories: {},
};
const batches = [1, 2].map((seed) => batch(2, seed, 'f64'));
const programs = createSteps({ backend: cpu, configs, method: selora, settings, adam: adamDefaults, clip: 0, checkpointBlocks: false } as never); // biome-ignore format: one line
const state = stateOf(adapters, 4, cpu);
const wide = (x: PerModule<Probe>) =>
  mapModules(({ K, R }) => evaluate({ K: cast(K, 'f64'), R: cast(R, 'f64') }, cpu), x);
const passes: Passes<Probe, Probed<Float64Array>> = {
  batches: batches.length,
  update: () => {
    throw new Error('no update is asked for');
  },
  look: () => {
    throw new Error('not asked here');
  },
  loss: () => {
    throw new Error('not asked here');
  },
  measure(x, range) {
    const sums = programs.scores(state as never, base.f64, batches.slice(...range!), wide(x) as never);
    return () => programs.readSums(sums) as never;
  },
};

/** ∂L/∂ΔW[d_in, d_out] of every module over one batch, from the gradient of the frozen weights themselves */
async function dense(k: number): Promise<PerModule<Matrix>> {
  const o = { configs, method: selora, settings, checkpointBlocks: false };
  const loss = (net: typeof base.f64): Tensor =>
    mean(sampleLosses(o as never, paramsOf(state) as never, net, batches[k]!));
  const g = grad(loss as never)(base.f64 as never) as unknown as typeof base.f64;
  const out: { unet: Record<string, Matrix>; text: Record<string, Matrix> } = { unet: {}, text: {} };
  const wanted = networks.flatMap((n) =>
    [...places[n]].map(([path, place]) => {
      const w = path
        .split('.')
        .reduce((node, key) => (node as Readonly<Record<string, unknown>>)[key], g[n] as unknown) as { weight: Tensor };
      // [d_out, d_in] as it is; a kernel [kh, kw, in, out] in the order of files, [in, kh, kw]
      return { n, path, place, G: permute(w.weight, place.length === 2 ? [1, 0] : [2, 0, 1, 3]) };
    }),
  );
  // all at once: one by one, each would run forward and backward anew
  const values = evaluate(
    wanted.map(({ G }) => G),
    cpu,
  );
  for (const [i, { n, path, place }] of wanted.entries())
    out[n][path] = Matrix.from1DArray(inputsOf(place), place[0], Array.from(await read(values[i]!))).mul(SCALE);
  return out;
}
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
  const { A } = adapters[n][path]!;
  const [rows, columns] = A.shape as [number, number];
  return columns === 0 ? new Matrix(rows, 0) : Matrix.from1DArray(rows, columns, Array.from(await list(A)));
};

describe('a test by gain', () => {
  let rows: readonly Gained[];
  let columns: PerModule<Trial>;
  let after: Ranks;
  let halves: readonly PerModule<Matrix>[];
  beforeAll(async () => {
    const outcome = await gainTest(passes as never, now, { ...c, budgetParameters: 2000 })();
    rows = outcome.decisions;
    after = outcome.ranks;
    columns = outcome.install!({ unet: 64, text: 64 });
    halves = [await dense(0), await dense(1)];
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
