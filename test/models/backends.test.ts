/** The models on the fast backends: PyTorch's numbers in f32, and a whole U-Net against the reference backend in f64. */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { wasmBackend } from '../../core/backends/wasm/index.ts';
import { webgpuBackend } from '../../core/backends/webgpu/index.ts';
import {
  type Backend,
  compile,
  cpuBackend,
  leaves,
  mapTree,
  read,
  type Tensor,
  tensor,
  valueAndGrad,
} from '../../core/index.ts';
import { parseConfig, unetSchema } from '../../models/config.ts';
import { type UNet, unet, unetSpec } from '../../models/unet/index.ts';
import { init, mse } from '../../nn/index.ts';
import { distance, largest } from '../../train/verify/distances.ts';
import { verifyModels } from '../../train/verify/models.ts';
import { verifyOps } from '../../train/verify/ops/index.ts';
import { tally } from '../support/golden-cases.ts';
import { rng } from '../support/gradcheck.ts';
import { longRows } from '../support/long.ts';

const golden = join(import.meta.dirname, '../golden');
const config = parseConfig(
  unetSchema,
  {
    block_out_channels: [16, 24],
    down_block_types: ['CrossAttnDownBlock2D', 'DownBlock2D'],
    up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D'],
    layers_per_block: 1,
    attention_head_dim: 2,
    norm_num_groups: 8,
    cross_attention_dim: 12,
  },
  'small',
);

const float32 = init(unetSpec(config), 9);
const hostOf = new Map<Tensor, ArrayLike<number>>();
for (const p of leaves<Tensor>(float32)) hostOf.set(p, await read(p));
const reference = gradients(cpuBackend(), 'f64', false);

/** Loss and gradients by every parameter and input of a small U-Net with odd sides, on one backend. */
async function gradients(
  backend: Backend,
  dtype: 'f32' | 'f64',
  checkpointBlocks: boolean,
): Promise<ArrayLike<number>[]> {
  const random = rng(5);
  const draw = (...shape: number[]) =>
    tensor(
      Array.from({ length: shape.reduce((p, n) => p * n, 1) }, () => Math.fround(random() * 2 - 1)),
      shape,
      dtype,
    );
  const [x, context, target] = [draw(2, 7, 5, 4), draw(2, 9, 12), draw(2, 7, 5, 4)];
  const t = tensor(Int32Array.of(7, 981));
  const step = compile(
    (p: { params: UNet; x: Tensor; context: Tensor }, target: Tensor, t: Tensor) =>
      valueAndGrad((a: typeof p) => mse(unet(a.params, config, a.x, t, a.context, { checkpointBlocks }), target))(p),
    { backend },
  );
  // the same f32 numbers on both sides: f64 parameters would differ by their rounding
  const params = mapTree((p: Tensor) => tensor(Array.from(hostOf.get(p)!), p.shape, dtype), float32) as UNet;
  const [loss, g] = step({ params, x, context }, target, t);
  return Promise.all([loss, ...leaves<Tensor>(g)].map((value) => read(value)));
}

const backends = [
  ['wasm', async () => wasmBackend()],
  ['webgpu', () => webgpuBackend()],
] as const satisfies readonly (readonly [string, () => Promise<Backend>])[];

describe.each(longRows(backends, ([name]) => name !== 'webgpu'))('%s', (_name, open) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await open();
  }, 60_000);
  afterAll(() => backend.close());

  test('84 cases of single operations and their gradients, within ten times float32’s own error', async () => {
    const { count, failed } = await tally(verifyOps(golden, backend));
    expect(failed).toEqual([]);
    expect(count).toBe(221);
  }, 120_000);

  test('autoencoder and text encoder: outputs and gradients', async () => {
    const { count, failed } = await tally(verifyModels(golden, backend));
    expect(failed).toEqual([]);
    expect(count).toBe(25);
  }, 120_000);

  test.each([false, true])(
    'a U-Net with its gradients is the f64 reference’s (checkpointed blocks: %s)',
    async (checkpointBlocks) => {
      const got = await gradients(backend, 'f32', checkpointBlocks);
      const want = await reference;
      expect(got).toHaveLength(want.length);
      // a parameter whose gradient is nearly zero carries the rounding of the large ones
      const whole = Math.max(...want.slice(1).map(largest));
      for (const [i, expected] of want.entries()) {
        const scale = Math.max(largest(expected), 1e-2 * whole);
        expect(distance(got[i]!, expected) / scale, `result ${i}`).toBeLessThan(2e-5);
      }
    },
    120_000,
  );
});
