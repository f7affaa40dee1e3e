/**
 * Micro benchmark of the kernels that are no contractions: clusters, norms, softmax, attention.
 *
 * npx tsx core/backends/wasm/benchFused.ts [filter] [threads]
 *
 * With one thread the clock is the processor time of this process: rates stay meaningful on a machine that others use.
 */
import { availableParallelism } from 'node:os';
import { performance } from 'node:perf_hooks';
import { argv, cpuUsage } from 'node:process';
import type { Cluster, ScalarStep } from '../../compile/scalar.ts';
import type { Attrs } from '../../ir/tensor.ts';
import { contiguousView, rowMajor, sizeOf } from '../../ir/view.ts';
import { attentionKernels } from './attention.ts';
import { attentionGradKernels } from './attentionGrad.ts';
import { clusterWork, clusterWorkspace, installKernels } from './cluster.ts';
import { groupNormKernels } from './groupNorm.ts';
import { rowKernels } from './layerNorm.ts';
import { createMachine } from './machine.ts';
import type { Work } from './walk.ts';
import type { Placed, WasmKernel } from './wasmKernel.ts';

const [filter = '', threads] = argv.slice(2);
const machine = createMachine({ threads: Number(threads ?? availableParallelism()) });
machine.ready();
const now = (): number => {
  if (machine.threads > 1) return performance.now();
  const { user, system } = cpuUsage();
  return (user + system) / 1000;
};

/** prints the best of many runs within `ms`; `amount` is FLOP or bytes */
const report = (
  name: string,
  { commands, kernels }: Work,
  amount: number,
  unit: 'GFLOP/s' | 'GB/s',
  ms = 400,
): void => {
  installKernels(machine, kernels);
  const program = machine.prepare(commands);
  // Warm: V8 compiles a kernel well only after some calls.
  for (let round = 0; round < 8; round++) machine.run(program);
  let best = Number.POSITIVE_INFINITY;
  for (const end = performance.now() + ms; performance.now() < end; ) {
    const start = now();
    machine.run(program);
    best = Math.min(best, now() - start);
  }
  console.log(
    `${name.padEnd(44)} ${best.toFixed(3).padStart(9)} ms ${(amount / best / 1e6).toFixed(1).padStart(7)} ${unit}`,
  );
  machine.release(program);
};

const numbers = (count: number): number => {
  const address = machine.alloc(count * 4);
  for (let i = 0; i < count; i++) machine.f32[address / 4 + i] = Math.sin(i * 12.9898);
  return address;
};
const place = (shape: readonly number[]): Placed => ({
  address: numbers(sizeOf(shape)),
  dtype: 'f32',
  view: contiguousView(shape),
});
type Shapes = readonly (readonly number[])[];
const kernel = <A extends Attrs>(
  name: string,
  k: WasmKernel<A>,
  attrs: A,
  inputs: Shapes,
  outputs: Shapes,
  amount: number,
  unit: 'GFLOP/s' | 'GB/s',
): void => {
  if (!name.includes(filter)) return;
  const call = { machine, attrs, inputs: inputs.map(place), outputs: outputs.map(place), workspace: 0 };
  const workspace = machine.alloc(k.workspace?.(call) ?? 0);
  const { commands, kernels = [] } = k.work({ ...call, workspace });
  report(name, { commands, kernels }, amount, unit);
  for (const { address } of [...call.inputs, ...call.outputs]) machine.free(address);
  machine.free(workspace);
};

