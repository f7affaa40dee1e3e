/** `--base FILE --base-config DIR`: a run on a single file that is not Stable Diffusion 1.5's size. */
import { renameSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test, vi } from 'vitest';
import { readAdapter } from '../../../models/io/adapter-file.ts';
import { openBase } from '../../../models/io/base.ts';
import { type TensorOut, writeSafetensors } from '../../../models/io/safetensors-write.ts';
import { ldmNames, PARTS } from '../../../models/names.ts';
import { main as train } from '../../../train/train.ts';
import { runCommand, writeCalmBase } from '../../support/commands.ts';
import { scratch } from '../../support/data-fixtures.ts';
import { longTest } from '../../support/long.ts';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 });

const at = (name: string) => join(scratch, name);
const run = (out: string, ...more: readonly string[]) =>
  runCommand(train, [
    ...[
      '--method',
      'lora',
      '--rank',
      '1',
      '--out',
      at(out),
      '--backend',
      'wasm',
      '--threads',
      '1',
      '--targets',
      '**.attn1.to_q',
      '--resolution',
      '16',
    ],
    ...'--pairs 24 --steps 2 --batch 2 --samples 0 --obedience 0 --validation-pairs 2'.split(' '),
    ...more,
  ]);

beforeAll(async () => {
  await writeCalmBase(at('base'));
  const base = await openBase(at('base'));
  const names = ldmNames(base.configs);
  const tensors = new Map<string, TensorOut>();
  for (const part of PARTS)
    for (const [name, { shape, read }] of base.parts[part].weights) {
      tensors.set(names.toLdm(part, name)!, { dtype: 'F32', shape, data: await read() });
    }
  await writeSafetensors(at('single.safetensors'), tensors);
});

longTest('it learns what a run on the folder learns, and is found again where its configurations went', async () => {
  const folder = await run('on-folder', '--base', at('base'));
  expect([folder.code, folder.code === 0 ? '' : folder.stderr]).toEqual([0, '']);
  const single = await run('on-file', '--base', at('single.safetensors'), '--base-config', at('base'));
  expect([single.code, single.code === 0 ? '' : single.stderr]).toEqual([0, '']);
  const [a, b] = await Promise.all(
    ['on-folder', 'on-file'].map((out) => readAdapter(join(at(out), 'adapter.safetensors'))),
  );
  expect(b!.modules).toEqual(a!.modules);

  renameSync(at('base'), at('moved'));
  const lost = await runCommand(train, ['--resume', at('on-file'), '--steps', '3']);
  expect(lost.code).toBe(1);
  expect(lost.stderr).toMatch(/base: no such file or folder; where it lies now is told by --base-config\n$/);
  const found = await runCommand(train, ['--resume', at('on-file'), '--steps', '3', '--base-config', at('moved')]);
  expect([found.code, found.code === 0 ? '' : found.stderr]).toEqual([0, '']);
});

test('without them it is taken for Stable Diffusion 1.5, and the line says where it is none', async () => {
  const { code, stderr } = await run('none', '--base', at('single.safetensors'));
  expect(code).toBe(1);
  expect(stderr).toMatch(/single\.safetensors/);
  expect(stderr.trim().split('\n')).toHaveLength(1);
});
