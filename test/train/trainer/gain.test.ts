/** `--criterion gain`: ranks before the first update and after it, within a budget, resumed to the bit. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { readAdapter } from '../../../models/io/adapter-file.ts';
import { encodePng } from '../../../train/data/pictures/image-write.ts';
import { main as train } from '../../../train/train.ts';
import { runCommand, writeCalmBase } from '../../support/commands.ts';
import { folder, rows, scratch } from '../../support/data-fixtures.ts';
import { longTest } from '../../support/long.ts';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 });

const base = join(scratch, 'base');
const out = (name: string) => join(scratch, name);
let data: string;
beforeAll(async () => {
  await writeCalmBase(base);
  const films: Record<string, string | Uint8Array> = {
    'metadata.csv': rows(...Array.from({ length: 10 }, (_, i) => `${i}.png,the ${'abcdefghij'[i]} lung`)),
  };
  for (let i = 0; i < 10; i++)
    films[`${i}.png`] = await encodePng(
      Float32Array.from({ length: 16 * 16 * 3 }, (_, k) => Math.sin(i + Math.floor(k / 3) * (0.05 + 0.02 * i))),
      16,
    );
  data = folder(films);
});
const BUDGET = 900;
const start = (name: string, more = '') =>
  runCommand(train, [
    ...['--data', data, '--base', base, '--out', out(name), '--criterion', 'gain'],
    ...'--batch 2 --samples 0 --seed 5 --backend wasm --threads 1 --split 60/20/20 --probe 4'.split(' '),
    ...more.split(' ').filter((word) => word !== ''),
  ]);
type Row = {
  step: number;
  totalRank: number;
  tests?: { module: string; rankAfter: number; added: number; cost: number; gain: number; lost?: number; carried?: [number, number][] }[];
  asked?: { report: string; t: number; part: number }[];
  validation?: { loss: number };
}; // biome-ignore format: rows of the log
const log = (name: string): Row[] =>
  readFileSync(join(out(name), 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
/** rows without what the clock says */
const timeless = (name: string) =>
  log(name).map(({ seconds: _s, memory: _m, ...row }: Row & { seconds?: number; memory?: number }) => row);
const schedule = `--budget-parameters ${BUDGET} --grow-first .5 --grow-until .7 --test-every 2 --steps 6 --save-every 1 --validate-every 3`;

/** A run of these settings, asked to stop after so many rows and resumed, ends as the one that was not. */
async function stoppedEndsAs(whole: string, settings: string, rowsBefore: number): Promise<void> {
  const stopped = `${whole}-stopped`;
  const stop = setInterval(() => {
    const file = join(out(stopped), 'metrics.jsonl');
    if (!existsSync(file) || readFileSync(file, 'utf8').split('\n').length <= rowsBefore) return;
    clearInterval(stop);
    process.emit('SIGINT', 'SIGINT');
  }, 1);
  const first = await start(stopped, settings);
  clearInterval(stop);
  process.exitCode = 0;
  expect(first.stdout).toMatch(/stopped after step [1-5] and saved/);
  const again = await runCommand(train, ['--resume', out(stopped)]);
  expect([again.code, again.code === 0 ? '' : again.stderr]).toEqual([0, '']);
  expect(timeless(stopped)).toEqual(timeless(whole));
  const bytes = (name: string) => readFileSync(join(out(name), 'adapter.safetensors'));
  expect(bytes(stopped).equals(bytes(whole))).toBe(true);
}

