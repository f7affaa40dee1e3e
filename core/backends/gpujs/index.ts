/**
 * The gpu.js backend: fused clusters and dot run as gpu.js kernels, everything else on the reference loops, and
 * `fallbacks` lists what did. Values stay on the host; a run returns at once and its results are promises inside.
 */
import { GPU, type IKernelRunShortcut, type KernelFunction, type KernelOutput } from 'gpu.js';
import type { Backend, Executable, Graph } from '../../compile/backend.ts';
import { runKernel } from '../../compile/interpret.ts';
import { type Buffer, bytesOfBuffer, type Kernel, readsOf, writesOf } from '../../compile/lower.ts';
import { kernelStages, prepare } from '../../compile/prepare.ts';
import { reportKernels } from '../../compile/report.ts';
import { allocate, type DType, type HostArray } from '../../ir/dtype.ts';
import { sizeOf } from '../../ir/view.ts';
import { closeDevice, hasHardwareAdapter } from '../webgpu/device.ts';
import { functions, type GpujsKernel, printCluster, printDot, type Refusal } from './printKernel.ts';
import { shareDevice } from './shim.ts';

export interface GpujsOptions {
  /** where gpu.js computes; default: webgpu on a real GPU, else cpu (its software modes are slower than that) */
  readonly mode?: 'cpu' | 'webgpu';
}
/** Values that are there, or on their way. */
export interface Storage {
  readonly values: Promise<HostArray>;
  readonly bytes: number;
}

const kernelOf = (k: Kernel): GpujsKernel | Refusal => {
  if (k.kind === 'cluster') return k.cluster.shape.includes(0) ? { refused: 'empty' } : printCluster(k.cluster);
  if (k.node.op.name === 'dot' && k.node.dtype === 'f32' && sizeOf(k.node.shape) > 0)
    return printDot(k.inputs[0]!.view, k.inputs[1]!.view);
  return { refused: k.node.op.name };
};

/** gpu.js returns rows inside planes; this writes them one after the other. */
const flatten = (result: KernelOutput, to: HostArray): void => {
  let at = 0;
  const walk = (part: unknown): void => {
    if (ArrayBuffer.isView(part)) {
      to.set(part as unknown as ArrayLike<number>, at);
      at += (part as Float32Array).length;
    } else for (const p of part as readonly unknown[]) walk(p);
  };
  walk(result);
};

type Launch = (inputs: readonly HostArray[], outputs: readonly HostArray[]) => Promise<void>;

const launcher = (gpu: GPU, cache: Map<string, IKernelRunShortcut>, k: Kernel, fallbacks: Set<string>): Launch => {
  const printed = kernelOf(k);
  if ('refused' in printed) {
    if (printed.refused !== 'empty') fallbacks.add(printed.refused);
    return async (inputs, outputs) => runKernel(k, inputs, outputs);
  }
  const { source, output, constants } = printed;
  // gpu.js keeps the sizes that a kernel was first called with
  const key = `${output} ${readsOf(k).map((b) => b.elements)} ${source}`;
  let run = cache.get(key);
  if (!run) {
    run = gpu.createKernel(source, { output: [...output], precision: 'single' });
    cache.set(key, run);
  }
  const kernel = run;
  return async (inputs, outputs) => {
    const floats = inputs.map((x) => (x instanceof Float32Array ? x : Float32Array.from(x)));
    flatten((await kernel(...floats, ...constants)) as KernelOutput, outputs[0]!);
  };
};

/**
 * Opens the gpu.js backend.
 * @throws NoAdapterError when mode webgpu is asked for and there is no adapter
 */
export const gpujsBackend = async (options: GpujsOptions = {}): Promise<Backend<Storage>> => {
  const mode = options.mode ?? ((await hasHardwareAdapter()) ? 'webgpu' : 'cpu');
  const unshare = mode === 'webgpu' ? await shareDevice() : () => undefined;
  // gpu.js reads functions as source text; its types only know function objects, which tsx would rewrite
  const gpu = new GPU({ mode, functions: Object.values(functions) as unknown as KernelFunction[] });
  const cache = new Map<string, IKernelRunShortcut>();
  const fallbacks = new Set<string>();
  const live = new Set<Storage>();
  let liveBytes = 0;
  let peakBytes = 0;
  const track = (s: Storage): Storage => {
    live.add(s);
    liveBytes += s.bytes;
    peakBytes = Math.max(peakBytes, liveBytes);
    return s;
  };
  const free = (s: Storage): void => {
    if (live.delete(s)) liveBytes -= s.bytes;
  };

  const build = (graph: Graph): Executable<Storage> => {
    const lowered = prepare(graph, { strided: (op) => op.name === 'dot', maxLoads: 7 });
    const launches = lowered.kernels.map((k) => launcher(gpu, cache, k, fallbacks));
    let times: number[] = [];
    const execute = async (inputs: readonly Storage[]): Promise<HostArray[]> => {
      const memory = new Map<Buffer, HostArray>();
      for (const [i, b] of lowered.inputs.entries()) memory.set(b, await inputs[i]!.values);
      const spent: number[] = [];
      for (const [i, k] of lowered.kernels.entries()) {
        const start = performance.now();
        const outputs = writesOf(k).map((b) => allocate(b.dtype, b.elements));
        await launches[i]!(
          readsOf(k).map((b) => memory.get(b)!),
          outputs,
        );
        for (const [o, b] of writesOf(k).entries()) memory.set(b, outputs[o]!);
        spent.push(performance.now() - start);
      }
      times = spent;
      return lowered.outputs.map((b) => memory.get(b)!);
    };
    const run = (inputs: readonly Storage[]): readonly Storage[] => {
      const all = execute(inputs);
      all.catch(() => undefined); // told to whoever loads a result
      for (const i of graph.donated) free(inputs[i]!);
      return lowered.outputs.map((b, i) => track({ values: all.then((r) => r[i]!), bytes: bytesOfBuffer(b) }));
    };
    return {
      run,
      async profile(inputs) {
        const results = run(inputs);
        await Promise.all(results.map((r) => r.values));
        return results;
      },
      workspaceBytes: 0,
      report: (modules) =>
        reportKernels(lowered.kernels, { modules, times }).map((r, i) =>
          'refused' in kernelOf(lowered.kernels[i]!) ? { ...r, detail: `${r.detail} (reference loops)` } : r,
        ),
      stages: () => kernelStages(lowered),
      release: () => undefined,
    };
  };

  return {
    name: 'gpujs',
    device: `gpu.js, mode ${mode}`,
    inProcess: true,
    supports: (dtype: DType) => dtype !== 'f64',
    hasKernel: () => false,
    store: (values) => track({ values: Promise.resolve(values.slice()), bytes: values.byteLength }),
    load: async (s) => (await s.values).slice(),
    free,
    build,
    memory: () => ({ liveBytes, peakBytes, storages: live.size }),
    get fallbacks() {
      return [...fallbacks].sort();
    },
    async close() {
      await gpu.destroy();
      unshare();
      if (mode === 'webgpu') await closeDevice();
    },
  };
};
