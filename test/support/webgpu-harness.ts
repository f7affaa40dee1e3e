/** Runs single WebGPU kernels on host arrays, for the kernel tests. */

import { createPool, readback, upload } from '../../core/backends/webgpu/buffers.ts';
import type { Gpu } from '../../core/backends/webgpu/device.ts';
import { type Kernel, type Recipe, single } from '../../core/backends/webgpu/kernel.ts';
import { createPipelines } from '../../core/backends/webgpu/pipelines.ts';
import type { HostArray } from '../../core/ir/dtype.ts';

export interface Runner {
  /** results as raw 32-bit words, `elements[o]` of output o */
  run(kernel: Kernel, inputs: readonly HostArray[], elements: readonly number[]): Promise<ArrayBuffer[]>;
  recipe(recipe: Recipe, inputs: readonly HostArray[], elements: readonly number[]): Promise<ArrayBuffer[]>;
  built(): number;
}

export const createRunner = (gpu: Gpu): Runner => {
  const pool = createPool(gpu);
  const pipelines = createPipelines(gpu);
  const { device } = gpu;
  const recipe: Runner['recipe'] = async ({ launches, scratch }, inputs, elements) => {
    const acquire = (bytes: readonly number[]) => bytes.map((b) => pool.acquire(b));
    const buffers = {
      input: acquire(inputs.map((x) => x.byteLength)),
      output: acquire(elements.map((n) => 4 * n)),
      scratch: acquire(scratch),
    };
    for (const [i, x] of inputs.entries()) upload(gpu, buffers.input[i]!, x);
    const uniforms: GPUBuffer[] = [];
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const { kernel, operands } of launches) {
      if (operands.length !== kernel.reads + kernel.writes) throw new Error(`${kernel.name}: wrong number of operands`);
      const uniform = device.createBuffer({
        size: kernel.params.byteLength,
        usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
      });
      uniforms.push(uniform);
      device.queue.writeBuffer(uniform, 0, kernel.params.buffer as ArrayBuffer);
      const bound = operands.map((o) => buffers[o.from][o.index]!);
      const group = device.createBindGroup({
        layout: pipelines.layout(kernel.reads, kernel.writes),
        entries: [uniform, ...bound].map((buffer, binding) => ({ binding, resource: { buffer } })),
      });
      pass.setPipeline(pipelines.get(kernel));
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(...kernel.groups);
    }
    pass.end();
    device.queue.submit([encoder.finish()]);
    const result = await readback(
      gpu,
      buffers.output.map((buffer, o) => ({ buffer, bytes: 4 * elements[o]! })),
    );
    for (const b of Object.values(buffers).flat()) pool.release(b);
    for (const u of uniforms) u.destroy();
    return result;
  };
  return {
    built: pipelines.built,
    recipe,
    run: (kernel, inputs, elements) => recipe(single(kernel), inputs, elements),
  };
};

/** Deterministic values in [lo, hi): the fractional parts of multiples of the golden ratio, so no two are equal. */
export const values = (n: number, lo = -2, hi = 2, seed = 0): Float32Array =>
  Float32Array.from(
    { length: n },
    (_, i) => lo + (hi - lo) * (((i + 1) * 0.6180339887498949 + seed * 0.7548776662) % 1),
  );
