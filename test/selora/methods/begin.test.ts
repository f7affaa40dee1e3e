/** Starts that look at gradients: the gradients themselves, ranks dealt out by them, LoRA-GA's singular vectors, GoRA's step. */
import { EigenvalueDecomposition, Matrix, QrDecomposition, SingularValueDecomposition } from 'ml-matrix';
import { describe, expect, test } from 'vitest';
import { mean, type Tensor, tensor } from '../../../core/index.ts';
import { hostKey, normalNumbers } from '../../../selora/adapter.ts';
import { allocate, dealt } from '../../../selora/methods/allocate.ts';
import { fisherRanks } from '../../../selora/methods/fisher-ranks.ts';
import { full } from '../../../selora/methods/full.ts';
import { descent, gora } from '../../../selora/methods/gora.ts';
import { leading } from '../../../selora/methods/leading.ts';
import { alongGradient, loraGa } from '../../../selora/methods/lora-ga.ts';
import { parametersOf } from '../../../selora/methods/low-rank.ts';
import type { HostTensor, Looked, Method, Params, Place } from '../../../selora/methods/method.ts';
import { settingsOf } from '../../../selora/methods/registry.ts';
import { groupsOf, weightGradients } from '../../../train/step/begin.ts';
import { sampleLosses } from '../../../train/step/gradients.ts';
import { startState } from '../../../train/step/ranks.ts';
import { cpu, numbers, rng } from '../../support/gradcheck.ts';
import { longTest } from '../../support/long.ts';
import { layer, outputs, places, weightOf } from '../../support/method-layers.ts';
import { batch, configs, frozen, linears } from '../../support/step-fixture.ts';

const gradient = (seed: number, dOut: number, dIn: number) => ({
  shape: [dOut, dIn],
  data: normalNumbers(hostKey(seed), dOut * dIn),
});

test('gradients by the frozen weights are the derivatives of the mean loss over the batches', async () => {
  const [path, place] = [...linears.unet].find(([p]) => p.endsWith('attn2.to_v'))!;
  const own = { unet: new Map([[path, place]]), text: new Map() };
  const batches = [batch(2, 5, 'f32'), batch(2, 6, 'f32')];
  const g = await weightGradients(
    { configs, checkpointBlocks: false, backend: cpu },
    own,
    frozen('f32'),
    batches,
    (x) => x,
  );
  expect(g.unet[path]!.shape).toEqual(place);
  const [dOut, dIn] = place as [number, number];
  const options = { configs, method: full as never, settings: {}, checkpointBlocks: false };
  const loss = async (at: number, h: number) => {
    const D = tensor(Array.from({ length: dOut * dIn }, (_, i) => (i === at ? h : 0)), [dOut, dIn], 'f64'); // biome-ignore format: one line
    const each = [batch(2, 5, 'f64'), batch(2, 6, 'f64')].map((b) =>
      mean(sampleLosses(options, { unet: { [path]: { D } }, text: {} } as never, frozen('f64'), b)),
    );
    return ((await numbers(each[0]!))[0]! + (await numbers(each[1]!))[0]!) / 2;
  };
  const largest = Math.max(...g.unet[path]!.data.map(Math.abs));
  expect(largest).toBeGreaterThan(0);
  for (const at of [0, 5, dOut * dIn - 1]) {
    const slope = ((await loss(at, 1e-3)) - (await loss(at, -1e-3))) / 2e-3;
    expect(Math.abs(slope - g.unet[path]!.data[at]!)).toBeLessThanOrEqual(1e-4 * largest);
  }
});

