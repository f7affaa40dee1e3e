/**
 * The WebGPU backend: Dawn through the `webgpu` package. f32 only; sizes in uniforms, cached bind groups, one encoder,
 * one pass and one submit per step, no readback inside a step.
 */

import type { Backend } from '../../compile/backend.ts';
import { entryBytes, valuesAt } from '../../ir/dtype.ts';
import { createPool, readback, upload } from './buffers.ts';
import { closeDevice, type Gpu, openDevice, toldError } from './device.ts';
import { hasKernel } from './ops.ts';
import { createPipelines } from './pipelines.ts';
import { buildProgram, type Storage } from './program.ts';
import type { AdapterClass } from './target.ts';
import { createWorkspace } from './workspace.ts';

export interface WebgpuOptions {
  /** most bytes of device memory in use; software adapters never report out of memory themselves */
  readonly memoryBudget?: number;
  /** kernel family; default: what fits the adapter. For tests and measurements. */
  readonly kernels?: AdapterClass;
  /** false: no exchange of values between lanes. For tests and measurements. */
  readonly subgroups?: boolean;
  /** most bytes of one binding, a multiple of 256; default: what the adapter allows. For tests. */
  readonly bindingBytes?: number;
}

/** What this backend tells besides the common interface. */
export interface WebgpuBackend extends Backend<Storage> {
  /** pipelines built so far: a new shape of a known program must not add any */
  readonly pipelines: () => number;
}

/**
 * Opens the WebGPU backend. Close it, or the process may not end.
 * @throws NoAdapterError with what to install
 * @example const backend = await webgpuBackend(); const step = compile(f, { backend }); … await backend.close();
 */
export const webgpuBackend = async (options: WebgpuOptions = {}): Promise<WebgpuBackend> => {
  const opened = await openDevice();
  const gpu: Gpu = {
    ...opened,
    class: options.kernels ?? opened.class,
    subgroup: options.subgroups === false ? 0 : opened.subgroup,
    bindings: { ...opened.bindings, bytes: Math.min(options.bindingBytes ?? Infinity, opened.bindings.bytes) },
  };
  const pool = createPool(gpu, options.memoryBudget);
  const pipelines = createPipelines(gpu);
  const workspace = createWorkspace(pool);
  let live = 0;
  /** counts storages as they come and go */
  const counted = (storages: readonly Storage[]): readonly Storage[] => {
    live += storages.length;
    return storages;
  };
  const told = (error: unknown): never => {
    throw toldError(error, gpu);
  };
  const attempt = <T>(work: () => T): T => {
    try {
      return work();
    } catch (error) {
      return told(error);
    }
  };
  return {
    name: 'webgpu',
    device: gpu.adapter,
    inProcess: opened.class === 'cpu',
    supports: (dtype) => dtype !== 'f64',
    hasKernel,
    store(values, dtype) {
      return attempt(() => {
        const buffer = pool.acquire(values.byteLength);
        upload(gpu, buffer, values);
        return counted([{ buffer, dtype, entries: values.length }])[0]!;
      });
    },
    async load({ buffer, dtype, entries }) {
      const wanted = [{ buffer, bytes: Math.ceil(entryBytes(dtype, entries) / 4) * 4 }];
      const [bytes] = await readback(gpu, wanted).catch(told);
      return valuesAt(dtype, bytes!, 0, entries);
    },
    free({ buffer }) {
      live--;
      pool.release(buffer);
    },
    build(graph) {
      const program = attempt(() => buildProgram({ gpu, pool, pipelines, workspace }, graph));
      return {
        ...program,
        run(inputs) {
          live -= graph.donated.size;
          return attempt(() => counted(program.run(inputs)));
        },
        async profile(inputs) {
          live -= graph.donated.size;
          return counted(await program.profile(inputs).catch(told));
        },
      };
    },
    memory: () => {
      const { liveBytes, peakBytes } = pool.stats();
      return { liveBytes, peakBytes, storages: live };
    },
    fallbacks: [],
    pipelines: pipelines.built,
    async close() {
      pool.trim();
      await closeDevice();
    },
  };
};
