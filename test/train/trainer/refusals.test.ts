/** What a person mistypes is told before the run has a folder, or hours of work behind it. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { readComparison } from '../../../train/run/read.ts';
import { main as train } from '../../../train/train.ts';
import { runCommand, writeCalmBase } from '../../support/commands.ts';
import { scratch } from '../../support/data-fixtures.ts';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 120_000 });

const base = join(scratch, 'base');
const out = join(scratch, 'refused');
const words = (text: string) => text.split(' ').filter((x) => x !== '');
const refused = async (args: readonly string[]): Promise<string> => {
  const { code, stderr } = await runCommand(train, args);
  expect(code).toBe(1);
  expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  return stderr;
};
beforeAll(() => writeCalmBase(base));

describe('before a folder is made', () => {
  test.each([
    ['--targets **.to_w', /^--targets \*\*\.to_w: matches no linear/],
    ['--ranks nope=3', /^--ranks nope=3: matches none of the adapted linears/],
    ['--ranks **=4000', /^--ranks \*\*=4000: expected pattern=rank/],
    ['--budget 3 --rank 2', /^--budget 3: the adapters begin with a total rank of \d+, expected more/],
    ['--resolution 15', /^--resolution 15: expected a multiple of 2/],
    ['--compare no-such-run', /^no-such-run\/config\.json: no such file/],
    ['--steps 3 --epochs 1', /^--steps and --epochs exclude each other/],
  ])('%s', async (more, message) => {
    const args = ['--pairs', '20', '--base', base, '--out', out, '--backend', 'cpu', '--steps', '3'];
    expect(await refused([...args, ...words(more)])).toMatch(message);
    expect(existsSync(out)).toBe(false);
  });
});

test('before anything is trained: a sampler that cannot draw with this base', async () => {
  const dark = join(scratch, 'dark');
  await writeCalmBase(dark);
  const file = join(dark, 'scheduler/scheduler_config.json');
  const schedule = {
    ...JSON.parse(readFileSync(file, 'utf8')),
    prediction_type: 'v_prediction',
    set_alpha_to_one: true,
  };
  writeFileSync(file, JSON.stringify({ ...schedule, rescale_betas_zero_snr: true, timestep_spacing: 'trailing' }));
  const args = ['--pairs', '20', '--base', dark, '--out', out, '--backend', 'cpu', '--steps', '1'];
  expect(await refused([...args, '--sampler', 'pndm'])).toMatch(/^pndm: .*use another sampler, such as ddim/);
  expect(existsSync(join(out, 'metrics.jsonl'))).toBe(false);
});

describe('a run gone on with', () => {
  test('--compare with no run in it changes nothing', async () => {
    const run = join(scratch, 'begun');
    const args =
      '--pairs 20 --steps 1 --batch 1 --samples 0 --obedience 0 --validation-pairs 1 --targets **.to_q --resolution 16 --backend cpu';
    expect(await runCommand(train, [...words(args), '--base', base, '--out', run])).toMatchObject({ code: 0 });
    const before = readFileSync(join(run, 'config.json'), 'utf8');
    expect(await refused(['--resume', run, '--compare', 'no-such-run'])).toMatch(
      /^no-such-run\/config\.json: no such file/,
    );
    expect(readFileSync(join(run, 'config.json'), 'utf8')).toBe(before);
  });
});

test('a damaged log of a run to compare with is one line with its name', async () => {
  const other = join(scratch, 'other');
  mkdirSync(other);
  writeFileSync(join(other, 'config.json'), '{"method":"lora","rank":4}');
  writeFileSync(join(other, 'metrics.jsonl'), '{"step":1,"validation":{"loss":1,');
  await expect(readComparison(other)).rejects.toThrow(/metrics\.jsonl: /);
});