describe('allocate', () => {
  test('sums to the budget exactly, within bounds, larger scores never less', () => {
    const random = rng(3);
    for (let k = 0; k < 300; k++) {
      const n = 1 + Math.floor(random() * 12);
      const scores = Array.from({ length: n }, () => (random() < 0.2 ? 0 : random() ** 4));
      const most = Array.from({ length: n }, () => 8);
      const budget = n + Math.floor(random() * (7 * n + 1));
      const dealt = allocate(scores, budget, 1, most);
      expect(dealt.reduce((a, b) => a + b, 0)).toBe(budget);
      expect(dealt.every((r) => Number.isInteger(r) && r >= 1 && r <= 8)).toBe(true);
      for (let i = 0; i < n; i++)
        for (let j = 0; j < n; j++) if (scores[i]! > scores[j]!) expect(dealt[i]!).toBeGreaterThanOrEqual(dealt[j]!);
    }
  });
  test('by hand: shares, bounds, equal scores, no score', () => {
    expect(allocate([3, 1], 8, 1, [8, 8])).toEqual([6, 2]);
    expect(allocate([3, 1], 8, 1, [5, 8])).toEqual([5, 3]);
    expect(allocate([100, 1, 1], 9, 1, [4, 8, 8])).toEqual([4, 3, 2]);
    expect(allocate([0, 0, 0], 4, 1, [4, 4, 4])).toEqual([2, 1, 1]);
    expect(() => allocate([1, 1], 1, 1, [4, 4])).toThrow('a budget of 1 ranks for 2 modules, expected 2 to 8');
    expect(() => allocate([1, Number.NaN], 4, 1, [4, 4])).toThrow('the score of module 2 is NaN');
  });
});

describe('ranks dealt out by parameters', () => {
  test('never more than the budget, and no more ranks in proportion would fit', () => {
    const random = rng(5);
    for (let k = 0; k < 200; k++) {
      const n = 1 + Math.floor(random() * 8);
      const side = () => 8 + Math.floor(random() * 60);
      const own = new Map<string, Place>(Array.from({ length: n }, (_, i) => [`m${i}`, [side(), side()]]));
      const of = (value: () => number) => ({ unet: Object.fromEntries([...own.keys()].map((p) => [p, value()])), text: {} }); // biome-ignore format: one line
      const [scores, one, both] = [of(() => random() ** 3), of(() => 1), { unet: own, text: new Map() }];
      const bounds = { least: 1, most: 8 };
      const parameters = Math.floor(parametersOf(one, both) * (1 + 6 * random()));
      const given = dealt(scores, one, both, { ...bounds, parameters });
      expect(parametersOf(given, both)).toBeLessThanOrEqual(parameters);
      // as many ranks, asked for as ranks, are dealt alike; with one more it is too much, or all are full
      const sum = Object.values(given.unet).reduce((a, b) => a + b, 0);
      const asked = { unet: { ...one.unet, m0: 1 + sum - n }, text: {} };
      expect(dealt(scores, asked, both, { ...bounds, parameters: null })).toEqual(given);
      if (sum === 8 * n) continue;
      const more = dealt(scores, { unet: { ...one.unet, m0: 2 + sum - n }, text: {} }, both, { ...bounds, parameters: null }); // biome-ignore format: one line
      expect(parametersOf(more, both)).toBeGreaterThan(parameters);
    }
  });
  test('a budget below the least ranks is refused', () => {
    const own = { unet: new Map<string, Place>([['m', [3, 4]]]), text: new Map() };
    const c = settingsOf(fisherRanks as unknown as Method, { rank: 4, budgetParameters: 6 });
    expect(() => fisherRanks.ranks(c as never, own)).toThrow(
      '--budget-parameters 6: 1 modules of rank 1 have 7 parameters, expected at least that',
    );
  });
});

const seen = (gradient: HostTensor, place: Place, more: Partial<Looked> = {}): Looked => ({ gradient, place, rank: 2, key: hostKey(8), ...more }); // biome-ignore format: one line

