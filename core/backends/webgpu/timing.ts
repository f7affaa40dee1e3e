/** Times of single kernels: timestamps written by the device, or the host's clock around single submits. */
import { readback } from './buffers.ts';
import type { Gpu } from './device.ts';

type Encode = (pass: GPUComputePassEncoder) => void;

/** timestamp queries of one set; WebGPU allows 4096 */
const PER_SET = 2048;

/** Runs each step in a pass of its own and returns milliseconds, in order. Slower than a replay: for profiles only. */
export const timedPasses = async (gpu: Gpu, steps: readonly Encode[]): Promise<number[]> => {
  const times: number[] = [];
  if (gpu.timestamps)
    for (let at = 0; at < steps.length; at += PER_SET)
      times.push(...(await byTimestamps(gpu, steps.slice(at, at + PER_SET))));
  else for (const step of steps) times.push(await byClock(gpu, step));
  return times;
};

const byClock = async ({ device }: Gpu, step: Encode): Promise<number> => {
  await device.queue.onSubmittedWorkDone();
  const start = performance.now();
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  step(pass);
  pass.end();
  device.queue.submit([encoder.finish()]);
  await device.queue.onSubmittedWorkDone();
  return performance.now() - start;
};

const byTimestamps = async (gpu: Gpu, steps: readonly Encode[]): Promise<number[]> => {
  const { device } = gpu;
  const querySet = device.createQuerySet({ type: 'timestamp', count: 2 * steps.length });
  const resolved = device.createBuffer({
    size: 16 * steps.length,
    usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
  });
  const encoder = device.createCommandEncoder();
  for (const [i, step] of steps.entries()) {
    const pass = encoder.beginComputePass({
      timestampWrites: { querySet, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 },
    });
    step(pass);
    pass.end();
  }
  encoder.resolveQuerySet(querySet, 0, 2 * steps.length, resolved, 0);
  device.queue.submit([encoder.finish()]);
  const [bytes] = await readback(gpu, [{ buffer: resolved, bytes: 16 * steps.length }]);
  querySet.destroy();
  resolved.destroy();
  const ns = new BigUint64Array(bytes!);
  return steps.map((_, i) => Number(ns[2 * i + 1]! - ns[2 * i]!) / 1e6);
};
