/** Runs single WebGPU kernels on host arrays, for the kernel tests. */

import { createPool, readback, upload } from '../core/backends/webgpu/buffers.ts';
import type { Gpu } from '../core/backends/webgpu/device.ts';
import type { Kernel } from '../core/backends/webgpu/kernel.ts';
import { createPipelines } from '../core/backends/webgpu/pipelines.ts';
import type { HostArray } from '../core/ir/dtype.ts';

export interface Runner {
  /** results as raw 32-bit words, `elements[o]` of output o */
  run(kernel: Kernel, inputs: readonly HostArray[], elements: readonly number[]): Promise<ArrayBuffer[]>;
  built(): number;
}

export const createRunner = (gpu: Gpu): Runner => {
  const pool = createPool(gpu);
  const pipelines = createPipelines(gpu);
  const { device } = gpu;
  return {
    built: pipelines.built,
    async run(kernel, inputs, elements) {
      if (inputs.length !== kernel.reads || elements.length !== kernel.writes)
        throw new Error(`${kernel.name} binds ${kernel.reads} inputs and ${kernel.writes} outputs`);
      const uniform = device.createBuffer({
        size: kernel.params.byteLength,
        usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
      });
      device.queue.writeBuffer(uniform, 0, kernel.params.buffer as ArrayBuffer);
      const buffers = [...inputs.map((x) => x.byteLength), ...elements.map((n) => 4 * n)].map((bytes) =>
        pool.acquire(bytes),
      );
      for (const [i, x] of inputs.entries()) upload(gpu, buffers[i]!, x);
      const group = device.createBindGroup({
        layout: pipelines.layout(kernel.reads, kernel.writes),
        entries: [uniform, ...buffers].map((buffer, binding) => ({ binding, resource: { buffer } })),
      });
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipelines.get(kernel));
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(...kernel.groups);
      pass.end();
      device.queue.submit([encoder.finish()]);
      const outputs = buffers.slice(inputs.length);
      const result = await readback(
        gpu,
        outputs.map((buffer, o) => ({ buffer, bytes: 4 * elements[o]! })),
      );
      for (const b of buffers) pool.release(b);
      uniform.destroy();
      return result;
    },
  };
};

/** Deterministic values in [lo, hi): the fractional parts of multiples of the golden ratio, so no two are equal. */
export const values = (n: number, lo = -2, hi = 2, seed = 0): Float32Array =>
  Float32Array.from(
    { length: n },
    (_, i) => lo + (hi - lo) * (((i + 1) * 0.6180339887498949 + seed * 0.7548776662) % 1),
  );
