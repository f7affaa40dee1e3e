/** What a WebGPU device cannot hold is refused with both numbers, and a device that is lost is one clear error. */
import { expect, test } from 'vitest';
import { createPool } from '../../../core/backends/webgpu/buffers.ts';
import { closeDevice, openDevice } from '../../../core/backends/webgpu/device.ts';
import { webgpuBackend } from '../../../core/backends/webgpu/index.ts';
import { LostDeviceError } from '../../../core/index.ts';

test('a tensor over the limit of the device or of the budget is refused with both numbers', async () => {
  const gpu = await openDevice();
  const most = (gpu.limits.maxBufferSize / 2 ** 20).toFixed(1);
  expect(() => createPool(gpu).acquire(2 ** 40)).toThrow(
    `one tensor needs 1048576.0 MiB, a buffer of this WebGPU adapter holds at most ${most} MiB`,
  );
  const small = await webgpuBackend({ memoryBudget: 4096 });
  expect(() => small.store(new Float32Array(500_000), 'f32')).toThrow(
    /^0\.0 MiB in use and 2\.\d MiB more wanted: over the budget of 0\.0 MiB$/,
  );
});

test('a lost device is one clear error, and a new one works', async () => {
  const lost = await webgpuBackend();
  const x = lost.store(new Float32Array([1, 2]), 'f32');
  (await openDevice()).device.destroy();
  await expect(lost.load(x)).rejects.toThrow(LostDeviceError);
  await closeDevice();
  const again = await webgpuBackend();
  expect([...(await again.load(again.store(new Float32Array([3, 4]), 'f32')))]).toEqual([3, 4]);
  await again.close();
});
