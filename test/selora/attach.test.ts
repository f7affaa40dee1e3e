/** Adapters beside their weights, and inside them: attach, merge, unmerge as pure functions. */
import { describe, expect, test } from 'vitest';
import { leaves, type Tensor, tensor } from '../../core/index.ts';
import type { Adapters } from '../../selora/adapter.ts';
import { attach, updateAt } from '../../selora/attach.ts';
import { changeNorms, deltaWeight, merge, unmerge } from '../../selora/merge.ts';
import { numbers } from '../support/gradcheck.ts';
import { forward, randomCase, SCALE } from '../support/selora-net.ts';

describe('attach', () => {
  test('puts each adapter beside its weight and shares everything else', () => {
    const c = randomCase(1, 'f64');
    const { 'l.1': only } = c.adapters;
    const net = attach(c.base, { 'l.1': only! }, 2);
    expect(net.l[0]).toBe(c.base.l[0]);
    expect(net.l[2]).toBe(c.base.l[2]);
    expect(net.l[1]).toEqual({ ...c.base.l[1], adapter: { ...only, scale: 2 } });
    expect(c.base.l[1]).not.toHaveProperty('adapter');
    expect(Array.isArray(net.l)).toBe(true);
  });

  test('computes x·Wᵀ + b + s·(x·A)·B: against plain loops', async () => {
    const [W, A, B] = [
      [1, 2, 3, 4, 5, 6],
      [1, -1, 2],
      [3, 0.5],
    ];
    const base = { m: { weight: tensor(W, [2, 3], 'f64'), bias: tensor([10, 20], [2], 'f64') } };
    const adapters = { m: { A: tensor(A, [3, 1], 'f64'), B: tensor(B, [1, 2], 'f64') } };
    const x = [1, 2, 4];
    const want = [0, 1].map((o) => {
      const narrow = x.reduce((s, v, i) => s + v * A[i]!, 0);
      return x.reduce((s, v, i) => s + v * W[o * 3 + i]!, 0) + [10, 20][o]! + 0.5 * narrow * B[o]!;
    });
    const { linear } = await import('../../nn/index.ts');
    expect(await numbers(linear(attach(base, adapters, 0.5).m, tensor(x, [1, 3], 'f64')))).toEqual(want);
  });

  test.each(['l.3', 'l.0.weight.x', 'k.0', 'l.length', 'constructor', 'l.constructor', '__proto__', 'l.0.toString'])(
    '%s: no such module, named',
    (path) => {
      const c = randomCase(1, 'f64');
      expect(() => attach(c.base, { [path]: c.adapters['l.0']! }, 1)).toThrow(
        new RangeError(`the base has no module ${path}`),
      );
    },
  );
  test('a module that is no layer with inputs and outputs is refused: nothing would read the adapter', () => {
    const c = randomCase(1, 'f64');
    const base = { ...c.base, norm: { weight: tensor([1, 2]) }, l2: c.base.l };
    for (const path of ['norm', 'l2', 'l2.0.weight'])
      expect(() => attach(base, { [path]: c.adapters['l.0']! }, 1)).toThrow(
        new RangeError(`${path} is neither a linear layer nor a convolution of the base`),
      );
  });
  test('an adapter of another size is refused by name', () => {
    const base = { m: { weight: tensor(new Float32Array(6), [2, 3]) } };
    const of = (a: number[], b: number[]) => ({
      m: { A: tensor(new Float32Array(a[0]! * a[1]!), a), B: tensor(new Float32Array(b[0]! * b[1]!), b) },
    });
    expect(() => attach(base, of([3, 4], [4, 2]), 1)).not.toThrow();
    for (const [a, b] of [
      [
        [2, 4],
        [4, 3],
      ],
      [
        [3, 4],
        [5, 2],
      ],
      [
        [3, 4],
        [4, 3],
      ],
    ] as const)
      expect(() => attach(base, of([...a], [...b]), 1)).toThrow(
        `m: adapter A[${a.join(', ')}], B[${b.join(', ')}]; expected A[3, r], B[r, 2]`,
      );
  });
  test('updateAt changes one place and nothing else', () => {
    const tree = { a: [{ b: 1 }, { b: 2 }], c: 3 };
    const changed = updateAt(tree, 'a.1.b', (x) => (x as number) + 40);
    expect(changed).toEqual({ a: [{ b: 1 }, { b: 42 }], c: 3 });
    expect(changed.a[0]).toBe(tree.a[0]);
    expect(tree.a[1]).toEqual({ b: 2 });
  });
});

