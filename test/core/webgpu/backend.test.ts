/** The WebGPU backend as a whole: every op of the registry, gradients, blocks, memory, replay. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { type WebgpuBackend, webgpuBackend } from '../../../core/backends/webgpu/index.ts';
import {
  add,
  attention,
  type Backend,
  cast,
  compile,
  concat,
  conv,
  dot,
  evaluate,
  exp,
  gather,
  grad,
  groupNorm,
  key,
  layerNorm,
  mean,
  mul,
  normal,
  pullback,
  read,
  registry,
  reshape,
  sin,
  slice,
  softmax,
  sub,
  sum,
  swap,
  type Tensor,
  tensor,
  vmap,
} from '../../../core/index.ts';
import { isFloat } from '../../../core/ir/dtype.ts';
import type { Attrs, Op, Sample } from '../../../core/ir/tensor.ts';
import { halfValue } from '../../../core/ops/half.ts';
import { apply, cpu, operands, picker, rng, values } from '../../support/gradcheck.ts';
import { longTest } from '../../support/long.ts';

// software drivers build pipelines slowly when the machine is busy
vi.setConfig({ testTimeout: 120_000 });

let backend: WebgpuBackend;
beforeAll(async () => {
  backend = await webgpuBackend();
});
afterAll(() => backend.close());

/** largest difference relative to the largest value: 1 means as large as the result */
const distance = (got: readonly number[], want: readonly number[]): number => {
  const scale = want.reduce((m, v) => Math.max(m, Math.abs(v)), 1e-3);
  return want.reduce((m, v, i) => Math.max(m, Object.is(got[i], v) ? 0 : Math.abs(got[i]! - v) / scale), 0);
};
/** the graph on WebGPU against the reference loops of the same f32 graph (which sum in f64) */
const compare = async (outs: readonly Tensor[], what: string, tolerance = 4e-6, on: Backend = backend as Backend) => {
  const placed = evaluate([...outs], on);
  const exact = evaluate([...outs], cpu);
  for (const [i, o] of outs.entries()) {
    const got = Array.from(await read(placed[i]!));
    expect(got.length, what).toBe(o.shape.reduce((a, b) => a * b, 1));
    expect(distance(got, Array.from(await read(exact[i]!))), `${what} output ${i}`).toBeLessThanOrEqual(tolerance);
  }
};
const random = rng(11);
const t = (...shape: number[]): Tensor => tensor(Float32Array.from(values({ shape }, random)), shape);

describe.each([...registry.values()].map((op) => [op.name, op] as [string, Op]))('%s', (name, op) => {
  // one sample of each is in `core/backends`, with a bound for each element
  longTest('and its gradient', async () => {
    for (let seed = 0; seed < 5; seed++) {
      const r = rng(seed + 101);
      const sample = op.sample(picker(r)) as Sample<Attrs>;
      const inputs = operands(sample, r, 'f32');
      const outs = apply(op, inputs, sample.attrs);
      await compare(outs, name);
      const cts = outs.map((o) =>
        isFloat(o.dtype) ? tensor(Float32Array.from(values({ shape: o.shape }, r)), o.shape) : undefined,
      );
      if (op.vjp === 'nondifferentiable' || cts.every((c) => c === undefined)) continue;
      const back = pullback(outs, cts, inputs).filter((g) => g !== undefined);
      if (back.length > 0) await compare(back, `vjp of ${name}`, 2e-5);
    }
  });
});

const same = {
  stride: [1, 1],
  pad: [
    [1, 1],
    [1, 1],
  ],
  groups: 1,
} as const;
/** a U-Net-like block: conv, norms, attention, residuals */
const block = (x: Tensor, p: { gamma: Tensor; beta: Tensor; w: Tensor; q: Tensor }): Tensor => {
  const [n, h, w, c] = x.shape as [number, number, number, number];
  const y = add(x, conv(groupNorm(x, p.gamma, p.beta, { groups: 2, eps: 1e-5, silu: true }), p.w, same));
  const rows = layerNorm(reshape(y, [n, h * w, c]), p.gamma, p.beta, 1e-5);
  const q = reshape(dot(reshape(rows, [1, n * h * w, c]), reshape(p.q, [1, c, c])), [n, h * w, c]);
  return reshape(attention(q, rows, rows, { heads: 2 }), x.shape);
};
const params = (c: number) => ({ gamma: t(c), beta: t(c), w: t(3, 3, c, c), q: t(c, c) });

test('a block, its gradient and its per-sample gradients', async () => {
  const p = params(8);
  const x = t(3, 5, 4, 8);
  const loss = (q: typeof p, y: Tensor) => mean(mul(block(y, q), block(y, q)));
  await compare([block(x, p)], 'block', 2e-5);
  await compare(Object.values(grad(loss)(p, x)), 'gradients', 5e-5);
  const per = vmap(grad(loss), [null, 0])(p, reshape(x, [3, 1, 5, 4, 8]));
  await compare(Object.values(per), 'per-sample gradients', 5e-5);
});