test('gradients are gathered in groups: the same numbers, and never more than a group at a time', async () => {
  const all = [...linears.unet].filter(([p]) => p.includes('attn2')).slice(0, 5);
  const own = { unet: new Map(all), text: new Map([...linears.text].slice(0, 2)) };
  const size = ([n, m]: readonly number[]) => n! * m!;
  const [largest, total] = [all.map(([, p]) => size(p)), [...own.unet.values(), ...own.text.values()].map(size)];
  const most = Math.max(...largest) + 1;
  const groups = groupsOf(own, most);
  expect(groups.length).toBeGreaterThan(2);
  const sizes = groups.map((g) => [...g.unet.values(), ...g.text.values()].map(size));
  expect(sizes.flat()).toEqual(total);
  for (const of of sizes) expect(of.length === 1 || of.reduce((a, b) => a + b, 0) <= most).toBe(true);
  expect(groupsOf(own, 1).length).toBe(total.length);
  expect(groupsOf(own).length).toBe(1);
  const o = { configs, checkpointBlocks: false, backend: cpu };
  const order: string[] = [];
  const of = (at: number | undefined) =>
    weightGradients(o, own, frozen('f32'), [batch(2, 5, 'f32')], (g, p, n) => {
      order.push(`${n} ${p}`);
      return [...g.data];
    }, at); // biome-ignore format: one line
  const [whole, parts] = [await of(undefined), await of(most)];
  expect(parts).toEqual(whole);
  expect(order.slice(total.length)).toEqual(order.slice(0, total.length));
});

test('a start from a file has the file’s ranks, whatever was looked at', () => {
  const method = fisherRanks as unknown as Method;
  const settings = settingsOf(method, { rank: 2 });
  const place: Place = [9, 8];
  const own = { unet: new Map([['m', place], ['k', place]]), text: new Map() }; // biome-ignore format: one line
  const file = { A: new Float32Array(24).fill(1), B: new Float32Array(27).fill(1), rank: 3, dIn: 8, dOut: 9, scale: 1 };
  const initial = { unet: new Map([['m', file]]), text: new Map() };
  const kept = { unet: { m: 1, k: 9 }, text: {} };
  expect(startState({ method, settings, initial, seed: 1 }, own, cpu, kept).ranks.unet).toEqual({ m: 3, k: 2 });
  expect(startState({ method, settings, seed: 1 }, own, cpu, kept).ranks.unet).toEqual({ m: 1, k: 3 });
});

test('Fisher ranks: in proportion to mean squared gradients, the budget that of --rank', () => {
  const method = fisherRanks as unknown as Method;
  const c = settingsOf(method, { rank: 2 });
  const own = { unet: new Map([...places].slice(0, 2)), text: new Map() };
  const ranks = method.ranks(c, own);
  const [wide, tall] = [gradient(1, 12, 8), gradient(2, 6, 10)];
  // three times the gradient, nine times the score
  const scores = {
    wide: method.begin!.keep(seen(wide, [12, 8]), c),
    tall: method.begin!.keep(seen({ ...tall, data: tall.data.map((x) => 3 * x) }, [6, 10]), c),
  };
  expect(scores.wide).toBeCloseTo(wide.data.reduce((s, x) => s + x * x, 0) / 96, 10);
  expect(method.begin!.ranks!({ unet: scores, text: {} }, ranks, own, c).unet).toEqual({ wide: 1, tall: 3 });
});

