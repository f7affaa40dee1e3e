import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import * as core from '../../core/index.ts';
import { grad, key, matmul, mul, sum, swap, type Tensor, tensor, unsqueeze } from '../../core/index.ts';
import { cpu, numbers } from '../support/gradcheck.ts';

const zero = { gradient: 'zero' } as const;
const f = core as unknown as Readonly<Record<string, (...x: unknown[]) => Tensor>>;

describe('accuracy in f64, in units of the last place of what Math says', () => {
  const points = [
    -30, -5, -1.1, -1, -0.5, -0.29, -1e-3, -1e-10, -0, 0, 1e-300, 1e-10, 1e-3, 0.3, 0.4, 0.99, 1, 3, 20, 709.9,
  ];
  const inside = points.filter((x) => Math.abs(x) <= 1);
  test.each([
    ['expm1', Math.expm1, points],
    ['log1p', Math.log1p, points.filter((x) => x > -1)],
    ['sinh', Math.sinh, points],
    ['cosh', Math.cosh, points],
    ['atan', Math.atan, [...points, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]],
    ['asin', Math.asin, inside],
    ['acos', Math.acos, inside],
  ] as const)('%s', async (name, exact, xs) => {
    const got = await numbers(f[name]!(tensor([...xs], undefined, 'f64')));
    for (const [i, x] of xs.entries()) {
      const want = exact(x);
      const ulps = got[i] === want ? 0 : Math.abs(got[i]! - want) / (Math.abs(want) * 2 ** -52);
      expect(ulps, `${name}(${x}) = ${got[i]}, not ${want}`).toBeLessThanOrEqual(3);
    }
  });
  test('atan2 knows the signs of zeros and infinities', async () => {
    const points = [0, -0, 1, -1, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN];
    const pairs = points.flatMap((y) => points.map((x) => [y, x] as const));
    const side = (k: 0 | 1) =>
      tensor(
        pairs.map((p) => p[k]),
        undefined,
        'f64',
      );
    const got = await numbers(core.atan2(side(0), side(1)));
    for (const [i, [y, x]] of pairs.entries()) {
      const want = Math.atan2(y, x);
      expect(Object.is(got[i], want) || Math.abs(got[i]! - want) < 1e-15, `atan2(${y}, ${x}) = ${got[i]}`).toBe(true);
    }
  });
});

describe('properties', () => {
  const values = fc.array(
    fc.oneof(fc.integer({ min: -4, max: 4 }), fc.constant(Number.NaN), fc.constant(Number.NEGATIVE_INFINITY)),
    { minLength: 1, maxLength: 19 },
  );
  test('argsort is the stable sort of JavaScript, both ways, NaN as the largest', async () => {
    await fc.assert(
      fc.asyncProperty(values, fc.boolean(), async (xs, descending) => {
        const rank = (v: number) => (Number.isNaN(v) ? Number.MAX_VALUE : v);
        const want = xs
          .map((_, i) => i)
          .sort((i, j) => {
            const [a, b] = [rank(xs[i]!), rank(xs[j]!)];
            return a === b ? i - j : a < b === descending ? 1 : -1;
          });
        expect(await numbers(core.argsort(tensor(xs), 0, { descending }))).toEqual(want);
      }),
      { numRuns: 25 },
    );
  });
  test('scatterSet keeps the last of several rows', async () => {
    const y = core.scatterSet(tensor([1, 2, 3]), tensor([1, 1, 7, -1], undefined, 'i32'), tensor([5, 6, 7, 8]));
    expect(await numbers(y)).toEqual([1, 6, 3]);
  });
  const square = (n: number, seed: number): Tensor => core.cast(core.normal(key(seed), [2, n, n]), 'f64');
  const near = async (a: Tensor, b: Tensor, tolerance = 1e-12) => {
    const [x, y] = [await numbers(a), await numbers(core.broadcastTo(b, a.shape))];
    expect(Math.max(...x.map((v, i) => Math.abs(v - y[i]!)))).toBeLessThan(tolerance);
  };
  const one = (n: number) => core.eye(n, { dtype: 'f64' });
  test.each([1, 2, 5, 8])('eigh of %d: a·v = v·w, vᵀ·v = 1, values rise', async (n) => {
    const a = core.add(square(n, n), swap(square(n, n)));
    const [w, v] = core.eigh(a);
    await near(matmul(a, v), mul(v, unsqueeze(w, -2)));
    await near(matmul(swap(v), v), one(n));
    const values = await numbers(w);
    for (let i = 0; i < values.length; i++) if (i % n > 0) expect(values[i]!).toBeGreaterThanOrEqual(values[i - 1]!);
  });
  test('the rotations of eigh have a derivative where they converge to nothing', async () => {
    const op = core.findOp('eigh') as core.Composite;
    const [a, b, c] = [-0.38377934228628874, -1.0718577005900443, 0.5191043517552316];
    const x = tensor([5.338576266542077, a, b, a, 8.557536947540939, c, b, c, 12.567388016730547], [1, 3, 3], 'f64');
    const [w] = op.body([x], {});
    // the sum of the eigenvalues is the trace
    const [g] = core.pullback([sum(w!)], [tensor(1, [], 'f64')], [x]);
    await near(g!, one(3));
  });
  test.each([
    [4, 4],
    [6, 3],
    [3, 5],
  ])('qr and svd of %d × %d: products give the matrix back, factors are orthonormal', async (m, n) => {
    const a = core.cast(core.normal(key(m), [2, m, n]), 'f64');
    const k = Math.min(m, n);
    const [q, r] = core.qr(a);
    await near(matmul(q, r), a);
    await near(matmul(swap(q), q), one(k));
    await near(core.tril(r, -1), tensor(0, [], 'f64'));
    const [u, s, vt] = core.svd(a);
    await near(matmul(mul(u, unsqueeze(s, -2)), vt), a);
    await near(matmul(swap(u), u), one(k));
    await near(matmul(vt, swap(vt)), one(k));
  });
});

