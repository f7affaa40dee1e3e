/** Keys, starting values and candidate columns: pure functions of (seed, network, path, step) with Kaiming's statistics. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { read } from '../../core/index.ts';
import {
  foldKey,
  type HostKey,
  hostKey,
  initAdapters,
  kaimingUniform,
  keyText,
  parameterCount,
  rankOf,
  totalRank,
} from '../../selora/adapter.ts';
import { candidate } from '../../selora/expand.ts';

const key = hostKey(7);
const variance = (x: ArrayLike<number>) => Array.from(x).reduce((s, v) => s + v * v, 0) / x.length;

describe('keys', () => {
  test('foldKey is a pure function, and different names, numbers and orders give different keys', () => {
    const name = fc.stringMatching(/^[a-z0-9_.]{1,40}$/);
    fc.assert(
      fc.property(fc.array(fc.oneof(name, fc.nat()), { minLength: 1, maxLength: 3 }), (data) => {
        expect(foldKey(key, ...data)).toEqual(foldKey(key, ...data));
        expect(foldKey(key, ...data, 1)).not.toEqual(foldKey(key, ...data));
      }),
    );
    const made = new Set<string>();
    for (let layer = 0; layer < 100; layer++)
      for (const to of ['to_q', 'to_k', 'to_v'])
        for (const step of [40, 80, 4000]) made.add(keyText(foldKey(key, `blocks.${layer}.${to}`, step)));
    expect(made.size).toBe(900);
  });
  test('seeds beyond 32 bits count, and a key prints as 16 hex digits', () => {
    expect(hostKey(2 ** 40 + 3)).toEqual([256, 3]);
    expect(hostKey(2 ** 40)).not.toEqual(hostKey(0));
    expect(keyText([1, 0xabc])).toBe('0000000100000abc');
  });
});

describe('Kaiming-uniform', () => {
  // U(−b, b) has variance b²/3 with b² = 6/((1 + a²)·d): 2/d for a = 0, 1/(3·d) for a = √5
  test.each([
    [0, (d: number) => Math.sqrt(6 / d), (d: number) => 2 / d],
    [Math.sqrt(5), (d: number) => 1 / Math.sqrt(d), (d: number) => 1 / (3 * d)],
  ])('a = %d: bounds, mean 0 and variance', (a, bound, expected) => {
    for (const d of [3, 40, 320, 1280]) {
      const x = kaimingUniform(foldKey(key, d), d, 20_000, { a });
      const most = x.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
      expect(most).toBeLessThanOrEqual(bound(d) * (1 + 2 ** -23));
      expect(most).toBeGreaterThan(bound(d) * 0.999);
      // 20,000 numbers: the variance's own deviation is √(4/5)/√20,000 of it, 0.63%
      expect(Math.abs(variance(x) / expected(d) - 1)).toBeLessThan(0.03);
      expect(Math.abs(x.reduce((s, v) => s + v, 0) / x.length)).toBeLessThan(4 * Math.sqrt(expected(d) / x.length));
    }
  });
  test('the two usual gains differ by exactly √6 in every number, so by 6 in the score of a candidate', () => {
    const [wide, narrow] = [0, Math.sqrt(5)].map((a) => kaimingUniform(key, 320, 1000, { a }));
    for (const [i, v] of wide!.entries()) expect(v / narrow![i]!).toBeCloseTo(Math.sqrt(6), 5);
  });
});

describe('start', () => {
  const linears = new Map([
    ['a.to_q', [6, 4]],
    ['a.to_k', [6, 4]],
    ['b', [3, 9]],
  ] as [string, readonly [number, number]][]);
  const start = (seed: number, rank = 2) => initAdapters(hostKey(seed), linears, rank, { a: 0 });

  test('A is Kaiming-uniform, B zero; shapes, ranks and counts', async () => {
    const adapters = start(3);
    for (const [path, [dOut, dIn]] of linears) {
      const { A, B } = adapters[path]!;
      expect([A.shape, B.shape, rankOf(adapters[path]!)]).toEqual([[dIn, 2], [2, dOut], 2]);
      expect((await read(B)).every((v) => v === 0)).toBe(true);
      expect((await read(A)).every((v) => v !== 0 && Math.abs(v) <= Math.sqrt(6 / dIn))).toBe(true);
    }
    expect(totalRank(adapters)).toBe(6);
    expect(parameterCount(adapters)).toBe(2 * (10 + 10 + 12));
  });
  test('modules of one shape start apart; the same seed starts alike, another one otherwise', async () => {
    const [one, again, other] = [start(3), start(3), start(4)];
    const a = await read(one['a.to_q']!.A);
    expect(a).not.toEqual(await read(one['a.to_k']!.A));
    expect(a).toEqual(await read(again['a.to_q']!.A));
    expect(a).not.toEqual(await read(other['a.to_q']!.A));
  });
});

describe('candidate columns', () => {
  const draw = async (k: HostKey, path: string, step: number) => read(candidate(k, path, step, 8, { a: 0 }).K);
  test('drawn afresh for every seed, path and step, and again the same', async () => {
    const base = await draw(key, 'x.to_q', 40);
    expect(await draw(key, 'x.to_q', 40)).toEqual(base);
    for (const other of [draw(hostKey(8), 'x.to_q', 40), draw(key, 'x.to_k', 40), draw(key, 'x.to_q', 80)])
      expect(await other).not.toEqual(base);
  });
  test('the logged key draws the column again', async () => {
    const { K, key: logged } = candidate(key, 'x.to_q', 40, 8, { a: 0 });
    const words = [logged.slice(0, 8), logged.slice(8)].map((w) => Number.parseInt(w, 16)) as [number, number];
    expect(kaimingUniform(words, 8, 8, { a: 0 })).toEqual(await read(K));
  });
  test('a candidate is not the column the adapter began with', async () => {
    const adapters = initAdapters(key, new Map([['m', [5, 8]] as const]), 1, { a: 0 });
    const { K } = candidate(key, 'm', 0, 8, { a: 0 });
    expect(K.shape).toEqual([8, 1]);
    expect(await read(K)).not.toEqual(await read(adapters.m!.A));
  });
  test('has the gain of A: bound √(6/d) for a = 0, 1/√d for a = √5', async () => {
    for (const [a, bound] of [
      [0, Math.sqrt(6 / 4000)],
      [Math.sqrt(5), 1 / Math.sqrt(4000)],
    ] as const) {
      const K = await read(candidate(key, 'm', 1, 4000, { a }).K);
      const most = (K as Float32Array).reduce((m, v) => Math.max(m, Math.abs(v)), 0);
      expect(most / bound).toBeGreaterThan(0.99);
      expect(most / bound).toBeLessThanOrEqual(1 + 2 ** -23);
      expect(Math.abs(variance(K) / (bound ** 2 / 3) - 1)).toBeLessThan(0.06);
    }
  });
});