describe('leading singular vectors of a large matrix', () => {
  test('are those of the whole decomposition where the strongest stand apart', () => {
    // 300 × 260 with singular values 1, 1/2, 1/4, … and noise at 1e-4
    const [n, m, k] = [300, 260, 4];
    const orthonormal = (seed: number, rows: number) =>
      new QrDecomposition(Matrix.from1DArray(rows, 6, Array.from(normalNumbers(hostKey(seed), rows * 6)))).orthogonalMatrix; // biome-ignore format: one line
    const [L, R] = [orthonormal(1, n), orthonormal(2, m)];
    const noise = normalNumbers(hostKey(3), n * m, 1e-5);
    const G = L.mmul(Matrix.diag([0, 1, 2, 3, 4, 5].map((i) => 2 ** -i))).mmul(R.transpose());
    const data = Float32Array.from(G.to1DArray(), (x, i) => x + noise[i]!);
    const { U, V } = leading({ shape: [n, m], data }, k);
    expect([U.columns, V.columns]).toEqual([k, k]);
    for (let i = 0; i < k; i++)
      for (const [got, want] of [
        [U, L],
        [V, R],
      ] as const) {
        const overlap = Matrix.columnVector(got.getColumn(i)).transpose().mmul(Matrix.columnVector(want.getColumn(i))).get(0, 0); // biome-ignore format: one line
        // noise turns a direction by its size over the gap to the next
        expect(Math.abs(overlap)).toBeGreaterThan(1 - 1e-5);
      }
  });
  longTest('are exact where subspaces have all of them: a wide matrix of few rows', () => {
    const G = gradient(5, 300, 258);
    const all = new SingularValueDecomposition(Matrix.from1DArray(300, 258, Array.from(G.data)), {
      autoTranspose: true,
    });
    const { U, V } = leading(G, 130);
    for (const i of [0, 1, 64, 129]) {
      const size = (a: number[], b: number[]) => Math.abs(a.reduce((s, x, j) => s + x * b[j]!, 0));
      expect(size(U.getColumn(i), all.leftSingularVectors.getColumn(i))).toBeGreaterThan(1 - 1e-9);
      expect(size(V.getColumn(i), all.rightSingularVectors.getColumn(i))).toBeGreaterThan(1 - 1e-9);
    }
  });
});

describe('GoRA', () => {
  const method = gora as unknown as Method;
  const c = settingsOf(method, { rank: 2, scale: 0.7, goraStep: 0.3, rankMost: 4, gainA: 1 });
  test.each([
    [7, 9],
    [9, 7],
  ])('s·A·B is −γ·√(d_in/r) times the projection of Gᵀ[%i, %i]ᵀ on the columns of A, at any rank', (dOut, dIn) => {
    const [G, W] = [gradient(3, dOut, dIn), gradient(4, dOut, dIn)];
    const kept = method.begin!.keep(seen(G, [dOut, dIn], { weight: W }), c);
    const Gt = Matrix.from1DArray(dOut, dIn, Array.from(G.data)).transpose();
    for (const rank of [1, 2, 3, 4]) {
      const { A, B } = descent(kept as Parameters<typeof descent>[0], rank, 0.3, 0.7);
      const [a, b] = [Matrix.from1DArray(dIn, rank, Array.from(A)), Matrix.from1DArray(rank, dOut, Array.from(B))];
      const change = a.mmul(b).mul(0.7);
      // by singular vectors, a way of its own
      const U = new SingularValueDecomposition(a).leftSingularVectors.subMatrix(0, dIn - 1, 0, rank - 1);
      const want = U.mmul(U.transpose().mmul(Gt)).mul(-0.3 * Math.sqrt(dIn / rank));
      expect(Matrix.sub(change, want).norm()).toBeLessThan(1e-5 * want.norm());
    }
  });
  test('ranks by mean |W ⊙ G|/√(d_in + d_out), from half to four times, their sum the budget', () => {
    const own = { unet: new Map<string, Place>([['a', [20, 20]], ['b', [40, 20]], ['c', [20, 40]]]), text: new Map() }; // biome-ignore format: one line
    const settings = settingsOf(method, { rank: 4 });
    const asked = method.ranks(settings, own);
    const kept = (share: Readonly<Record<string, number>>) => ({
      unet: Object.fromEntries(
        [...own.unet].map(([path, place]) => {
          const [W, G] = [gradient(5, place[0], place[1]), gradient(6, place[0], place[1])];
          const scaled = { ...G, data: G.data.map((x) => x * share[path]!) };
          return [path, method.begin!.keep(seen(scaled, place, { weight: W, rank: 4 }), settings)];
        }),
      ),
      text: {},
    });
    const even = kept({ a: 1, b: 1, c: 1 });
    const W = gradient(5, 20, 20);
    const dense = W.data.reduce((s, w, i) => s + Math.abs(w * gradient(6, 20, 20).data[i]!), 0) / 400;
    expect((even.unet.a as { importance: number }).importance).toBeCloseTo(dense, 12);
    for (const share of [
      { a: 1, b: 1, c: 1 },
      { a: 100, b: 1, c: 1 },
      { a: 0, b: 3, c: 1 },
    ]) {
      const k = kept(share);
      const dealt = method.begin!.ranks!(k, asked, own, settings).unet as Record<string, number>;
      expect(Object.values(dealt).reduce((a, b) => a + b, 0)).toBe(12);
      for (const r of Object.values(dealt)) expect(r >= 2 && r <= 16).toBe(true);
      const score = (p: string) => (k.unet[p] as { importance: number }).importance / Math.sqrt(p === 'a' ? 40 : 60);
      // within bounds in proportion to the scores, but for rounding
      const free = Object.keys(dealt).filter((p) => dealt[p]! > 2 && dealt[p]! < 16);
      for (const p of free) for (const q of free) expect(Math.abs(dealt[p]! - (dealt[q]! * score(p)) / score(q))).toBeLessThan(1 + score(p) / score(q)); // biome-ignore format: one line
    }
  });
  test('bounds that leave --rank no place are refused', () => {
    const asked = (more: object) => method.problem!({ ...settingsOf(method, { rank: 4, ...more }), batch: 1, method: 'gora' }); // biome-ignore format: one line
    expect(asked({})).toBeUndefined();
    expect(asked({ rankLeast: 5 })).toEqual({ path: 'rankLeast', message: 'is 5, expected at most --rank 4' });
    expect(asked({ rankMost: 3 })).toEqual({ path: 'rankMost', message: 'is 3, expected at least --rank 4' });
  });
});

