/** `bench --growth`: the line that fits, what is measured around a middle, the table, and steps of processes of their own. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type At, AXES, type Figures, fitLine, growthTable, measureGrowth } from '../../../train/bench/growth.ts';
import { main as bench } from '../../../train/bench.ts';
import { runCommand, runProcess } from '../../support/commands.ts';
import { longTest } from '../../support/long.ts';
import { scratch } from '../../support/scratch.ts';
import { TINY_CONFIGS } from '../../support/tiny-base.ts';

/** A tiny U-Net's configuration as a file. */
function tiny(): readonly string[] {
  mkdirSync(scratch, { recursive: true });
  const config = join(scratch, 'unet.json');
  writeFileSync(config, JSON.stringify(TINY_CONFIGS.unet));
  const words = '--batch 2 --resolution 32 --rank 1 --backend wasm --threads 1 --ms 1';
  return ['--unet-config', config, ...words.split(' ')];
}

describe('the line', () => {
  test('through points of a line is that line', () => {
    const xs = [1, 2, 4, 8, 32];
    const { start, slope, off } = fitLine(
      xs,
      xs.map((x) => 7 + 0.25 * x),
    );
    expect(start).toBeCloseTo(7, 10);
    expect(slope).toBeCloseTo(0.25, 10);
    expect(off).toBeLessThan(1e-12);
  });
  test('has the least sum of squares of relative distances, and tells the largest', () => {
    const [xs, ys] = [
      [1, 2, 4, 8],
      [2, 5, 4, 30],
    ];
    const away = (start: number, slope: number) => xs.map((x, i) => (start + slope * x) / ys[i]! - 1);
    const sum = (start: number, slope: number) => away(start, slope).reduce((n, d) => n + d * d, 0);
    const { start, slope, off, offAt } = fitLine(xs, ys);
    for (const [a, b] of [
      [0.01, 0],
      [-0.01, 0],
      [0, 0.01],
      [0, -0.01],
      [0.01, -0.01],
    ] as const)
      expect(sum(start + a, slope + b)).toBeGreaterThan(sum(start, slope));
    const distances = away(start, slope).map(Math.abs);
    expect(off).toBe(Math.max(...distances));
    expect(distances[offAt]).toBe(off);
  });
});

describe('around a middle', () => {
  const middle = { batch: 8, resolution: 128, rank: 4 };
  const asked: At[] = [];
  /** a made step: arithmetic grows as a line in all, attention as the square of the pixels */
  const made = async (at: At): Promise<Figures> => {
    asked.push(at);
    if (at.batch === 32) throw new Error('wasm: no room');
    const pixels = at.resolution ** 2 / 1000;
    return {
      modules: at.modules ?? 20,
      step_ms: 10 + 2 * at.batch + pixels + 3 * at.rank + (at.modules ?? 20),
      peak_bytes: 2 ** 20 * (100 + at.batch * pixels),
      rss_bytes: 2 ** 30,
      gflop: at.batch,
      attention_gflop: pixels ** 2,
    };
  };
  test('one thing is changed at a time, the middle is measured once, and the lines are those of the figures', async () => {
    const told: string[] = [];
    const grown = await measureGrowth(middle, ['batch', 'resolution', 'rank', 'modules'], made, (line) =>
      told.push(line),
    );
    expect(grown.map(({ axis, points }) => [axis, points.map((p) => p.value)])).toEqual([
      ['batch', AXES.batch],
      ['resolution', AXES.resolution],
      ['rank', AXES.rank],
      ['modules', [8, 16, 20]],
    ]);
    // the middle stands on each axis
    expect(asked.length).toBe(1 + 5 + 6 + 6 + 2);
    for (const at of asked) {
      const { modules, ...rest } = at;
      const changed = Object.entries(rest).filter(([name, value]) => value !== middle[name as keyof typeof middle]);
      expect(changed.length + (modules === undefined ? 0 : 1)).toBeLessThanOrEqual(1);
    }
    const [batch, resolution, rank, modules] = grown.map(({ lines }) => lines['step, ms']!);
    expect([batch!.slope, resolution!.slope, rank!.slope, modules!.slope].map((x) => Number(x.toFixed(9)))).toEqual([
      2, 1, 3, 1,
    ]);
    for (const line of [batch, resolution, rank, modules]) expect(line!.off).toBeLessThan(1e-9);
    // squares are no line
    expect(grown[1]!.lines['… of attention']!.off).toBeGreaterThan(0.1);
    expect(told).toContain('batch 32: wasm: no room');

    const table = growthTable(grown);
    expect(table[2]).toMatch(
      /^\| batch 1, 2, 4, 8, 16, 32 \| step, ms \| 60\.4, .*, – \| 58\.4 \+ 2 a picture \| 0\.0% at \d+ \|$/,
    );
    expect(table.filter((row) => row.startsWith('|  | … of attention'))[1]).toMatch(/\*\*\d+\.\d% at \d+\*\* \|$/);
    expect(table.slice(-2)).toEqual(['', 'batch 32: wasm: no room']);
  });
  test('a middle that does not fit is told in its line', async () => {
    await expect(measureGrowth({ ...middle, batch: 32 }, ['rank'], made)).rejects.toThrow('wasm: no room');
  });
});

describe('the command', () => {
  test.each([
    ['--growth --step', '--growth: measures steps of its own; leave out --step, --peers, --modules and --adapter'],
    ['--growth --backend all', '--growth: choose one backend'],
    ['--growth --against depth', /--against.*expected some of batch, resolution, rank, modules, not depth/],
    ['--growth --unet-config nowhere.json', 'nowhere.json: no such file'],
  ])('%s is one line and code 1', async (words, said) => {
    const { code, stderr } = await runCommand(bench, words.split(' '));
    expect(code).toBe(1);
    expect(stderr.trim().split('\n')).toHaveLength(1);
    if (typeof said === 'string') expect(stderr.trim()).toBe(said);
    else expect(stderr).toMatch(said);
  });

  test('a plain step of some modules is measured without its test', async () => {
    const { code, stdout, stderr } = await runCommand(bench, [
      '--step',
      '--plain',
      '--modules',
      '5',
      '--json',
      ...tiny(),
    ]);
    expect([code, stderr]).toEqual([0, '']);
    const [figures] = JSON.parse(stdout).steps;
    expect(figures.modules).toBe(5);
    expect(figures.fisher_step_ms).toBeUndefined();
    expect(figures.step_ms).toBeGreaterThan(0);
    expect(figures.attention_gflop).toBeGreaterThan(0);
    expect(figures.attention_gflop).toBeLessThan(figures.gflop);
    const more = await runCommand(bench, ['--step', '--plain', '--modules', '5000', ...tiny()]);
    expect(more.stderr).toMatch(/^--modules 5000: --targets chooses \d+\n$/);
  });

  longTest(
    'each point is a process of its own',
    async () => {
      const { code, stdout, stderr } = await runProcess('bench', ['--growth', '--against', 'modules', ...tiny()]);
      expect(code, stderr).toBe(0);
      expect(stderr).toMatch(/^modules 8: [\d.]+ ms\nmodules 16: /);
      const [, , row, backend] = stdout.slice(stdout.indexOf('| against')).split('\n');
      expect(row).toMatch(/^\| modules 8, 16, \d+(, \d+)* \| step, ms \| [\d.]+, /);
      const mib = backend!.split('|')[3]!.split(',').map(Number);
      // more adapters hold more
      expect(mib).toEqual([...mib].sort((a, b) => a - b));
      expect(mib[0]).toBeGreaterThan(0);
    },
    120_000,
  );
});
