/** `merge` with an adapter file whose scale is not in B: kohya's alpha. Our own files have it in B, so theirs must be tried. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { openBase } from '../../../models/io/base.ts';
import { writeSafetensors } from '../../../models/io/safetensors-write.ts';
import { toKohya } from '../../../models/names.ts';
import { main } from '../../../train/merge.ts';
import { linearsOf } from '../../../train/model/model.ts';
import { runCommand, writeCalmBase } from '../../support/commands.ts';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 });

const scratch = mkdtempSync(path.join(tmpdir(), 'selora-merge-scale-'));
const at = (name: string) => path.join(scratch, name);
beforeAll(() => writeCalmBase(at('base')));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const wave = (n: number, f: number) => Float32Array.from({ length: n }, (_, i) => Math.sin(f + 2.7 * i));
const weightOf = async (folder: string, name: string) =>
  (await openBase(at(folder))).parts.unet.weights.get(name)!.read();

test.each([
  ['alpha 1 at rank 2', 1, 0.5],
  ['alpha 6 at rank 2', 6, 3],
])('W + (alpha/rank)·up·down: %s', async (_name, alpha, scale) => {
  const [[module, [dOut, dIn]]] = linearsOf(await openBase(at('base'))).unet as unknown as Map<
    string,
    [number, number]
  >;
  const rank = 2;
  const [down, up] = [wave(rank * dIn, 1), wave(dOut * rank, 5)];
  const key = toKohya(`unet.${module}`);
  await writeSafetensors(
    at('a.safetensors'),
    new Map([
      [`${key}.lora_down.weight`, { dtype: 'F32', shape: [rank, dIn], data: down }],
      [`${key}.lora_up.weight`, { dtype: 'F32', shape: [dOut, rank], data: up }],
      [`${key}.alpha`, { dtype: 'F32', shape: [], data: Float32Array.of(alpha) }],
    ]),
    new Map(),
  );
  const out = `m${alpha}`;
  const args = ['--base', at('base'), '--adapter', at('a.safetensors'), '--out', at(out)];
  expect(await runCommand(main, args)).toMatchObject({ code: 0, stderr: '' });
  const [before, after] = [await weightOf('base', `${module}.weight`), await weightOf(out, `${module}.weight`)];
  for (let o = 0; o < dOut; o++)
    for (let i = 0; i < dIn; i++) {
      let sum = 0;
      for (let r = 0; r < rank; r++) sum += up[o * rank + r]! * down[r * dIn + i]!;
      const want = Number(before[o * dIn + i]) + scale * sum;
      expect(Math.abs(Number(after[o * dIn + i]) - want)).toBeLessThanOrEqual(2 ** -23 * (Math.abs(want) + 1));
    }
});