test.each([
  ['odd heads', 3, 70, 45, 15, false],
  ['vec4 heads', 2, 33, 77, 16, false],
  ['causal', 2, 41, 41, 8, true],
] as const)('attention and its gradient over many rows: %s', async (_name, heads, m, n, c, causal) => {
  const [q, k, v, g] = [t(2, m, c), t(2, n, c), t(2, n, c), t(2, m, c)];
  const o = attention(q, k, v, { heads, causal });
  await compare([o], 'attention', 1e-5);
  await compare(
    pullback([o], [g], [q, k, v]).map((x) => x!),
    'attention gradient',
    2e-5,
  );
});

longTest('the kernels for GPUs compute the same', async () => {
  const forGpus = (await webgpuBackend({ kernels: 'gpu' })) as Backend;
  const p = params(8);
  const x = t(3, 5, 4, 8);
  const loss = (q: typeof p, y: Tensor) => mean(mul(block(y, q), block(y, q)));
  await compare([block(x, p)], 'block', 2e-5, forGpus);
  await compare(Object.values(grad(loss)(p, x)), 'gradients', 5e-5, forGpus);
  await compare([sum(t(3, 5000), 1), sum(t(300, 40), 0), softmax(t(4, 1000))], 'rows and columns', 1e-5, forGpus);
  const [gamma, beta, wide] = [t(32), t(32), t(2, 12, 12, 32)];
  const y = groupNorm(wide, gamma, beta, { groups: 4, eps: 1e-5, silu: true });
  const z = layerNorm(wide, gamma, beta, 1e-5);
  const back = pullback([y, z], [t(...y.shape), t(...z.shape)], [wide, gamma, beta]).map((g) => g!);
  await compare([y, z, ...back], 'norms', 2e-5, forGpus);
});

test('products with an operand stored by columns, and gradients of strided and grouped convolutions', async () => {
  const [x, w] = [t(3, 40, 8), t(3, 12, 8)];
  await compare([dot(x, swap(w)), dot(slice(x, { axis: 0, stop: 1 }), swap(slice(w, { axis: 0, stop: 1 })))], 'x·wᵀ');
  for (const [stride, groups] of [
    [1, 1],
    [2, 1],
    [2, 2],
  ] as const) {
    const [picture, kernel] = [t(2, 9, 8, 8), t(3, 3, 8 / groups, 12)];
    const y = conv(picture, kernel, { ...same, stride: [stride, stride], groups });
    const back = pullback([y], [t(...y.shape)], [picture, kernel]).map((g) => g!);
    await compare([y, ...back], `stride ${stride}, ${groups} groups`, 1e-5);
  }
});

test.each([
  ['a group of one channel', 2, 5, 7, 6, 6],
  ['groups of four', 2, 6, 5, 12, 3],
  ['large pictures', 1, 24, 24, 32, 8],
] as const)('norms and their gradients: %s', async (_name, n, h, w, c, groups) => {
  const [x, gamma, beta, g] = [t(n, h, w, c), t(c), t(c), t(n, h, w, c)];
  for (const silu of [false, true]) {
    const y = groupNorm(x, gamma, beta, { groups, eps: 1e-5, silu });
    await compare([y, ...pullback([y], [g], [x, gamma, beta]).map((q) => q!)], `groupNorm, silu ${silu}`, 1e-5);
  }
  const y = layerNorm(x, gamma, beta, 1e-5);
  await compare([y, ...pullback([y], [g], [x, gamma, beta]).map((q) => q!)], 'layerNorm', 1e-5);
});

test('stored half floats: every pattern, an odd number of them, a view, rows of a table', async () => {
  const every = Uint16Array.from({ length: 65_535 }, (_, h) => h);
  const wide = await read(evaluate(cast(tensor(every, [65_535], 'f16'), 'f32'), backend));
  expect([...wide]).toEqual([...every].map(halfValue));
  const table = tensor(every.slice(0x3000, 0x3000 + 35), [5, 7], 'f16');
  await compare([cast(swap(table), 'f32')], 'transposed', 0);
  const ids = tensor(Int32Array.of(4, 0, -1, 3, 9), [5], 'i32');
  await compare([cast(gather(table, ids), 'f32')], 'rows', 0);
  expect(await read(evaluate(table, backend))).toEqual(every.slice(0x3000, 0x3000 + 35));
});

test('random numbers are the same words as on the reference', async () => {
  const words = normal(key(7), [33]);
  await compare([words], 'normal', 2e-6);
});