describe('ranks by gain', () => {
  test('half of the budget before the first update, the rest at later tests; never more than it', async () => {
    const { code, stderr } = await start('whole', schedule);
    expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
    const tested = log('whole').filter(({ tests }) => tests);
    expect(tested.map(({ step }) => step)).toEqual([1, 2, 4]);
    const used = tested.map(({ tests }) => tests!.reduce((n, t) => n + t.rankAfter * t.cost, 0));
    const most = [0.5, 0.75, 1].map((share) => BUDGET * share);
    for (const [i, n] of used.entries()) expect(n).toBeLessThanOrEqual(most[i]!);
    expect(used[0]).toBeGreaterThan(BUDGET * 0.4);
    expect(used[2]).toBeGreaterThan(used[0]!);
    expect(tested[0]!.tests!.every(({ rankAfter, added }) => rankAfter === added)).toBe(true);
    // the four batches of a test are of reports there are; what each asked for adds up to what was given
    for (const { asked, tests } of tested) {
      expect(asked).toHaveLength(8);
      expect(asked!.every(({ report, t }) => /^\d\.png$/.test(report) && t >= 0 && t < 1000)).toBe(true);
      const single = tests!.filter(({ added }) => added === 1);
      if (single.length === tests!.filter(({ added }) => added > 0).length) {
        const gains = single.reduce((s, { gain }) => s + gain, 0);
        expect(asked!.reduce((s, { part }) => s + part, 0) / gains).toBeCloseTo(1, 3);
      }
      for (const { added, carried } of tests!) expect(carried?.length).toBe(added > 0 ? 3 : undefined);
    }
    // a module that was given nothing is no part of the file
    const { modules } = await readAdapter(join(out('whole'), 'adapter.safetensors'));
    const granted = tested[2]!.tests!.filter(({ rankAfter }) => rankAfter > 0).map(({ module }) => module);
    expect([...modules.keys()].sort()).toEqual(granted.sort());
    expect([...modules.values()].reduce((n, { A, B }) => n + A.length + B.length, 0)).toBe(used[2]);
    expect(existsSync(join(out('whole'), 'report.html'))).toBe(true);
  });

  longTest('stopped between two tests and resumed, it ends with the same bits', () =>
    stoppedEndsAs('whole', schedule, 1),
  );

  const pruning = `--budget-parameters ${BUDGET} --prune .5 --grow-until .7 --test-every 2 --steps 6 --save-every 1 --validate-every 3 --lr .05`;
  longTest('with --prune parameters move on after all are given out, and never become more', async () => {
    const { code, stderr } = await start('moved', pruning);
    expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
    const tested = log('moved').filter(({ tests }) => tests);
    expect(tested.map(({ step }) => step)).toEqual([1, 2, 4]);
    for (const { tests } of tested)
      expect(tests!.reduce((n, t) => n + t.rankAfter * t.cost, 0)).toBeLessThanOrEqual(BUDGET);
    const lost = tested.flatMap(({ tests }) => tests!.map((t) => t.lost ?? 0));
    expect(lost.reduce((a, b) => a + b, 0)).toBeGreaterThan(0);
    const last = tested.at(-1)!;
    expect(last.totalRank).toBe(last.tests!.reduce((n, t) => n + t.rankAfter, 0));
    const { modules } = await readAdapter(join(out('moved'), 'adapter.safetensors'));
    expect([...modules.values()].reduce((n, m) => n + m.rank, 0)).toBe(last.totalRank);
    expect(readFileSync(join(out('moved'), 'report.html'), 'utf8')).toContain('Who asked for the ranks');
  });

  longTest('one that prunes, stopped and resumed, ends with the same bits', () => stoppedEndsAs('moved', pruning, 3));

  test('new ranks leave the function as it is, to the bit', async () => {
    const { code, stdout, stderr } = await start('still', '--lr 0 --steps 1');
    expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
    expect(log('still')[0]!.totalRank).toBeGreaterThan(0);
    const untouched = /untouched base on the validation grid: (\S+)/.exec(stdout)![1];
    expect(log('still')[0]!.validation!.loss.toFixed(5)).toBe(untouched);
    const config = JSON.parse(readFileSync(join(out('still'), 'config.json'), 'utf8'));
    expect(config).toMatchObject({ rank: 0, targets: 'all', fiBatches: 4 });
  });
});

test.each([
  ['--budget-parameters 0', /^--budget-parameters: is 0, expected at least 1\n$/],
  [
    '--budget-parameters 10 --rank 2',
    /^--budget-parameters 10: the adapters begin with \d+ parameters, expected at least that\n$/,
  ],
  ['--grow-first 1.5', /^--grow-first: is 1.5, expected at most 1\n$/],
  ['--grow-until -1', /^--grow-until: is -1, expected at least 0\n$/],
  ['--prune 2', /^--prune: is 2, expected at most 1\n$/],
  ['--probe 0', /^--probe: is 0, expected at least 1\n$/],
  ['--fi-batches 1', /^--fi-batches: is 1, expected at least 2: criterion gain judges one batch by another\n$/],
  ['--method lora --rank 4', /^--criterion: gain goes with --method selora, not lora\n$/],
  ['--criterion fi-ratio --rank 0', /^--rank: is 0, expected at least 1\n$/],
])('%s is refused in one line', async (more, line) => {
  const { code, stderr } = await start('refused', `--steps 2 ${more}`);
  expect(code).not.toBe(0);
  expect(stderr).toMatch(line);
  expect(existsSync(out('refused'))).toBe(false);
});
