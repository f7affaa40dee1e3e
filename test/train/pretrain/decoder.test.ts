/** What the decoder's loss asks for beside likeness: the strength of fine structure, against its closed form. */
import { describe, expect, test } from 'vitest';
import { compile, cpuBackend, read, type Tensor } from '../../../core/index.ts';
import { strengths } from '../../../train/pretrain/decoder.ts';
import { CROP, toPictures } from '../../../train/pretrain/vae.ts';

const FLOOR = 1e-5;
const strengthsOf = compile(strengths, { backend: cpuBackend() });
const picture = (at: (x: number, y: number) => number) =>
  toPictures([Float32Array.from({ length: CROP * CROP }, (_, i) => at(i % CROP, Math.floor(i / CROP)))], CROP);
/** the fields of each: down by 2 and 3 pixels, then across by 2 and 3 */
const fieldsOf = (x: Tensor) => Promise.all(strengthsOf(x).map(async (s) => [...(await read(s))] as number[]));

describe('strength of fine structure', () => {
  test.each([
    [1 / 5, 0.3],
    [2 / 15, 1.1],
    [1 / 3, 0],
  ])('of waves of %f cycles a pixel across: 2a²·sin²(πkf) for a step of k, whatever the phase', async (f, phase) => {
    // 15 pixels of a field are whole waves; grey values 0…1 are −1…1 in pictures
    const x = picture((i) => 0.5 + 0.1 * Math.sin(2 * Math.PI * f * i + phase));
    const want = (k: number) => Math.sqrt(2 * 0.2 ** 2 * Math.sin(Math.PI * k * f) ** 2 + FLOOR);
    for (const [i, fields] of (await fieldsOf(x)).entries()) {
      expect(fields).toHaveLength(16);
      for (const s of fields) expect(s).toBeCloseTo([want(0), want(0), want(2), want(3)][i]!, 5);
    }
  });
  test('is told field by field', async () => {
    // stripes on the left half only
    const x = picture((i) => (i < CROP / 2 ? 0.5 + 0.1 * (i % 2 === 0 ? 1 : -1) * (i % 4 < 2 ? 1 : -1) : 0.5));
    const across = (await fieldsOf(x))[2]!;
    for (const row of [0, 1, 2, 3]) {
      expect(across[4 * row]).toBeGreaterThan(0.2);
      expect(across[4 * row + 3]).toBeCloseTo(Math.sqrt(FLOOR), 5);
    }
  });
  test('is twice as much at twice the contrast, but for the floor', async () => {
    const of = async (a: number) =>
      (await fieldsOf(picture((i, j) => 0.5 + a * Math.sin(i * 1.3) * Math.cos(j * 1.1)))).flat();
    const [weak, strong] = [await of(0.1), await of(0.2)];
    for (const [i, s] of strong.entries()) expect(s).toBeCloseTo(Math.sqrt(4 * (weak[i]! ** 2 - FLOOR) + FLOOR), 5);
  });
});