describe('random numbers', () => {
  const n = 4000;
  const moments = async (x: Tensor) => {
    const v = await numbers(x);
    const mean = v.reduce((a, b) => a + b) / v.length;
    const deviation = Math.sqrt(v.reduce((a, b) => a + (b - mean) ** 2, 0) / v.length);
    return { mean, deviation, least: Math.min(...v), most: Math.max(...v) };
  };
  // mean and standard deviation in closed form; the mean of n numbers is off by 4 σ/√n once in 15,000 times
  test.each<[string, Tensor, number, number]>([
    ['truncatedNormal', core.truncatedNormal(key(1), -1, 0.5, [n]), -0.2069, 0.4119],
    ['gumbel', core.gumbel(key(2), [n]), 0.5772, 1.2825],
    ['exponential', core.exponential(key(3), [n]), 1, 1],
    ['bernoulli', core.cast(core.bernoulli(key(4), 0.3, [n]), 'f32'), 0.3, 0.4583],
    ['randint', core.cast(core.randint(key(5), [n], -3, 7), 'f32'), 1.5, 2.8723],
  ])('%s has its moments', async (_name, x, mean, deviation) => {
    const m = await moments(x);
    expect(Math.abs(m.mean - mean)).toBeLessThan((4 * deviation) / Math.sqrt(n));
    expect(Math.abs(m.deviation / deviation - 1)).toBeLessThan(0.08);
  });
  test('bounds hold, every whole number comes up, permutations hold everything once', async () => {
    const t = await moments(core.truncatedNormal(key(1), -1, 0.5, [n]));
    expect([t.least >= -1, t.most <= 0.5]).toEqual([true, true]);
    expect(new Set(await numbers(core.randint(key(5), [n], -3, 7))).size).toBe(10);
    const p = await numbers(core.permutation(key(6), 33));
    expect([...p].sort((a, b) => a - b)).toEqual([...p.keys()]);
    expect(p).not.toEqual([...p.keys()]);
    const chosen = await numbers(core.categorical(key(7), tensor([0, Math.log(3)]), [n]));
    expect(Math.abs(chosen.reduce((a, b) => a + b) / n - 0.75)).toBeLessThan(4 * Math.sqrt((0.75 * 0.25) / n));
  });
});

test('step functions refuse a derivative unless it is asked to be zero', async () => {
  const x = tensor([1.5, -2.5]);
  for (const name of ['ceil', 'round', 'trunc', 'sign']) {
    expect(() => grad((t: Tensor) => sum(f[name]!(t)))(x), name).toThrow(core.MissingRuleError);
    expect(await numbers(grad((t: Tensor) => sum(mul(t, f[name]!(t, zero))))(x)), name).toEqual(
      await numbers(f[name]!(x)),
    );
  }
  expect(await numbers(grad((t: Tensor) => sum(core.floor(core.stopGradient(t))))(x), cpu)).toEqual([0, 0]);
});

test.each<[string, () => unknown, RegExp]>([
  ['matmul', () => matmul(tensor([[1, 2]]), tensor([[1, 2]])), /^matmul: needs equal k: 2 ≠ 1/],
  [
    'einsum',
    () => core.einsum('ij,jk->ik', tensor([[1, 2]]), tensor([[1], [2], [3]])),
    /^einsum 'ij,jk->ik': axis j is 2 and 3/,
  ],
  [
    'einsum, names',
    () => core.einsum('ij->k', tensor([[1, 2]])),
    /the result names axis k twice, or no operand has it/,
  ],
  ['crossEntropy', () => core.crossEntropy(tensor([[1, 2]]), tensor([1, 0])), /^crossEntropy: operands must be logits/],
  ['split', () => core.split(tensor([1, 2, 3]), 2), /^split: axis 0 of 3 does not divide into 2 equal parts/],
  ['topK', () => core.topK(tensor([1]), 2), /^topK: there are no 2 along axis 0/],
  ['maxPool', () => core.maxPool(tensor([1, 2], [1, 2, 1]), { window: [3] }), /^maxPool: the window \[3\] is larger/],
  ['cholesky', () => core.cholesky(tensor([[1, 2]])), /^cholesky: the first operand must be square/],
  ['solve', () => core.solve(tensor([[1]]), tensor([1, 2])), /^solve: operands must be a\[…,n,n\]/],
  ['randint', () => core.randint(key(1), [2], 5, 5), /^randint: bounds 5, 5 must rise/],
  ['logicalAnd', () => core.logicalAnd(tensor([1]), tensor([1])), /^logicalAnd: takes bool/],
])('%s refuses what it cannot do, at the call', (_name, call, message) => {
  expect(call).toThrow(message);
});
