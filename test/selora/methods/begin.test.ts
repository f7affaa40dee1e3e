/** Starts that look at gradients: the gradients themselves, ranks dealt out by them, and LoRA-GA's singular vectors. */
import { EigenvalueDecomposition, Matrix } from 'ml-matrix';
import { describe, expect, test } from 'vitest';
import { mean, type Tensor, tensor } from '../../../core/index.ts';
import { hostKey, normalNumbers } from '../../../selora/adapter.ts';
import { allocate } from '../../../selora/methods/allocate.ts';
import { fisherRanks } from '../../../selora/methods/fisher-ranks.ts';
import { full } from '../../../selora/methods/full.ts';
import { alongGradient, loraGa } from '../../../selora/methods/lora-ga.ts';
import type { Method, Params } from '../../../selora/methods/method.ts';
import { settingsOf } from '../../../selora/methods/registry.ts';
import { weightGradients } from '../../../train/step/begin.ts';
import { sampleLosses } from '../../../train/step/gradients.ts';
import { cpu, numbers, rng } from '../../support/gradcheck.ts';
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
  const g = await weightGradients({ configs, checkpointBlocks: false, backend: cpu }, own, frozen('f32'), batches);
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

test('Fisher ranks: in proportion to mean squared gradients, the budget that of --rank', () => {
  const method = fisherRanks as unknown as Method;
  const c = settingsOf(method, { rank: 2 });
  const own = { unet: new Map([...places].slice(0, 2)), text: new Map() };
  const ranks = method.ranks(c, own);
  const [wide, tall] = [gradient(1, 12, 8), gradient(2, 6, 10)];
  // three times the gradient, nine times the score
  const g = { unet: { wide, tall: { ...tall, data: tall.data.map((x) => 3 * x) } }, text: {} };
  const dealt = method.begin!.ranks!(g, ranks, own, c);
  expect(dealt.unet).toEqual({ wide: 1, tall: 3 });
});

describe('LoRA-GA', () => {
  test.each([
    [7, 5],
    [5, 7],
  ])('A and B are singular vectors of a gradient [%i, %i], scaled', (dOut, dIn) => {
    const [rank, gamma] = [2, 4];
    const g = gradient(9, dOut, dIn);
    const { A, B } = alongGradient(g, rank, gamma);
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
      const p: Params = method.begin!.module!(gradient(4, place[0], dIn), fresh[path]!, 2, c);
      expect((await numbers(p.B as Tensor)).some((x) => x !== 0)).toBe(true);
      const plain = layer(path, weightOf(path), 'f32');
      expect(await outputs(path, method.attach(plain, p, c), 'f32')).toEqual(await outputs(path, plain, 'f32'));
    }
  });
});
