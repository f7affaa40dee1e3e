/** What PyTorch computed: single operations, the autoencoder, the text encoder, SD 1.5's names and shapes. */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { cpuBackend } from '../../core/index.ts';
import { readConfigs } from '../../models/io/base.ts';
import { linearPaths } from '../../models/spec.ts';
import { unetSpec } from '../../models/unet/index.ts';
import { verifyModels } from '../../train/verify/models.ts';
import { verifyOps } from '../../train/verify/ops/index.ts';
import { verifyShapes } from '../../train/verify/parameter-shapes.ts';
import { tally } from '../support/golden-cases.ts';

const directory = join(import.meta.dirname, '../golden');
const backend = cpuBackend();

describe('golden numbers on the reference backend, in f64', () => {
  test('84 cases of single operations and their gradients', async () => {
    const { count, failed } = await tally(verifyOps(directory, backend));
    expect(failed).toEqual([]);
    expect(count).toBe(221); // 80 cases with output and gradients, 4 without gradients
  });

  test('autoencoder and text encoder: outputs, gradients by inputs and by every parameter', async () => {
    const { count, failed } = await tally(verifyModels(directory, backend));
    expect(failed).toEqual([]);
    expect(count).toBe(25);
  });

  test("the true SD 1.5 configurations build its parameters' names and shapes and its 184 + 72 linears", async () => {
    const { count, failed } = await tally(verifyShapes(directory));
    expect(failed).toEqual([]);
    expect(count).toBe(9);
    const { configs } = await readConfigs(join(directory, 'tiny-sd'));
    expect(linearPaths(unetSpec(configs.unet))).toHaveLength(116);
  });
});
