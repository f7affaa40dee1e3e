/** Weights stored as halves against the golden numbers: within the derived tolerance, which is tight enough to notice. */
import { join } from 'node:path';
import { afterAll, describe, expect, test, vi } from 'vitest';
import { wasmBackend } from '../../../core/backends/wasm/index.ts';
import { cpuBackend } from '../../../core/index.ts';
import type { GoldenCase } from '../../../train/verify/golden.ts';
import { verifyHalfStorage } from '../../../train/verify/half-storage.ts';

vi.setConfig({ testTimeout: 120_000 });

const directory = join(import.meta.dirname, '../../golden');
const wasm = wasmBackend();
afterAll(() => wasm.close());

const all = async (cases: AsyncIterable<GoldenCase>): Promise<GoldenCase[]> => {
  const out: GoldenCase[] = [];
  for await (const c of cases) out.push(c);
  return out;
};

describe('f16 storage', () => {
  test('on wasm: as far from the golden numbers as rounding the weights takes the f64 reference, and f32 beside it', async () => {
    const cases = await all(verifyHalfStorage(directory, wasm));
    expect(cases.length).toBeGreaterThanOrEqual(5);
    for (const c of cases) {
      expect(c.error, c.case).toBeLessThanOrEqual(c.tolerance);
      // halves have 11 bits: the error is there, of about that size, and the tolerance no multiple of it
      expect(c.error, c.case).toBeGreaterThan(2 ** -17);
      expect(c.tolerance, c.case).toBeLessThan(2 ** -7);
      expect(c.tolerance / c.error, c.case).toBeLessThan(1.5);
    }
  });
  test('is nothing for the f64 reference', async () => {
    expect(await all(verifyHalfStorage(directory, cpuBackend()))).toEqual([]);
  });
});
