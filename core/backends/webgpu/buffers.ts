/**
 * Storage buffers by size class. Creating a buffer is cheap, touching fresh memory is not (10 ms for 16 MiB on a software
 * driver), so freed buffers wait in a pool. Every byte is counted: software adapters never report out of memory.
 */

import type { HostArray } from '../../ir/dtype.ts';
import { DeviceLimitError, LostDeviceError } from '../../ir/errors.ts';
import type { Gpu } from './device.ts';

export interface BufferStats {
  /** bytes and number of buffers handed out */
  readonly liveBytes: number;
  readonly liveBuffers: number;
  /** bytes waiting for reuse */
  readonly pooledBytes: number;
  /** the most that was ever allocated (live + pooled) */
  readonly peakBytes: number;
}

export interface BufferPool {
  /** a storage buffer of at least `bytes` bytes; contents are undefined */
  acquire(bytes: number): GPUBuffer;
  release(buffer: GPUBuffer): void;
  stats(): BufferStats;
  /** destroys what waits for reuse */
  trim(): void;
}

const MiB = 2 ** 20;

/** Rounds up to a size class: 256-byte steps, then four classes per power of two (at most 25% waste). */
export const sizeClass = (bytes: number): number => {
  if (bytes <= 1024) return Math.max(256, Math.ceil(bytes / 256) * 256);
  const step = 2 ** (Math.floor(Math.log2(bytes - 1)) - 2);
  return Math.ceil(bytes / step) * step;
};

const mib = (bytes: number): string => `${(bytes / MiB).toFixed(1)} MiB`;

/** @throws DeviceLimitError naming both numbers for a tensor that no buffer of the device holds */
export const checkSize = (bytes: number, { maxBufferSize: most }: Gpu['limits']): void => {
  if (bytes > most)
    throw new DeviceLimitError(
      `one tensor needs ${mib(bytes)}, a buffer of this WebGPU adapter holds at most ${mib(most)}`,
    );
};

/**
 * @param budget most bytes the pool may hold at once, live and waiting together
 * @throws DeviceLimitError naming both numbers when a buffer fits neither the device nor the budget
 */
export const createPool = ({ device, limits }: Gpu, budget = Number.POSITIVE_INFINITY): BufferPool => {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const waiting = new Map<number, GPUBuffer[]>();
  const live = new Set<GPUBuffer>();
  let liveBytes = 0;
  let pooledBytes = 0;
  let peakBytes = 0;

  const trim = () => {
    for (const list of waiting.values()) for (const buffer of list) buffer.destroy();
    waiting.clear();
    pooledBytes = 0;
  };

  return {
    acquire(bytes) {
      checkSize(bytes, limits);
      const most = limits.maxBufferSize;
      const size = Math.min(sizeClass(bytes), most - (most % 4));
      const reused = waiting.get(size)?.pop();
      if (reused) pooledBytes -= size;
      else {
        if (liveBytes + pooledBytes + size > budget) trim();
        if (liveBytes + size > budget)
          throw new DeviceLimitError(
            `${mib(liveBytes)} in use and ${mib(size)} more wanted: over the budget of ${mib(budget)}`,
          );
      }
      const buffer = reused ?? device.createBuffer({ size, usage });
      live.add(buffer);
      liveBytes += size;
      peakBytes = Math.max(peakBytes, liveBytes + pooledBytes);
      return buffer;
    },
    release(buffer) {
      if (!live.delete(buffer)) return;
      liveBytes -= buffer.size;
      pooledBytes += buffer.size;
      const list = waiting.get(buffer.size);
      if (list) list.push(buffer);
      else waiting.set(buffer.size, [buffer]);
    },
    stats: () => ({ liveBytes, liveBuffers: live.size, pooledBytes, peakBytes }),
    trim,
  };
};

/** Copies host values into the start of a buffer. Ordered with submits; returns before the copy is done. */
export const upload = (gpu: Gpu, buffer: GPUBuffer, data: HostArray): void => {
  const bytes = new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
  // the queue writes whole words; an odd number of halves ends in the middle of one
  const whole = data.byteLength - (data.byteLength % 4);
  if (whole > 0) gpu.device.queue.writeBuffer(buffer, 0, bytes.subarray(0, whole));
  if (whole < data.byteLength) {
    const last = new Uint8Array(4);
    last.set(bytes.subarray(whole));
    gpu.device.queue.writeBuffer(buffer, whole, last);
  }
};

/**
 * Reads the first `bytes[i]` bytes of each buffer in one round trip; waits for all work submitted before.
 * @throws LostDeviceError when the device went away, DeviceError when an earlier call was refused
 */
export const readback = async (
  gpu: Gpu,
  wanted: readonly { readonly buffer: GPUBuffer; readonly bytes: number }[],
): Promise<ArrayBuffer[]> => {
  gpu.check();
  const total = wanted.reduce((sum, { bytes }) => sum + bytes, 0);
  if (total === 0) return wanted.map(() => new ArrayBuffer(0));
  const staging = gpu.device.createBuffer({ size: total, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const encoder = gpu.device.createCommandEncoder();
  let at = 0;
  for (const { buffer, bytes } of wanted) {
    if (bytes > 0) encoder.copyBufferToBuffer(buffer, 0, staging, at, bytes);
    at += bytes;
  }
  gpu.device.queue.submit([encoder.finish()]);
  try {
    await staging.mapAsync(GPUMapMode.READ);
  } catch (error) {
    // after a loss only this call rejects: everything before it "succeeded"
    await Promise.resolve();
    gpu.check();
    throw new LostDeviceError(
      `reading from the WebGPU device failed: ${error instanceof Error ? error.message : error}`,
    );
  }
  gpu.check();
  const all = staging.getMappedRange();
  at = 0;
  const parts = wanted.map(({ bytes }) => {
    at += bytes;
    return all.slice(at - bytes, at);
  });
  staging.unmap();
  staging.destroy();
  return parts;
};
