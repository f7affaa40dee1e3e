/** Classifier-free guidance: which half is which, by its two ends: 0 is the empty text's picture, 1 the text's own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { cpuBackend } from '../../../core/index.ts';
import { guide } from '../../../models/schedulers/index.ts';
import { loadPipeline } from '../../../train/model/model.ts';
import type { Pipeline } from '../../../train/model/pipeline.ts';
import { createGenerator, type SampleOptions } from '../../../train/model/sample.ts';
import { writeCalmBase } from '../../support/commands.ts';

vi.setConfig({ testTimeout: 180_000, hookTimeout: 60_000 });

test('uncond + g·(cond − uncond)', () => {
  const [uncond, cond] = [Float32Array.of(1, -2, 0.5), Float32Array.of(3, 2, 0.5)];
  expect(Array.from(guide(uncond, cond, 3))).toEqual([7, 10, 0.5]);
  expect(Array.from(guide(uncond, cond, 1))).toEqual([3, 2, 0.5]);
  expect(Array.from(guide(uncond, cond, 0))).toEqual([1, -2, 0.5]);
});

describe('a picture', () => {
  const scratch = mkdtempSync(path.join(tmpdir(), 'selora-guidance-'));
  const backend = cpuBackend();
  let pipeline: Pipeline;
  beforeAll(async () => {
    await writeCalmBase(path.join(scratch, 'base'));
    ({ pipeline } = await loadPipeline(path.join(scratch, 'base'), backend));
  });
  afterAll(() => rmSync(scratch, { recursive: true, force: true }));

  test('at guidance 0 is that of the empty text, just above 1 that of its own text', async () => {
    const generate = createGenerator(backend, pipeline.configs);
    const draw = async (prompts: readonly string[], guidance: number) => {
      const options: SampleOptions = {
        steps: 2,
        guidance,
        sampler: 'ddim',
        seeds: prompts.map(() => 3),
        height: 16,
        width: 16,
      };
      return generate(pipeline, prompts, options);
    };
    const most = (a: Float32Array, b: Float32Array) => a.reduce((m, v, i) => Math.max(m, Math.abs(v - b[i]!)), 0);
    const texts = ['the left lung', 'a right'];
    const [none, own, zero, one] = [
      await draw(['', ''], 1),
      await draw(texts, 1),
      await draw(texts, 0),
      await draw(texts, 1 + 1e-6),
    ];
    for (const i of [0, 1]) {
      const apart = most(none[i]!, own[i]!);
      expect(apart).toBeGreaterThan(1e-4);
      expect(most(zero[i]!, none[i]!)).toBeLessThan(apart / 100);
      expect(most(one[i]!, own[i]!)).toBeLessThan(apart / 100);
    }
  });
});
