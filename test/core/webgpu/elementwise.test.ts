/** WGSL of clusters against the elementwise table in f64. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { closeDevice, type Gpu, openDevice } from '../../../core/backends/webgpu/device.ts';
import { printElementwise } from '../../../core/backends/webgpu/printWgsl.ts';
import type { Cluster, ScalarStep } from '../../../core/compile/scalar.ts';
import type { DType } from '../../../core/ir/dtype.ts';
import { type ElementwiseName, table } from '../../../core/ops/elementwise.ts';
import { createRunner, type Runner, values } from '../../support/webgpu-harness.ts';

// software drivers build pipelines slowly when the machine is busy
vi.setConfig({ testTimeout: 120_000 });

let gpu: Gpu;
let runner: Runner;
beforeAll(async () => {
  gpu = await openDevice();
  runner = createRunner(gpu);
});
afterAll(closeDevice);

const js = (name: ElementwiseName) => {
  const form = table[name].form;
  if (form.kind !== 'elementwise') throw new Error(name);
  return form.js;
};
const flat = (n: number) => ({ strides: [1], offset: 0, shape: [n] });

/** one function applied to whole arrays */
const apply = (fn: string, operands: readonly DType[], n: number, dtype: DType): Cluster => ({
  shape: [n],
  inputs: operands.map((d) => ({ dtype: d, ...flat(n) })),
  steps: [
    ...operands.map((d, input): ScalarStep => ({ kind: 'load', input, dtype: d })),
    { kind: 'call', fn, args: operands.map((_, i) => i), dtype },
  ],
  outputs: [operands.length],
});

const run1 = async (fn: string, x: readonly Float32Array[], n = x[0]!.length) => {
  const [y] = await runner.run(
    printElementwise(
      apply(
        fn,
        x.map(() => 'f32'),
        n,
        'f32',
      ),
      gpu.class,
    ),
    x,
    [n],
  );
  return new Float32Array(y!);
};

/** error in units in the last place of the f32 result */
const ulps = (got: number, want: number): number =>
  Object.is(got, want) || got === want || (Number.isNaN(got) && Number.isNaN(want))
    ? 0
    : Math.abs(got - want) / 2 ** Math.max(-149, Math.floor(Math.log2(Math.abs(Math.fround(want)))) - 23);

describe('functions of one variable', () => {
  // [function, lowest, highest argument, allowed ulps]: WGSL gives sqrt, rsqrt, recip up to 2.5 ulp
  const cases: readonly (readonly [ElementwiseName, number, number, number])[] = [
    ['neg', -9, 9, 0],
    ['exp', -80, 80, 3],
    ['exp', -1, 1, 2],
    ['log', 1e-3, 1e3, 3],
    ['log', 0.7, 1.4, 3],
    ['sqrt', 1e-3, 1e3, 3],
    ['rsqrt', 1e-3, 1e3, 3],
    ['recip', 0.01, 9, 3],
    ['tanh', -10, 10, 4],
    ['tanh', -0.7, 0.7, 4],
    ['erf', -5, 5, 4],
    ['erf', -1, 1, 4],
    ['sigmoid', -30, 30, 5],
    ['floor', -9, 9, 0],
  ];
  test.each(cases)('%s on [%d, %d] is within %d…', async (name, lo, hi, allowed) => {
    const x = values(4099, lo, hi);
    const y = await run1(name, [x]);
    let worst = 0;
    x.forEach((v, i) => {
      worst = Math.max(worst, ulps(y[i]!, js(name)(v)));
    });
    expect(worst).toBeLessThanOrEqual(allowed);
  });
  test.each(['sin', 'cos'] as const)('%s is right to 2e-7 up to 4000 radians', async (name) => {
    const x = Float32Array.from([...values(3000, -4000, 4000), ...values(1000, -4, 4)]);
    const y = await run1(name, [x]);
    let worst = 0;
    x.forEach((v, i) => {
      worst = Math.max(worst, Math.abs(y[i]! - js(name)(v)));
    });
    expect(worst).toBeLessThan(2e-7);
  });
  test('the ends of the range', async () => {
    const x = Float32Array.of(0, -0, 200, -200, Infinity, -Infinity, NaN, 88.7, -87, 1e-30, 1e38, -1);
    for (const name of ['exp', 'log', 'tanh', 'erf', 'sigmoid', 'sqrt', 'neg'] as const) {
      const y = await run1(name, [x]);
      const want = Array.from(x, (v) => Math.fround(js(name)(v)));
      y.forEach((got, i) => {
        const close = ulps(got, want[i]!) <= 4 || Math.abs(got - want[i]!) < 2 ** -126;
        expect(close, `${name}(${x[i]}) = ${got}, want ${want[i]}`).toBe(true);
      });
    }
  });
});

