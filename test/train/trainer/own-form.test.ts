/** Runs of methods whose file is larger than what they train: what is told of their size is what was trained. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test, vi } from 'vitest';
import { readAdapter } from '../../../models/io/adapter-file.ts';
import { MEASURES } from '../../../train/experiment/measures.ts';
import { readRun } from '../../../train/run/read.ts';
import { main as train } from '../../../train/train.ts';
import { runCommand, writeCalmBase } from '../../support/commands.ts';
import { scratch } from '../../support/data-fixtures.ts';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 });

const at = (name: string) => join(scratch, name);
beforeAll(() => writeCalmBase(at('base')));

test.each([
  // r numbers between A and B, one for each output
  { method: 'vera', rank: 3, of: (_dIn: number, dOut: number) => 3 + dOut, lycoris: false },
  // A, B and a length for each output
  { method: 'dora', rank: 1, of: (dIn: number, dOut: number) => dIn + 2 * dOut, lycoris: true },
])('$method', async ({ method, rank, of, lycoris }) => {
  const out = at(method);
  const { code, stdout, stderr } = await runCommand(train, [
    ...['--out', out, '--base', at('base'), '--method', method, '--rank', `${rank}`, '--targets', '**.attn1.to_q'],
    ...'--backend wasm --threads 1 --resolution 16 --pairs 24 --steps 2 --batch 2 --samples 0'.split(' '),
    ...'--obedience 0 --validation-pairs 2'.split(' '),
  ]);
  expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
  const { modules } = await readAdapter(join(out, 'adapter.safetensors'));
  const want = [...modules.values()].reduce((n, { dIn, dOut }) => n + of(dIn, dOut), 0);
  expect(modules.size).toBeGreaterThan(0);
  expect(stdout).toContain(`, ${want} parameters\n`);
  const run = await readRun(out);
  expect(MEASURES.find(({ id }) => id === 'parameters')!.of(run)).toBe(want);
  expect(existsSync(join(out, 'lycoris.safetensors'))).toBe(lycoris);
});