describe('LoRA-GA', () => {
  test.each([
    [7, 5],
    [5, 7],
  ])('A and B are singular vectors of a gradient [%i, %i], scaled', (dOut, dIn) => {
    const [rank, gamma] = [2, 4];
    const g = gradient(9, dOut, dIn);
    const [A, B] = [alongGradient(g, rank, gamma).A.data, alongGradient(g, rank, gamma).B.data];
    const G = Matrix.from1DArray(dOut, dIn, Array.from(g.data));
    const size = dOut ** 0.25 / 2;
    const check = (gram: Matrix, vectors: readonly number[][], from: number) => {
      const values = [...new EigenvalueDecomposition(gram, { assumeSymmetric: true }).realEigenvalues].sort((a, b) => b - a); // biome-ignore format: one line
      for (const [k, v] of vectors.entries()) {
        const column = Matrix.columnVector(v.map((x) => x / size));
        expect(Math.abs(column.norm() - 1)).toBeLessThan(1e-6);
        const rest = Matrix.sub(gram.mmul(column), column.clone().mul(values[from + k]!));
        expect(rest.norm()).toBeLessThan(1e-5 * values[0]!);
      }
    };
    const column = (k: number) => Array.from({ length: dIn }, (_, i) => A[i * rank + k]!);
    const row = (k: number) => Array.from(B.subarray(k * dOut, (k + 1) * dOut));
    check(G.transpose().mmul(G), [column(0), column(1)], 0);
    check(G.mmul(G.transpose()), [row(0), row(1)], rank);
  });
  test('with A and B along the gradient the function is unchanged to the bit', async () => {
    const method = loraGa as unknown as Method;
    const c = settingsOf(method, { rank: 2 });
    const { unet } = method.ranks(c, { unet: places, text: new Map() });
    const fresh = method.init(places, unet, hostKey(1), c);
    for (const [path, place] of places) {
      const dIn = place.slice(1).reduce((n, side) => n * side, 1);
      const kept = method.begin!.keep(seen(gradient(4, place[0], dIn), place), c);
      const p: Params = method.begin!.module!(kept, fresh[path]!, 2, c);
      expect((await numbers(p.B as Tensor)).some((x) => x !== 0)).toBe(true);
      const plain = layer(path, weightOf(path), 'f32');
      expect(await outputs(path, method.attach(plain, p, c), 'f32')).toEqual(await outputs(path, plain, 'f32'));
    }
  });
});