for (const [b, heads, m, n, d] of [
  [1, 8, 784, 784, 40],
  [1, 8, 784, 77, 40],
  [16, 4, 256, 256, 16],
  [16, 4, 64, 64, 24],
  [1, 64, 784, 784, 4],
] as const) {
  const [q, k, lse] = [
    [b, m, heads * d],
    [b, n, heads * d],
    [b * heads, m, 1],
  ];
  const attrs = { heads, scale: 1 / Math.sqrt(d), causal: false };
  const flop = 4 * b * heads * m * n * d;
  const name = `${b} × ${heads} heads × ${m} × ${n} × ${d}`;
  kernel(`attention ${name}`, attentionKernels.attention, attrs, [q, k, k], [q, lse], flop, 'GFLOP/s');
  const { attentionGrad } = attentionGradKernels;
  kernel(`attentionGrad ${name}`, attentionGrad, attrs, [q, q, k, k, q, lse], [q, k, k], 2.5 * flop, 'GFLOP/s');
}
for (const [shape, groups, silu] of [
  [[8, 64, 64, 16], 4, true],
  [[8, 28, 28, 320], 32, true],
  [[1, 28, 28, 320], 32, true],
  [[16, 16, 16, 96], 8, false],
] as const) {
  const [c, statistics] = [[shape[3]], [shape[0], 1, groups, 1]];
  const attrs = { groups, eps: 1e-5, silu };
  const bytes = sizeOf(shape) * 4;
  const name = `[${shape}]${silu ? ' silu' : ''}`;
  const { groupNorm, groupNormGrad } = groupNormKernels;
  kernel(`groupNorm ${name}`, groupNorm, attrs, [shape, c, c], [shape, statistics, statistics], 2 * bytes, 'GB/s');
  const inputs = [shape, shape, c, c, statistics, statistics];
  kernel(`groupNormGrad ${name}`, groupNormGrad, attrs, inputs, [shape], 3 * bytes, 'GB/s');
}
for (const shape of [
  [2048, 96],
  [6272, 320],
] as const) {
  const [c, statistics, bytes] = [[shape[1]], [shape[0], 1], sizeOf(shape) * 4];
  const { layerNorm, layerNormGrad, softmax } = rowKernels;
  const outputs = [shape, statistics, statistics];
  kernel(`layerNorm [${shape}]`, layerNorm, { eps: 1e-5 }, [shape, c, c], outputs, 2 * bytes, 'GB/s');
  const inputs = [shape, shape, c, statistics, statistics];
  kernel(`layerNormGrad [${shape}]`, layerNormGrad, {}, inputs, [shape], 3 * bytes, 'GB/s');
  kernel(`softmax [${shape}]`, softmax, {}, [shape], [shape], 2 * bytes, 'GB/s');
}

const cluster = (name: string, c: Cluster): void => {
  if (!name.includes(filter)) return;
  const sizes = c.inputs.map((x) => c.shape.reduce((n, size, i) => n + (size - 1) * x.strides[i]!, 1));
  const result = c.reduce ? c.shape.map((n, i) => (c.reduce?.axes.includes(i) ? 1 : n)) : c.shape;
  const inputs = sizes.map(numbers);
  const output = machine.alloc(sizeOf(result) * 4);
  const workspace = machine.alloc(clusterWorkspace(c));
  const bytes = (sizes.reduce((sum, n) => sum + n, 0) + sizeOf(result)) * 4;
  report(name, clusterWork(c, { inputs, outputs: [output], workspace }), bytes, 'GB/s');
  for (const address of [...inputs, output, workspace]) machine.free(address);
};
const view = (...strides: number[]) => ({ dtype: 'f32', strides, offset: 0 }) as const;
const load = (input: number): ScalarStep => ({ kind: 'load', input, dtype: 'f32' });
const call = (fn: string, ...args: number[]): ScalarStep => ({ kind: 'call', fn, args, dtype: 'f32' });

const million = 2 ** 20;
cluster('silu(x)·y + z on 4 M', {
  shape: [4 * million],
  inputs: [view(1), view(1), view(1)],
  steps: [load(0), load(1), load(2), call('sigmoid', 0), call('mul', 0, 3), call('mul', 4, 1), call('add', 5, 2)],
  outputs: [6],
});
const sum = [load(0), load(1), call('add', 0, 1)];
cluster('x + bias [6272,320]', { shape: [6272, 320], inputs: [view(320, 1), view(0, 1)], steps: sum, outputs: [2] });
cluster('x + bias [131072,16]', { shape: [131072, 16], inputs: [view(16, 1), view(0, 1)], steps: sum, outputs: [2] });
for (const [rows, columns] of [
  [1000, 1000],
  [1024, 2048],
] as const)
  cluster(`transpose [${rows},${columns}]`, {
    shape: [columns, rows],
    inputs: [view(1, columns)],
    steps: [load(0)],
    outputs: [0],
  });
for (const [shape, axes] of [
  [[4 * million], [0]],
  [[6272, 320], [1]],
  [[32768, 96], [0]],
  [[32768, 4], [0]],
  [[8, 100000], [0]],
  [[8, 256, 96], [1]],
] as const)
  cluster(`sum [${shape}] over ${axes}`, {
    shape,
    inputs: [view(...rowMajor(shape))],
    steps: [load(0)],
    outputs: [0],
    reduce: { op: 'sum', axes },
  });
machine.close();
