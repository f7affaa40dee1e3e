/** Fused reductions against f64 loops, for both kernel families on whatever adapter there is. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { closeDevice, type Gpu, openDevice } from '../../../core/backends/webgpu/device.ts';
import { printReduce } from '../../../core/backends/webgpu/printReduce.ts';
import type { Cluster } from '../../../core/compile/scalar.ts';
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

/** Σ or max over `axes` of x·x (contiguous) or of x under other strides */
const cluster = (
  op: 'sum' | 'max',
  shape: readonly number[],
  axes: readonly number[],
  strides?: readonly number[],
): Cluster => ({
  shape,
  inputs: [
    { dtype: 'f32', strides: strides ?? shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1)), offset: 0 },
  ],
  steps: [
    { kind: 'load', input: 0, dtype: 'f32' },
    { kind: 'call', fn: 'mul', args: [0, 0], dtype: 'f32' },
  ],
  outputs: [op === 'sum' ? 1 : 0],
  reduce: { op, axes },
});

const reference = ({ shape, inputs, reduce }: Cluster, x: Float32Array): { y: number[]; scale: number[] } => {
  const size = shape.reduce((a, b) => a * b, 1);
  const kept = shape.map((n, i) => (reduce!.axes.includes(i) ? 1 : n));
  const n = kept.reduce((a, b) => a * b, 1);
  const y = new Array<number>(n).fill(reduce!.op === 'sum' ? 0 : Number.NEGATIVE_INFINITY);
  for (let i = 0; i < size; i++) {
    let rest = i;
    let at = inputs[0]!.offset;
    let out = 0;
    let step = 1;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const c = rest % shape[axis]!;
      rest = Math.floor(rest / shape[axis]!);
      at += c * inputs[0]!.strides[axis]!;
      if (kept[axis] !== 1) out += c * step;
      step *= kept[axis]!;
    }
    const v = x[at]!;
    y[out] = reduce!.op === 'sum' ? y[out]! + v * v : Math.max(y[out]!, v);
  }
  return { y, scale: y };
};

interface Case {
  readonly name: string;
  readonly shape: readonly number[];
  readonly axes: readonly number[];
  readonly strides?: readonly number[];
}
const cases: readonly Case[] = [
  { name: 'rows', shape: [9, 64], axes: [1] },
  { name: 'long rows, few', shape: [2, 70_000], axes: [1] },
  { name: 'odd rows', shape: [5, 77], axes: [1] },
  { name: 'columns', shape: [300, 32], axes: [0] },
  { name: 'few long columns', shape: [20_000, 8], axes: [0] },
  { name: 'odd columns', shape: [130, 7], axes: [0] },
  { name: 'everything', shape: [3, 5, 64], axes: [0, 1, 2] },
  { name: 'everything, large', shape: [70_000], axes: [0] },
  { name: 'group norm: over space and channels of a group', shape: [2, 49, 4, 8], axes: [1, 3] },
  { name: 'bias gradient', shape: [4, 6, 6, 12], axes: [0, 1, 2] },
  { name: 'inner kept, outer kept', shape: [6, 40, 4], axes: [1] },
  { name: 'transposed operand', shape: [12, 50], axes: [1], strides: [1, 12] },
  { name: 'broadcast operand', shape: [12, 52], axes: [1], strides: [0, 1] },
  { name: 'one value', shape: [1, 1], axes: [0, 1] },
];

describe.each(['cpu', 'gpu'] as const)('%s kernels', (family) => {
  test.each(cases)('sum and max: $name', async ({ shape, axes, strides }) => {
    const x = values(shape.reduce((a, b) => a * b, 1));
    for (const op of ['sum', 'max'] as const) {
      const c = cluster(op, shape, axes, strides);
      const { y: want } = reference(c, x);
      const got = new Float32Array((await runner.recipe(printReduce(c, family), [x], [want.length]))[0]!);
      const terms = axes.reduce((n, a) => n * shape[a]!, 1);
      want.forEach((w, i) => {
        // all terms are positive, so the sum is its own scale
        expect(Math.abs(got[i]! - w), `${op} ${i}`).toBeLessThanOrEqual(
          op === 'max' ? 0 : 2 ** -24 * (4 + 4 * Math.sqrt(terms)) * w,
        );
      });
    }
  });
  test('a sum over nothing is zero', async () => {
    const [y] = await runner.recipe(printReduce(cluster('sum', [3, 0], [1]), family), [new Float32Array(4)], [3]);
    expect([...new Float32Array(y!)]).toEqual([0, 0, 0]);
  });
  test('NaN reaches the maximum', async () => {
    const x = values(128);
    x[77] = Number.NaN;
    const [y] = await runner.recipe(printReduce(cluster('max', [4, 32], [1]), family), [x], [4]);
    expect([...new Float32Array(y!)].map(Number.isNaN)).toEqual([false, false, true, false]);
  });
});
