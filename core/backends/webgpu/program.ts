/**
 * A built program: kernels in order with their pipelines, uniforms and slots. A run encodes one pass and submits once;
 * nothing is read back.
 */

import type { Executable, Graph } from '../../compile/backend.ts';
import { type Buffer, bytesOfBuffer, type Kernel as LoweredKernel, readsOf } from '../../compile/lower.ts';
import { slots } from '../../compile/plan.ts';
import { kernelStages, type Prepared, type PrepareOptions, prepare } from '../../compile/prepare.ts';
import { detailOf, nameOf, reportKernels } from '../../compile/report.ts';
import { bytesOf } from '../../ir/dtype.ts';
import { DeviceLimitError } from '../../ir/errors.ts';
import { sizeOf } from '../../ir/view.ts';
import { type Bindings, type Place, rememberBindGroups } from './bindGroups.ts';
import { type BufferPool, checkSize } from './buffers.ts';
import type { Gpu } from './device.ts';
import { input, MAX_GROUPS, output, type Recipe } from './kernel.ts';
import { hasKernel, isPartial, isStrided, recipeOf } from './ops.ts';
import type { Pipelines } from './pipelines.ts';
import { printReduce } from './printReduce.ts';
import { type InPlace, printElementwise } from './printWgsl.ts';
import { bindRanges, partsOf } from './ranges.ts';
import { timedPasses } from './timing.ts';
import type { Workspace } from './workspace.ts';

/** Values on the device. */
export interface Storage {
  readonly buffer: GPUBuffer;
  readonly dtype: Buffer['dtype'];
  readonly entries: number;
}
export interface Context {
  readonly gpu: Gpu;
  readonly pool: BufferPool;
  readonly pipelines: Pipelines;
  readonly workspace: Workspace;
}

/** results of merged clusters: an optimizer's three of a leaf */
const MERGED = 3;

/** One dispatch, of the kernel number `op` of the program. */
interface Launch extends Bindings {
  readonly pipeline: GPUComputePipeline;
  readonly op: number;
}

/** Cluster inputs that lie in the same donated buffer as the cluster's output. */
const inPlaceOf = (k: LoweredKernel, reuse: ReadonlyMap<Buffer, Buffer>): InPlace => {
  const shared = new Map<number, number>();
  if (k.kind === 'cluster')
    for (const [o, output] of k.outputs.entries())
      for (const [i, input] of readsOf(k).entries()) if (reuse.get(output) === input) shared.set(i, o);
  return shared;
};

const recipeFor = (k: LoweredKernel, gpu: Gpu, inPlace: InPlace): Recipe => {
  if (k.kind === 'op')
    return recipeOf(
      k.node,
      k.inputs.map((o) => o.view),
      gpu,
      k.outputs.map((b) => b !== undefined),
    );
  if (k.cluster.reduce) return printReduce(k.cluster, gpu.class);
  const kernel = printElementwise(k.cluster, gpu.class, inPlace);
  const operands = k.inputs.flatMap((_, i) => (inPlace.has(i) ? [] : [input(i)]));
  return { launches: [{ kernel, operands: [...operands, ...k.outputs.map((_, i) => output(i))] }], scratch: [] };
};

/** by how many operands a cluster may bind: one for all programs, so that bodies are lowered for all of them */
const lowerings = new Map<number, PrepareOptions>();
const loweringFor = (operands: number): PrepareOptions => {
  const known = lowerings.get(operands);
  if (known) return known;
  const made: PrepareOptions = {
    strided: isStrided,
    partial: isPartial,
    hasKernel,
    maxLoads: Math.max(3, Math.min(10, operands - 1)),
    merge: operands - MERGED < 3 ? undefined : { maxLoads: operands - MERGED, maxOutputs: MERGED },
  };
  lowerings.set(operands, made);
  return made;
};
const prepareFor = (gpu: Gpu, graph: Graph): Prepared => {
  // a cluster may read so many tensors that all of them and its result can be bound, be they as large as the largest
  const largest = [...graph.inputs, ...graph.order.flatMap((t) => t.outs)].reduce(
    (most, t) => Math.max(most, partsOf(bytesOf(t.dtype, sizeOf(t.shape)), gpu.bindings)),
    1,
  );
  const operands = Math.floor(gpu.bindings.count / largest);
  return prepare(graph, loweringFor(operands));
};