describe('functions of two variables', () => {
  const special = [0, 1, -1, 2.5, 1e30, Infinity, -Infinity, NaN];
  const a = Float32Array.from(special.flatMap((v) => special.map(() => v)));
  const b = Float32Array.from(special.flatMap(() => special));
  test.each(['add', 'sub', 'mul', 'maximum', 'minimum'] as const)('%s, NaN and infinities included', async (name) => {
    const y = await run1(name, [a, b]);
    expect([...y].map((v) => (v === 0 ? 0 : v))).toEqual(
      Array.from(a, (v, i) => Math.fround(js(name)(v, b[i]!))).map((v) => (v === 0 ? 0 : v)),
    );
  });
  test.each(['less', 'equal'] as const)('%s, NaN included', async (name) => {
    const n = a.length;
    const [y] = await runner.run(printElementwise(apply(name, ['f32', 'f32'], n, 'bool'), gpu.class), [a, b], [n]);
    expect([...new Uint32Array(y!)]).toEqual(Array.from(a, (v, i) => js(name)(v, b[i]!)));
  });
  test('isFinite finds NaN and both infinities', async () => {
    const x = Float32Array.from(special);
    const [y] = await runner.run(printElementwise(apply('isFinite', ['f32'], 8, 'bool'), gpu.class), [x], [8]);
    expect([...new Uint32Array(y!)]).toEqual([1, 1, 1, 1, 1, 0, 0, 0]);
  });
  test('div is within 2.5 ulp', async () => {
    const x = values(999, 0.1, 9);
    const z = values(999, 0.1, 9, 1);
    const y = await run1('div', [x, z]);
    expect(Math.max(...y.map((v, i) => ulps(v, x[i]! / z[i]!)))).toBeLessThanOrEqual(2.5);
  });
});

/** what the cluster means, point by point */
const reference = (cluster: Cluster, data: readonly ArrayLike<number>[]): number[][] => {
  const { shape } = cluster;
  const n = shape.reduce((p, q) => p * q, 1);
  const out: number[][] = cluster.outputs.map(() => []);
  for (let i = 0; i < n; i++) {
    const index: number[] = [];
    let rest = i;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index[axis] = rest % shape[axis]!;
      rest = Math.floor(rest / shape[axis]!);
    }
    const t: number[] = [];
    for (const s of cluster.steps) {
      if (s.kind === 'load') {
        const x = cluster.inputs[s.input]!;
        t.push(data[s.input]![x.strides.reduce((at, st, k) => at + st * index[k]!, x.offset)]!);
      } else if (s.kind === 'const') t.push(s.value);
      else if (s.kind === 'iota') t.push(index[s.axis]!);
      else t.push(js(s.fn as ElementwiseName)(...s.args.map((k) => t[k]!)));
    }
    cluster.outputs.forEach((s, o) => void out[o]!.push(t[s]!));
  }
  return out;
};

describe('strided clusters', () => {
  const load = (input: number): ScalarStep => ({ kind: 'load', input, dtype: 'f32' });
  const chain = (shape: number[], a: number[], b: number[], offset = 0): Cluster => ({
    shape,
    inputs: [
      { dtype: 'f32', strides: a, offset },
      { dtype: 'f32', strides: b, offset: 0 },
    ],
    steps: [
      load(0),
      load(1),
      { kind: 'const', value: 0.3, dtype: 'f32' },
      { kind: 'iota', axis: shape.length - 1, dtype: 'f32' },
      { kind: 'call', fn: 'mul', args: [0, 1], dtype: 'f32' },
      { kind: 'call', fn: 'add', args: [4, 2], dtype: 'f32' },
      { kind: 'call', fn: 'sub', args: [5, 3], dtype: 'f32' },
    ],
    outputs: [6, 4],
  });
  const cases: readonly (readonly [string, Cluster])[] = [
    ['contiguous', chain([3, 8], [8, 1], [8, 1])],
    ['row broadcast', chain([3, 8], [8, 1], [0, 1])],
    ['column broadcast', chain([3, 8], [8, 1], [1, 0])],
    ['transposed', chain([5, 12], [1, 5], [12, 1])],
    ['odd sizes', chain([3, 7, 5], [35, 5, 1], [0, 5, 1])],
    ['size one', chain([1], [0], [0])],
    ['reversed', chain([4, 8], [8, -1], [8, 1], 7)],
    ['misaligned', chain([4, 8], [9, 1], [8, 1], 3)],
    ['flat, not a multiple of four', chain([13], [1], [1])],
    [
      'no axes',
      {
        ...chain([1], [0], [0]),
        shape: [] as number[],
        inputs: [
          { dtype: 'f32', strides: [], offset: 2 },
          { dtype: 'f32', strides: [], offset: 0 },
        ],
        steps: [load(0), load(1), { kind: 'call', fn: 'sub', args: [0, 1], dtype: 'f32' }],
        outputs: [2],
      },
    ],
  ];
  test.each(cases)('%s', async (_name, cluster) => {
    const data = [values(256), values(256, -1, 1, 3)];
    const want = reference(cluster, data);
    const got = await runner.run(
      printElementwise(cluster, gpu.class),
      data,
      want.map((w) => w.length),
    );
    want.forEach((w, o) => {
      const y = new Float32Array(got[o]!);
      w.forEach((v, i) => {
        expect(Math.abs(y[i]! - v)).toBeLessThanOrEqual(2e-6);
      });
    });
  });
  test('other sizes and constants reuse the pipeline', async () => {
    const before = runner.built();
    const sized = (n: number, m: number, value: number) => {
      const c = chain([n, m], [m, 1], [0, 1]);
      return { ...c, steps: c.steps.map((s) => (s.kind === 'const' ? { ...s, value } : s)) };
    };
    const data = [values(4096), values(256)];
    for (const [n, m, v] of [
      [3, 16, 1],
      [5, 32, 0.25],
      [7, 100, Infinity],
    ] as const)
      await runner.run(printElementwise(sized(n, m, v), gpu.class), data, [n * m, n * m]);
    expect(runner.built() - before).toBeLessThanOrEqual(1);
  });
});
