/**
 * One file and one line: the method of `toy.ts` trained by the loop of `npm run train`, and resumed to the bit; ranks grown
 * by the criterion of `../criteria/toy.ts`.
 */
import { cpSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test, vi } from 'vitest';
import { loadCheckpoint } from '../../../train/run/checkpoint.ts';
import { readRun } from '../../../train/run/read.ts';
import { main as train } from '../../../train/train.ts';
import { runCommand, writeCalmBase } from '../../support/commands.ts';
import { scratch } from '../../support/data-fixtures.ts';

// the line that `selora/methods/index.ts` would get
vi.mock('../../../selora/methods/index.ts', async (original) => {
  const { METHODS } = await original<{ METHODS: readonly unknown[] }>();
  return { METHODS: [...METHODS, (await import('./toy.ts')).toy] };
});
// and that of `selora/criteria/index.ts`
vi.mock('../../../selora/criteria/index.ts', async (original) => {
  const { CRITERIA } = await original<{ CRITERIA: readonly unknown[] }>();
  return { CRITERIA: [...CRITERIA, (await import('../criteria/toy.ts')).toy] };
});

const base = join(scratch, 'base');
const out = (name: string) => join(scratch, name);
beforeAll(() => writeCalmBase(base));
const run = (name: string, more: string) => {
  const line =
    '--resolution 16 --pairs 24 --steps 3 --batch 2 --validate-every 3 --samples 0 --obedience 0 --lr 1e-2 ' +
    `--validation-pairs 2 --targets **.attn1.to_q --backend wasm --threads 1 ${more}`;
  return runCommand(train, [...line.split(' '), '--base', base, '--out', out(name)]);
};

test('a few steps, a checkpoint, and from there the same bits again', async () => {
  const first = await run('whole', '--method toy --save-every 2');
  expect([first.code, first.code === 0 ? '' : first.stderr]).toEqual([0, '']);
  const whole = (await loadCheckpoint(out('whole')))!;
  const factors = [...whole.tensors].filter(([name]) => name.endsWith('|d') && !name.startsWith('best'));
  expect(factors.length).toBeGreaterThan(0);
  for (const [name, { data }] of factors)
    expect(
      data.some((x) => x !== 0),
      name,
    ).toBe(true);
  // what is kept beside them is in the checkpoint, drawn anew for every module
  const kept = [...whole.tensors].filter(([name]) => name.endsWith('|k') && !name.startsWith('best'));
  expect(new Set(kept.map(([, { data }]) => data.join())).size).toBe(factors.length);
  cpSync(out('whole'), out('again'), { recursive: true });
  for (const f of readdirSync(join(out('again'), 'checkpoints')))
    if (!f.includes('000002')) rmSync(join(out('again'), 'checkpoints', f));
  const again = await runCommand(train, ['--resume', out('again')]);
  expect([again.code, again.code === 0 ? '' : again.stderr]).toEqual([0, '']);
  expect((await loadCheckpoint(out('again')))!.tensors).toEqual(whole.tensors);
});

test('ranks grow by a criterion of its own', async () => {
  const { code, stderr } = await run('criterion', '--criterion toy --lambda 1.3 --test-every 1');
  expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
  const { expansions } = await readRun(out('criterion'));
  expect(new Set(expansions.map((e) => e.step))).toEqual(new Set([1, 2]));
  // d_in numbers more in A, d_out in B; the layers are square: 1 + d/(r·2d)
  for (const e of expansions)
    expect([e.ratio, e.expanded, e.rankAfter]).toEqual(e.step === 1 ? [1.5, true, 2] : [1.25, false, 2]);
});