export const buildProgram = ({ gpu, pool, pipelines, workspace }: Context, graph: Graph): Executable<Storage> => {
  const { device, limits } = gpu;
  const lowered = prepareFor(gpu, graph);
  const { reuse } = lowered;

  // a run's table of buffers: inputs, outputs, intermediates, scratch that all kernels share in turn
  const { slotOf, sizes } = slots(lowered.spans, 256);
  const table = new Map<Buffer, number>();
  for (const b of [...lowered.inputs, ...lowered.outputs]) if (!table.has(b)) table.set(b, table.size);
  const firstScratch = table.size + sizes.length;
  const placeOf = (b: Buffer): number => table.get(b) ?? table.size + slotOf.get(b)!;
  const recipes = lowered.kernels.map((k) => ({ k, recipe: recipeFor(k, gpu, inPlaceOf(k, reuse)) }));
  const scratch: number[] = [];
  for (const { recipe } of recipes)
    for (const [i, bytes] of recipe.scratch.entries()) scratch[i] = Math.max(scratch[i] ?? 0, bytes);
  const wanted = [...sizes, ...scratch];
  for (const bytes of [...wanted, ...lowered.outputs.map(bytesOfBuffer)]) checkSize(bytes, limits);
  const lease = workspace.lease(wanted);

  let uniformBytes = 0;
  const align = limits.minUniformBufferOffsetAlignment;
  const launches = recipes.flatMap(({ k, recipe }, op): Launch[] =>
    recipe.launches.flatMap(({ kernel, operands }) => {
      if (kernel.groups.includes(0)) return [];
      if (kernel.groups.some((n) => n > MAX_GROUPS))
        throw new DeviceLimitError(`${nameOf(k)} ${detailOf(k)}: more than ${MAX_GROUPS} groups on one axis`);
      const uniformOffset = uniformBytes;
      uniformBytes += Math.ceil(kernel.params.byteLength / align) * align;
      const inputs = readsOf(k);
      const buffers = operands.map(({ from, index }) => {
        if (from === 'scratch') return { at: firstScratch + index, bytes: recipe.scratch[index]! };
        const buffer = (from === 'input' ? inputs : k.outputs)[index]!;
        return { at: placeOf(buffer), bytes: bytesOfBuffer(buffer) };
      });
      const bound = bindRanges(
        kernel,
        buffers.map((b) => b.bytes),
        gpu.bindings,
      );
      const places = bound.ranges.map((r): Place => ({ ...r, at: buffers[r.operand]!.at }));
      return [{ kernel: bound.kernel, pipeline: pipelines.get(bound.kernel), places, uniformOffset, op }];
    }),
  );
  const uniforms = device.createBuffer({
    size: Math.max(uniformBytes, 16),
    usage: GPUBufferUsage.UNIFORM,
    mappedAtCreation: true,
  });
  const words = new Uint32Array(uniforms.getMappedRange());
  for (const l of launches) words.set(l.kernel.params, l.uniformOffset / 4);
  uniforms.unmap();

  const groupsFor = rememberBindGroups(device, pipelines, uniforms, launches);

  /** the run's table of buffers, and its results */
  const prepare = (inputs: readonly Storage[]) => {
    gpu.check();
    const buffers: GPUBuffer[] = new Array(table.size);
    buffers.push(...lease.buffers());
    for (const [i, b] of lowered.inputs.entries()) buffers[table.get(b)!] = inputs[i]!.buffer;
    const reused = new Set<Buffer>();
    const outputs = lowered.outputs.map((b): Storage => {
      const donor = reuse.get(b);
      if (donor) reused.add(donor);
      const buffer = donor ? buffers[table.get(donor)!]! : pool.acquire(bytesOfBuffer(b));
      buffers[table.get(b)!] = buffer;
      return { buffer, dtype: b.dtype, entries: b.elements };
    });
    const finish = (): readonly Storage[] => {
      for (const i of graph.donated) if (!reused.has(lowered.inputs[i]!)) pool.release(inputs[i]!.buffer);
      return outputs;
    };
    return { buffers, finish };
  };
  let times: readonly number[] = [];
  return {
    workspaceBytes: lease.bytes,
    run(inputs) {
      const { buffers, finish } = prepare(inputs);
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      const groups = groupsFor(buffers);
      let last: GPUComputePipeline | undefined;
      // the loop that a step's host time is: 3 calls into Dawn of about 0.5 µs each, nothing else
      for (let i = 0; i < launches.length; i++) {
        const { pipeline, kernel } = launches[i]!;
        if (pipeline !== last) pass.setPipeline(pipeline);
        last = pipeline;
        pass.setBindGroup(0, groups[i]!);
        pass.dispatchWorkgroups(kernel.groups[0], kernel.groups[1], kernel.groups[2]);
      }
      pass.end();
      device.queue.submit([encoder.finish()]);
      return finish();
    },
    async profile(inputs) {
      const { buffers, finish } = prepare(inputs);
      const groups = groupsFor(buffers);
      const each = await timedPasses(
        gpu,
        launches.map(({ pipeline, kernel }, i) => (pass) => {
          pass.setPipeline(pipeline);
          pass.setBindGroup(0, groups[i]!);
          pass.dispatchWorkgroups(...kernel.groups);
        }),
      );
      const sums = new Array<number>(lowered.kernels.length).fill(0);
      for (const [i, l] of launches.entries()) sums[l.op]! += each[i]!;
      times = sums;
      return finish();
    },
    report: (modules) => reportKernels(lowered.kernels, { modules, times }),
    stages: () => kernelStages(lowered),
    release() {
      lease.close();
      uniforms.destroy();
    },
  };
};
