/** The numbers PyTorch computed, on WebGPU in f32: single operations with their gradients, autoencoder and text encoder. */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { type WebgpuBackend, webgpuBackend } from '../../../core/backends/webgpu/index.ts';
import type { Backend } from '../../../core/index.ts';
import { verifyModels } from '../../../train/verify/models.ts';
import { verifyOps } from '../../../train/verify/ops/index.ts';
import { tally } from '../../support/golden-cases.ts';

// software drivers build pipelines slowly when the machine is busy
vi.setConfig({ testTimeout: 600_000, hookTimeout: 60_000 });

const directory = join(import.meta.dirname, '../../golden');
let backend: WebgpuBackend;
beforeAll(async () => {
  backend = await webgpuBackend();
});
afterAll(() => backend.close());

test('single operations and their gradients', async () => {
  const { count, failed } = await tally(verifyOps(directory, backend as Backend));
  expect(failed).toEqual([]);
  expect(count).toBe(221);
});

test('models: outputs and gradients', async () => {
  const { count, failed } = await tally(verifyModels(directory, backend as Backend));
  expect(failed).toEqual([]);
  expect(count).toBe(25);
});
