/** dot kernels of both families against f64 loops: odd sizes, transposed and offset operands, NaN beyond the edge. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { closeDevice, type Gpu, openDevice } from '../../../core/backends/webgpu/device.ts';
import { printDot, registerDot } from '../../../core/backends/webgpu/dot.ts';
import { planDot } from '../../../core/backends/webgpu/dotPlan.ts';
import { sharedDot } from '../../../core/backends/webgpu/dotShared.ts';
import type { View } from '../../../core/ir/view.ts';
import { LONG, longRows } from '../../support/long.ts';
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

type Layout = 'plain' | 'transposed' | 'offset';
const viewOf = ([g, r, c]: readonly [number, number, number], layout: Layout): View =>
  layout === 'transposed'
    ? { shape: [g, r, c], strides: [r * c, 1, r], offset: 0 }
    : { shape: [g, r, c], strides: [r * c, c, 1], offset: layout === 'offset' ? 3 : 0 };

const reference = (a: View, x: Float32Array, b: View, z: Float32Array) => {
  const [g, m, k] = a.shape as [number, number, number];
  const n = b.shape[2]!;
  const y = new Float64Array(g * m * n);
  const scale = new Float64Array(g * m * n);
  for (let s = 0; s < g; s++)
    for (let i = 0; i < m; i++)
      for (let j = 0; j < n; j++)
        for (let p = 0; p < k; p++) {
          const v =
            x[a.offset + s * a.strides[0]! + i * a.strides[1]! + p * a.strides[2]!]! *
            z[b.offset + s * b.strides[0]! + p * b.strides[1]! + j * b.strides[2]!]!;
          y[(s * m + i) * n + j]! += v;
          scale[(s * m + i) * n + j]! += Math.abs(v);
        }
  return { y, scale };
};

const sizes: readonly (readonly [number, number, number, number])[] = [
  [1, 1, 1, 1],
  [3, 65, 17, 70],
  [2, 64, 64, 64],
  [1, 130, 33, 5],
  [2, 8, 320, 4],
  [1, 40, 4, 132],
  [2, 3, 12, 36],
  [1, 9, 8, 1],
];
const layouts: readonly (readonly [Layout, Layout])[] = [
  ['plain', 'plain'],
  ['plain', 'transposed'],
  ['transposed', 'plain'],
  ['transposed', 'transposed'],
  ['offset', 'offset'],
];
const families = {
  register: (a: View, b: View) => registerDot(planDot({ a, b })),
  'shared, 4×4': (a: View, b: View) => sharedDot(planDot({ a, b }), 4),
  'shared, 8×8': (a: View, b: View) => sharedDot(planDot({ a, b }), 8),
} as const;

// a workgroup tile takes seconds to build: fewer cases there, and one layout for each size, none of the largest tile
const isShort = (pair: (typeof layouts)[number], size: number) => (layouts.indexOf(pair) + size) % 5 === 0;
const few = sizes.filter(([g]) => g > 1);
describe.each(Object.keys(families) as (keyof typeof families)[])('%s tiles', (family) => {
  test.each(longRows(family === 'register' ? sizes : few, ([, m]) => m !== 64 && family !== 'shared, 8×8'))(
    'g %d, m %d, k %d, n %d',
    async (g, m, k, n) => {
      for (const [la, lb] of longRows(
        layouts,
        (pair) =>
          family === 'register' ||
          isShort(
            pair,
            few.findIndex((s) => s[1] === m),
          ),
      )) {
        const a = viewOf([g, m, k], la);
        const b = viewOf([g, k, n], lb);
        const x = values(g * m * k + 3, -1, 1);
        const z = values(g * k * n + 3, -1, 1, 5);
        const { y: want, scale } = reference(a, x, b, z);
        const got = new Float32Array((await runner.run(families[family](a, b), [x, z], [want.length]))[0]!);
        let worst = 0;
        want.forEach((w, i) => {
          worst = Math.max(
            worst,
            Math.abs(got[i]! - w) / (2 ** -24 * (4 * Math.abs(w) + 4 * Math.sqrt(k) * scale[i]!)),
          );
        });
        expect(worst, `${la} · ${lb}`).toBeLessThanOrEqual(1);
      }
    },
  );
  test.runIf(LONG || family !== 'shared, 8×8')('what lies beyond the matrix never counts', async () => {
    const [m, k, n] = [5, 6, 7];
    const a: View = { shape: [1, m, k], strides: [0, 10, 1], offset: 1 };
    const b: View = { shape: [1, k, n], strides: [0, 9, 1], offset: 1 };
    const x = new Float32Array(64).fill(Number.NaN);
    const z = new Float32Array(64).fill(Number.NaN);
    for (let p = 0; p < k; p++) {
      for (let i = 0; i < m; i++) x[1 + i * 10 + p] = 1;
      for (let j = 0; j < n; j++) z[1 + p * 9 + j] = 1;
    }
    const got = new Float32Array((await runner.run(families[family](a, b), [x, z], [m * n]))[0]!);
    expect([...got]).toEqual(new Array(m * n).fill(k));
  });
});

test('an empty sum is zero', async () => {
  const a: View = { shape: [1, 2, 0], strides: [0, 0, 1], offset: 0 };
  const b: View = { shape: [1, 0, 3], strides: [0, 3, 1], offset: 0 };
  const [y] = await runner.run(printDot({ a, b }, gpu.class), [new Float32Array(4), new Float32Array(4)], [6]);
  expect([...new Float32Array(y!)]).toEqual([0, 0, 0, 0, 0, 0]);
});

test('another size of the same kind builds no pipeline', async () => {
  const run = async (m: number, k: number, n: number) => {
    const a = viewOf([1, m, k], 'plain');
    const b = viewOf([1, k, n], 'plain');
    await runner.run(printDot({ a, b }, gpu.class), [values(m * k), values(k * n)], [m * n]);
  };
  await run(16, 8, 16);
  const before = runner.built();
  await run(24, 64, 36);
  await run(60, 100, 72);
  expect(runner.built()).toBe(before);
});
