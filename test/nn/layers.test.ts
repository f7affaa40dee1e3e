/** Layers against plain loops and closed forms; the golden numbers of single operations are in test/models/golden.test.ts. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { conv, cpuBackend, evaluate, read, ShapeError, type Tensor, tensor } from '../../core/index.ts';
import {
  conv2d,
  convSpec,
  fanIn,
  geglu,
  gelu,
  groupNorm,
  init,
  layerNorm,
  linear,
  linearSpec,
  mse,
  permuteAxes,
  quickGelu,
  silu,
  timestepEmbedding,
  toFileLayout,
  toModelLayout,
  upsampleNearest,
} from '../../nn/index.ts';
import { rng } from '../support/gradcheck.ts';

const backend = cpuBackend();
const numbers = async (x: Tensor): Promise<number[]> => [...(await read(evaluate(x, backend)))];
const draw = (seed: number, ...shape: number[]): Tensor => {
  const random = rng(seed);
  const n = shape.reduce((p, q) => p * q, 1);
  return tensor(
    Float64Array.from({ length: n }, () => random() * 2 - 1),
    shape,
    'f64',
  );
};

test('norms with their eps: deviations as small as √eps come out as 1/√2 of themselves, standardised', async () => {
  // two groups of two channels, one of them around 7: mean is taken off, variance 1e-6 beside eps 1e-6
  const x = tensor([1e-3, -1e-3, 7.001, 6.999], [1, 1, 1, 4], 'f64');
  const weight = tensor([1, 2, 1, 2], [4], 'f64');
  const bias = tensor([0, 0, 3, 3], [4], 'f64');
  const half = Math.SQRT1_2;
  const grouped = await numbers(groupNorm({ weight, bias }, x, { groups: 2, eps: 1e-6 }));
  for (const [i, want] of [half, -2 * half, 3 + half, 3 - 2 * half].entries()) expect(grouped[i]).toBeCloseTo(want, 8);
  const row = tensor([1e-3, -1e-3, 1e-3, -1e-3], [1, 4], 'f64');
  const normed = await numbers(layerNorm({ weight, bias }, row, 1e-6));
  for (const [i, want] of [half, -2 * half, 3 + half, 3 - 2 * half].entries()) expect(normed[i]).toBeCloseTo(want, 8);
});

test('linear with an adapter is the dense layer of W + scale·(A·B)ᵀ', async () => {
  const [rows, inputs, outputs, rank, scale] = [6, 5, 4, 3, 0.7];
  const [x, weight, bias] = [draw(1, 2, 3, inputs), draw(2, outputs, inputs), draw(3, outputs)];
  const [A, B] = [draw(4, inputs, rank), draw(5, rank, outputs)];
  const [xs, w, b, a, up] = await Promise.all([x, weight, bias, A, B].map(numbers));
  const expected: number[] = [];
  for (let r = 0; r < rows; r++)
    for (let o = 0; o < outputs; o++) {
      let y = b![o]!;
      for (let i = 0; i < inputs; i++) {
        let dense = w![o * inputs + i]!;
        for (let k = 0; k < rank; k++) dense += scale * a![i * rank + k]! * up![k * outputs + o]!;
        y += xs![r * inputs + i]! * dense;
      }
      expected.push(y);
    }
  const y = linear({ weight, bias, adapter: { A, B, scale } }, x);
  expect(y.shape).toEqual([2, 3, outputs]);
  for (const [i, value] of (await numbers(y)).entries()) expect(value).toBeCloseTo(expected[i]!, 12);
  const scaled = linear({ weight, bias, adapter: { A, B, scale: tensor(scale, [], 'f64') } }, x);
  expect(await numbers(scaled)).toEqual(await numbers(y));
});

test('linear names the weight that does not fit', () => {
  const weight = tensor(new Float32Array(12), [3, 4], 'f32', 'mid_block.attentions.0.proj_in.weight');
  const x = tensor(new Float32Array(10), [2, 5]);
  expect(() => linear({ weight }, x)).toThrow(ShapeError);
  expect(() => linear({ weight }, x)).toThrow('x[2, 5] for mid_block.attentions.0.proj_in.weight[3, 4]');
  const adapter = { A: tensor(new Float32Array(8), [4, 2]), B: tensor(new Float32Array(9), [3, 3]), scale: 1 };
  expect(() => linear({ weight, adapter }, tensor(new Float32Array(8), [2, 4]))).toThrow(
    'expected A[in, r], B[r, out]',
  );
});

test('a 1×1 convolution by way of dot equals the convolution', async () => {
  const [x, weight, bias] = [draw(1, 2, 3, 4, 5), draw(2, 1, 1, 5, 6), tensor(new Float64Array(6), [6], 'f64')];
  const slow = conv(x, weight, { stride: [1, 1], pad: [[0, 0], [0, 0]], groups: 1 }); // biome-ignore format: one line
  const fast = await numbers(conv2d({ weight, bias }, x));
  for (const [i, value] of (await numbers(slow)).entries()) expect(fast[i]).toBeCloseTo(value, 12);
});

test('a convolution with an adapter is the convolution with the kernel W + scale·A·B', async () => {
  const [inputs, outputs, rank, scale] = [3, 4, 2, 0.7];
  for (const [kh, kw, how] of [
    [1, 1, {}],
    [3, 3, {}],
    [
      3,
      3,
      {
        stride: 2,
        padding: [
          [0, 1],
          [0, 1],
        ] as const,
      },
    ],
    [
      1,
      3,
      {
        padding: [
          [0, 0],
          [1, 1],
        ] as const,
      },
    ],
    [2, 2, { stride: 2, padding: 0 }],
  ] as const) {
    // biome-ignore format: one line each
    const [x, weight, bias] = [draw(1, 2, 5, 6, inputs), draw(2, kh, kw, inputs, outputs), draw(3, outputs)];
    const [A, B] = [draw(4, kh, kw, inputs, rank), draw(5, rank, outputs)];
    const [w, a, up] = await Promise.all([weight, A, B].map(numbers));
    const dense = w!.map((v, at) => {
      const [tap, o] = [Math.floor(at / outputs), at % outputs];
      let sum = v;
      for (let k = 0; k < rank; k++) sum += scale * a![tap * rank + k]! * up![k * outputs + o]!;
      return sum;
    });
    const want = conv2d({ weight: tensor(dense, weight.shape, 'f64'), bias }, x, how);
    const got = conv2d({ weight, bias, adapter: { A, B, scale } }, x, how);
    expect(got.shape).toEqual(want.shape);
    const expected = await numbers(want);
    for (const [i, value] of (await numbers(got)).entries()) expect(value).toBeCloseTo(expected[i]!, 12);
  }
});

test('an adapter of another kernel, or on a convolution in groups, is refused with both shapes', () => {
  const zeros = (...shape: number[]) => tensor(new Float32Array(shape.reduce((n, side) => n * side, 1)), shape);
  const [x, weight] = [zeros(1, 4, 4, 2), zeros(3, 3, 2, 6)];
  const adapter = { A: zeros(3, 3, 2, 1), B: zeros(1, 6), scale: 1 };
  expect(() => conv2d({ weight, adapter }, x)).not.toThrow();
  for (const wrong of [{ A: zeros(1, 1, 2, 1) }, { A: zeros(3, 3, 2, 2) }, { B: zeros(1, 5) }])
    expect(() => conv2d({ weight, adapter: { ...adapter, ...wrong } }, x)).toThrow(
      'for a kernel [3, 3, 2, 6] in 1 groups; expected A[kh, kw, in, r], B[r, out] and one group',
    );
  const grouped = { weight: zeros(3, 3, 1, 6), adapter: { ...adapter, A: zeros(3, 3, 1, 1) } };
  expect(() => conv2d(grouped, x, { groups: 2 })).toThrow('in 2 groups');
});

test('upsampleNearest takes pixel ⌊i·h/h′⌋ for every pair of sizes', async () => {
  const side = fc.integer({ min: 1, max: 9 });
  await fc.assert(
    fc.asyncProperty(side, side, side, side, async (h, w, toH, toW) => {
      const x = draw(h * 10 + w, 1, h, w, 2);
      const [from, to] = [await numbers(x), await numbers(upsampleNearest(x, [toH, toW]))];
      for (let i = 0; i < toH; i++)
        for (let j = 0; j < toW; j++)
          for (let c = 0; c < 2; c++) {
            const source = (Math.floor((i * h) / toH) * w + Math.floor((j * w) / toW)) * 2 + c;
            expect(to[(i * toW + j) * 2 + c]).toBe(from[source]);
          }
    }),
    { numRuns: 60 },
  );
  expect(upsampleNearest(draw(1, 1, 3, 5, 2)).shape).toEqual([1, 6, 10, 2]);
});

test('timestepEmbedding: cosines and sines of t·10000^(−i/half), a zero at the end of an odd width', async () => {
  const t = tensor(Int32Array.of(0, 3, 999));
  const y = await numbers(timestepEmbedding(t, 7, { dtype: 'f64', flipSinToCos: true, freqShift: 0 }));
  for (const [row, step] of [0, 3, 999].entries()) {
    for (let i = 0; i < 3; i++) {
      const angle = step * 10000 ** (-i / 3);
      expect(y[row * 7 + i]).toBeCloseTo(Math.cos(angle), 10);
      expect(y[row * 7 + 3 + i]).toBeCloseTo(Math.sin(angle), 10);
    }
    expect(y[row * 7 + 6]).toBe(0);
  }
});

test('activations at points with known values', async () => {
  const x = tensor(Float64Array.of(0, 1, -1, 40, -40), [5], 'f64');
  const phi1 = 0.8413447460685429; // Φ(1), Abramowitz & Stegun table 26.1
  const close = async (y: Tensor, expected: number[]) => {
    for (const [i, value] of (await numbers(y)).entries()) expect(value).toBeCloseTo(expected[i]!, 9);
  };
  await close(gelu(x), [0, phi1, phi1 - 1, 40, 0]);
  await close(silu(x), [0, 1 / (1 + Math.exp(-1)), -1 / (1 + Math.E), 40, 0]);
  await close(quickGelu(x), [0, 1 / (1 + Math.exp(-1.702)), -1 / (1 + Math.exp(1.702)), 40, 0]);
  // [value, gate]: 3·gelu(1), 5·gelu(40)
  await close(geglu(tensor(Float64Array.of(3, 5, 1, 40), [1, 4], 'f64')), [3 * phi1, 200]);
  await close(mse(tensor([1, 2], [2], 'f64'), tensor([3, 5], [2], 'f64')), [6.5]);
});

test('kernels change their order of axes and back', () => {
  const shape = [2, 3, 4, 5];
  const data = Float32Array.from({ length: 120 }, (_, i) => i);
  const model = toModelLayout({ data, shape });
  expect(model.shape).toEqual([4, 5, 3, 2]);
  // out 1, in 2, row 3, column 4 → row, column, in, out
  expect(model.data[((3 * 5 + 4) * 3 + 2) * 2 + 1]).toBe(((1 * 3 + 2) * 4 + 3) * 5 + 4);
  expect(toFileLayout(model)).toEqual({ data, shape });
  expect([...permuteAxes(Float32Array.of(1, 2, 3, 4, 5, 6), [2, 3], [1, 0])]).toEqual([1, 4, 2, 5, 3, 6]);
});

test('init: bounds and moments of the distributions, a stream of its own for every path', async () => {
  const spec = { a: linearSpec(100, 300), b: { conv: convSpec(50, 40, 3) }, c: linearSpec(100, 300) };
  const params = init(spec, 7);
  const bound = 1 / Math.sqrt(100);
  const a = await numbers(params.a.weight);
  expect(Math.max(...a)).toBeLessThan(bound);
  expect(Math.max(...a)).toBeGreaterThan(0.999 * bound);
  const variance = (x: number[]) => x.reduce((s, v) => s + v * v, 0) / x.length;
  expect(variance(a) / (bound ** 2 / 3)).toBeCloseTo(1, 1);
  expect(params.b.conv.weight.shape).toEqual([3, 3, 50, 40]);
  const conv = await numbers(params.b.conv.weight);
  expect(variance(conv) / (fanInBound(450) ** 2 / 3)).toBeCloseTo(1, 1);

  expect(await numbers(params.c.weight)).not.toEqual(a);
  expect(await numbers(init({ a: spec.a }, 7).a.weight)).toEqual(a);
  expect(await numbers(init({ a: spec.a }, 8).a.weight)).not.toEqual(a);

  const gaussians = init({ e: linearSpec(500, 200, { init: { kind: 'normal', std: 0.3 } }) }, 1);
  const e = await numbers(gaussians.e.weight);
  const n = e.length;
  // four standard errors of mean, variance and fourth moment of 100,000 normal numbers
  expect(Math.abs(e.reduce((s, v) => s + v, 0) / n)).toBeLessThan((4 * 0.3) / Math.sqrt(n));
  expect(Math.abs(variance(e) / 0.09 - 1)).toBeLessThan(4 * Math.sqrt(2 / n));
  expect(Math.abs(e.reduce((s, v) => s + v ** 4, 0) / n / 0.0081 - 3)).toBeLessThan(4 * Math.sqrt(96 / n));
});
const fanInBound = (inputs: number): number => (fanIn(inputs) as { bound: number }).bound;