test('long rows, many operands, integer and bool values', async () => {
  await compare([sum(exp(t(3, 5000)), 1), softmax(t(4, 1000))], 'long rows');
  await compare(
    [
      concat(
        Array.from({ length: 20 }, (_, i) => t(2, i + 1)),
        1,
      ),
    ],
    'concat of 20',
  );
  const many = Array.from({ length: 30 }, () => t(5));
  await compare([many.reduce((a, b) => add(mul(a, b), a))], 'sum of 30', 1e-4);
  await compare([cast(t(3, 7), 'i32'), cast(cast(t(9), 'i32'), 'f32')], 'casts');
  await compare([slice(swap(t(5, 6)), { axis: 0, start: 1, step: 2 })], 'views');
});

describe('compiled steps', () => {
  const step = (state: { w: Tensor; m: Tensor }, x: Tensor) => {
    const g = grad((w: Tensor) => mean(mul(dot(x, w), dot(x, w))))(state.w);
    const m = add(mul(state.m, 0.9), g);
    return [{ w: sub(state.w, mul(m, 0.01)), m }, sum(m)] as const;
  };
  const start = () => ({
    w: tensor(new Float32Array(48).fill(0.3), [1, 8, 6]),
    m: tensor(new Float32Array(48), [1, 8, 6]),
  });
  const train = async (on: Parameters<typeof compile>[1]['backend'], steps: number) => {
    const run = compile(step, { backend: on, donate: [0] });
    let state = start();
    const x = tensor(
      Float32Array.from({ length: 32 }, (_, i) => Math.sin(i)),
      [1, 4, 8],
    );
    for (let i = 0; i < steps; i++) [state] = run(state, x);
    return { values: [...(await read(state.w))], run };
  };
  test('fifty donated steps equal the reference, twice with the same bits', async () => {
    const want = await train(cpu, 50);
    const a = await train(backend, 50);
    const b = await train(backend, 50);
    expect(distance(a.values, want.values)).toBeLessThan(1e-5);
    expect(b.values).toEqual(a.values);
  });
  longTest('a thousand steps leave live bytes exactly as they were', async () => {
    // finalizers free loose results: collect, and let them run
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const settle = async () => {
      for (let i = 0; i < 5; i++) {
        collect();
        await new Promise((r) => setTimeout(r, 2));
      }
      const { liveBytes, storages } = backend.memory();
      return { liveBytes, storages };
    };
    const run = compile(step, { backend, donate: [0] });
    let state = start();
    const x = t(1, 4, 8);
    const advance = async (steps: number) => {
      for (let i = 0; i < steps; i++) {
        const [next, out] = run(state, x);
        state = next;
        if (i % 20 === 0) await read(out);
      }
    };
    await advance(100);
    const early = await settle();
    await advance(900);
    expect(await settle()).toEqual(early);
    await read(state.w);
  });
  test('a plan allocates nothing, and intermediates of programs lie in the same buffers', async () => {
    const chain = (x: Tensor) => sum(exp(dot(exp(dot(x, x)), x)), 1);
    const other = (x: Tensor) => sum(sin(dot(sin(dot(x, x)), x)), 1);
    const x = evaluate(t(1, 256, 256), backend);
    const [a, b] = [compile(chain, { backend }), compile(other, { backend })];
    const live = () => backend.memory().liveBytes;
    const start = live();
    const { workspaceBytes } = a.inspect(x);
    expect(b.inspect(x).workspaceBytes).toBe(workspaceBytes);
    expect(live()).toBe(start);
    const first = await read(a(x));
    const afterOne = live();
    expect(afterOne).toBeGreaterThanOrEqual(start + workspaceBytes);
    const second = await read(b(x));
    // a result more at most, no second workspace
    expect(live() - afterOne).toBeLessThan(workspaceBytes / 4);
    expect(await read(a(x))).toEqual(first);
    expect(await read(b(x))).toEqual(second);
  });
  test('another shape builds no pipeline, and a profile has a time for every kernel', async () => {
    const run = compile((w: Tensor, x: Tensor) => sum(exp(dot(x, w)), 1), { backend });
    const at = (m: number, n: number) => read(run(t(1, 8, n), t(1, m, 8)));
    await at(12, 16);
    const before = backend.pipelines();
    await at(20, 24);
    await at(40, 36);
    expect(backend.pipelines()).toBe(before);
    expect(run.programs).toBe(3);
    await run.profile(t(1, 8, 24), t(1, 20, 8));
    const { kernels } = run.inspect(t(1, 8, 24), t(1, 20, 8));
    expect(kernels.length).toBeGreaterThanOrEqual(2);
    for (const k of kernels) expect(k.ms).toBeGreaterThan(0);
  });
});