describe('merge', () => {
  test('ΔW[d_out, d_in] = s·(A·B)ᵀ', async () => {
    const a = { A: tensor([1, 2, 3, 4], [2, 2], 'f64'), B: tensor([5, 6, 7, 8, 9, 10], [2, 3], 'f64') };
    const delta = deltaWeight(a, 0.5);
    expect(delta.shape).toEqual([3, 2]);
    // A·B = [[21, 24, 27], [47, 54, 61]]
    expect(await numbers(delta)).toEqual([10.5, 23.5, 12, 27, 13.5, 30.5]);
    const { delta: norm, weight } = changeNorms(tensor([3, 0, 4, 0, 0, 0], [3, 2], 'f64'), a, 0.5);
    const want = Math.hypot(10.5, 23.5, 12, 27, 13.5, 30.5);
    expect((await numbers(norm))[0]).toBeCloseTo(want, 12);
    expect((await numbers(weight))[0]).toBe(5);
  });

  test('the merged network computes what the network with adapters computes', async () => {
    for (let seed = 0; seed < 50; seed++) {
      const c = randomCase(seed, 'f64');
      const want = await numbers(forward(c.base, c.adapters, c.x));
      const got = await numbers(forward(merge(c.base, c.adapters, SCALE), {}, c.x));
      for (const [i, w] of want.entries()) expect(Math.abs(got[i]! - w)).toBeLessThanOrEqual(1e-12 * (1 + Math.abs(w)));
    }
  });

  test.each(['f32', 'f64'] as const)('unmerge takes it out again up to two roundings (%s)', async (dtype) => {
    const u = dtype === 'f32' ? 2 ** -24 : 2 ** -53;
    for (let seed = 0; seed < 50; seed++) {
      const c = randomCase(seed, dtype);
      const merged = merge(c.base, c.adapters, SCALE);
      const back = unmerge(merged, c.adapters, SCALE);
      const [ws, ms, bs] = [c.base, merged, back].map((t) => leaves<Tensor>(t));
      for (const [k, w] of ws!.entries()) {
        const [was, between, is] = [await numbers(w), await numbers(ms![k]!), await numbers(bs![k]!)];
        for (const [i, v] of was.entries())
          expect(Math.abs(is[i]! - v)).toBeLessThanOrEqual(u * (Math.abs(between[i]!) + Math.abs(v)) * 1.01);
      }
    }
  });

  test('a zero B merges to the same weights, to the bit', async () => {
    const c = randomCase(4, 'f32', { bZero: true });
    const merged = merge(c.base, c.adapters, SCALE);
    for (const [k, w] of leaves<Tensor>(c.base).entries())
      expect(await numbers(leaves<Tensor>(merged)[k]!)).toEqual(await numbers(w));
  });

  test('names a module the base does not have, and an adapter of another size', () => {
    const c = randomCase(1, 'f64');
    expect(() => merge(c.base, { 'l.9': c.adapters['l.0']! }, 1)).toThrow(new RangeError('the base has no module l.9'));
    const wrong: Adapters = { 'l.0': { A: tensor([1], [1, 1], 'f64'), B: tensor(new Float64Array(99), [1, 99]) } };
    for (const f of [merge, unmerge]) expect(() => f(c.base, wrong, 1)).toThrow(/^l\.0: adapter A\[1, 1\], B\[1, 99\]/);
  });
});
