/** Compute pipelines by WGSL text. Building one takes ~20 ms, so each text is built once per device. */
import type { Gpu } from './device.ts';
import type { Kernel } from './kernel.ts';

export interface Pipelines {
  /** the pipeline of a kernel, built when its text is new */
  get(kernel: Kernel): GPUComputePipeline;
  layout(reads: number, writes: number): GPUBindGroupLayout;
  /** how many pipelines were built so far */
  built(): number;
}

export const createPipelines = ({ device }: Gpu): Pipelines => {
  const layouts = new Map<string, GPUBindGroupLayout>();
  const pipelines = new Map<string, GPUComputePipeline>();

  const layout = (reads: number, writes: number): GPUBindGroupLayout => {
    const key = `${reads}/${writes}`;
    let found = layouts.get(key);
    if (!found) {
      const entry = (binding: number, type: GPUBufferBindingType) => ({
        binding,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type },
      });
      found = device.createBindGroupLayout({
        entries: [
          entry(0, 'uniform'),
          ...Array.from({ length: reads }, (_, i) => entry(1 + i, 'read-only-storage')),
          ...Array.from({ length: writes }, (_, i) => entry(1 + reads + i, 'storage')),
        ],
      });
      layouts.set(key, found);
    }
    return found;
  };
  const descriptor = (kernel: Kernel): GPUComputePipelineDescriptor => ({
    label: kernel.name,
    layout: device.createPipelineLayout({ bindGroupLayouts: [layout(kernel.reads, kernel.writes)] }),
    compute: { module: device.createShaderModule({ label: kernel.name, code: kernel.code }), entryPoint: 'main' },
  });

  return {
    layout,
    get(kernel) {
      let found = pipelines.get(kernel.code);
      if (!found) {
        found = device.createComputePipeline(descriptor(kernel));
        pipelines.set(kernel.code, found);
      }
      return found;
    },
    built: () => pipelines.size,
  };
};
