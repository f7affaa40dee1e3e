/** Means, paired differences and what may be said of them, against closed forms, tables of Student's t and simulation. */
import { describe, expect, test } from 'vitest';
import {
  compare,
  conclude,
  conclusions,
  differenceOf,
  type Row,
  rankAgreement,
  rankUse,
  summaryOf,
} from '../../../train/experiment/compare.ts';
import { type Experiment, parseExperiment, runsOf } from '../../../train/experiment/config.ts';
import { costTable, memoryOverTime, stepSecondsOf, testShareOf } from '../../../train/experiment/costs.ts';
import type { Measure } from '../../../train/experiment/measures.ts';
import type { State } from '../../../train/experiment/state.ts';
import {
  comparisonCsv,
  gridCsv,
  gridTables,
  latex,
  markdown,
  runsCsv,
  tablesOf,
} from '../../../train/experiment/tables.ts';
import { parseRecord, type RunRecord } from '../../../train/run/record.ts';
import { rng } from '../../support/gradcheck.ts';

const e: Experiment = parseExperiment(`
name: two
settings: { steps: 4 }
methods:
  - { name: LoRA, settings: { method: lora, rank: 4 } }
  - { name: grown, settings: { testEvery: 2 } }
seeds: [1, 2, 3]
`);
const run = (losses: readonly number[], ranks: readonly number[] = [1, 2, 3, 4]): RunRecord =>
  parseRecord({
    name: 'r',
    validations: losses.map((loss, i) => ({ step: i + 1, loss, shuffled: loss + 0.5 })),
    modules: ranks.map((rank, i) => ({ path: `unet.mid.${i}.to_q`, rank, dIn: 4, dOut: 4 })),
  });
/** finished runs with these final losses: LoRA's by seed, then the other's */
const states = (lora: readonly (number | undefined)[], grown: readonly (number | undefined)[]): State[] =>
  runsOf(e, 'x').map((r) => {
    const loss = (r.arm.name === 'LoRA' ? lora : grown)[r.seed - 1];
    return loss === undefined ? { run: r, state: 'not begun' } : { run: r, state: 'done', record: run([1, loss]) };
  });
const loss: Measure = { id: 'loss', label: 'validation loss', better: 'lower', of: (r) => r.validations.at(-1)!.loss };

describe('numbers', () => {
  test('mean and standard deviation of seeds, none of a single one', () => {
    expect(summaryOf([1, 2, 4])).toEqual({ n: 3, mean: 7 / 3, sd: expect.closeTo(Math.sqrt(7 / 3), 12) });
    expect(summaryOf([5])).toEqual({ n: 1, mean: 5 });
    expect(summaryOf([])).toBeUndefined();
  });
  test('differences that cancel are 0, not what rounding leaves', () => {
    const a = new Map([[1, 0.1], [2, 0.2], [3, 0]]); // biome-ignore format: one line
    const b = new Map([[1, 0], [2, 0], [3, 0.3]]); // biome-ignore format: one line
    expect(0.1 + 0.2 - 0.3).not.toBe(0);
    expect(differenceOf(a, b)!.mean).toBe(0);
  });
  test('differences are paired by seed; the interval is that of Student', () => {
    const a = new Map([[1, 0.5], [2, 0.7], [3, 0.9], [9, 100]]); // biome-ignore format: one line
    const b = new Map([[1, 0.4], [2, 0.4], [3, 0.4], [8, -100]]); // biome-ignore format: one line
    const d = differenceOf(a, b)!;
    expect(d.n).toBe(3);
    expect(d.mean).toBeCloseTo(0.3, 12);
    // t of 2 degrees at .975: 4.302653 in every table
    const half = (4.302653 * 0.2) / Math.sqrt(3);
    expect(d.interval![0]).toBeCloseTo(0.3 - half, 4);
    expect(d.interval![1]).toBeCloseTo(0.3 + half, 4);
    expect(differenceOf(new Map([[1, 2]]), new Map([[1, 1]]))).toEqual({ n: 1, mean: 1 });
    expect(differenceOf(new Map([[1, 2]]), new Map([[2, 1]]))).toBeUndefined();
  });
  test('an interval holds the true difference in 93% of 500 simulations or more, for 3, 5 and 10 seeds', () => {
    const random = rng(11);
    const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    for (const n of [3, 5, 10]) {
      let covered = 0;
      for (let k = 0; k < 500; k++) {
        const [a, b] = [new Map<number, number>(), new Map<number, number>()];
        for (let seed = 0; seed < n; seed++) {
          const shared = 3 * normal();
          a.set(seed, shared + normal() + 0.7);
          b.set(seed, shared + normal());
        }
        const [low, high] = differenceOf(a, b)!.interval!;
        if (low <= 0.7 && 0.7 <= high) covered++;
      }
      expect(covered / 500, `${n} seeds`).toBeGreaterThanOrEqual(0.93);
      expect(covered / 500, `${n} seeds`).toBeLessThanOrEqual(0.985);
    }
  });
  test('ranks agree between seeds as Spearman says, a module that was given nothing has rank 0', () => {
    const [one, two] = [run([1], [1, 2, 3, 4]), run([1], [1, 2, 4, 3])];
    const less = { ...two, modules: two.modules.slice(1) };
    const of = (records: readonly RunRecord[]) =>
      rankAgreement(
        records.map((record, i) => ({ run: { ...runsOf(e, 'x')[0]!, seed: i }, state: 'done', record })),
        'LoRA',
      );
    expect(of([one, two])).toEqual({ mean: 0.8, pairs: 1 });
    expect(of([one, less])!.mean).toBeCloseTo(0.8, 12);
    expect(of([one])).toBeUndefined();
  });
});

describe('a grid', () => {
  const grid = parseExperiment(`
name: g
settings: { steps: 4 }
methods:
  - { name: S, settings: { method: selora }, grid: { lambda: [1, 1.1], test-every: [2, 4], gain-a: [0, 2.236] } }
  - { name: L, settings: { method: lora } }
seeds: [1, 2]
`);
  test('is one method for each combination, the last setting varying first', () => {
    expect(grid.arms).toHaveLength(9);
    expect(grid.arms.slice(0, 3).map(({ config: c }) => [c.lambda, c.testEvery, c.gainA])).toEqual([
      [1, 2, 0],
      [1, 2, 2.236],
      [1, 4, 0],
    ]);
    expect(grid.arms[1]!.name).toBe('S: lambda=1, test-every=2, gain-a=2.236');
    expect(grid.arms[8]!.cell).toBeUndefined();
    expect(new Set(runsOf(grid, 'x').map((r) => r.folder)).size).toBe(18);
  });
  test('has a table with a row for each and a file in full precision; what is missing stays empty', () => {
    const all = runsOf(grid, 'x').map((r): State => {
      const value = (r.arm.config.lambda as number) + (r.arm.config.testEvery as number) + r.seed / 10;
      return r.number % 9 === 7 ? { run: r, state: 'not begun' } : { run: r, state: 'done', record: run([value]) };
    });
    const rows = compare(grid, all);
    const [table, ...more] = gridTables(grid, rows);
    expect(more).toEqual([]);
    expect(table!.title).toBe('S, by lambda × test-every × gain-a (the paper’s table 3)');
    expect(table!.head.slice(0, 4)).toEqual(['lambda', 'test-every', 'gain-a', 'validation loss ↓']);
    expect(table!.rows).toHaveLength(8);
    expect(table!.rows[0]!.slice(0, 4)).toEqual(['1', '2', '0', '3.15 ± 0.071 (n = 2)']);
    expect(table!.rows[7]!.slice(0, 4)).toEqual(['1.1', '4', '2.236', '–']);
    const lines = gridCsv(grid, rows).trim().split('\n');
    expect(lines[0]).toMatch(/^method,lambda,test-every,gain-a,n,loss,loss sd,/);
    expect(lines).toHaveLength(9);
    const cells = lines[1]!.split(',');
    expect(cells.slice(0, 5)).toEqual(['S', '1', '2', '0', '2']);
    expect(Number(cells[5])).toBeCloseTo(3.15, 12);
    expect(gridTables(e, compare(e, states([1], [1])))).toEqual([]);
    expect(latex(table!)).toContain('validation loss $\\downarrow$');
  });
});

describe('what it costs', () => {
  /** 12 steps of 2 s, every fourth one with a test of 5 s; a validation of 30 s after step 6 is in the time of step 7 */
  const record = parseRecord({
    name: 'r',
    metrics: Array.from({ length: 12 }, (_, i) => ({
      step: i + 1,
      loss: 1,
      seconds: 2 * (i + 1) + 3 * Math.floor((i + 1) / 4) + (i + 1 > 6 ? 30 : 0),
      memory: (100 + i) * 2 ** 20,
    })),
    validations: [{ step: 6, loss: 1 }],
    expansions: [4, 8, 12].map((step) => ({ step, module: 'm', expanded: false, rankAfter: 1 })),
    modules: [],
    seconds: 3725,
  });
  test('a test is measured in steps, beside equation 6', () => {
    const s = stepSecondsOf(record)!;
    expect(s).toEqual({ plain: 2, tested: 5, tests: 3, steps: 12 });
    // three tests of one and a half more steps each, in twelve steps; by the paper one more step every four
    expect(testShareOf(s, 4)).toEqual({ measured: 0.375, predicted: 0.25 });
    expect(testShareOf(stepSecondsOf({ ...record, expansions: [] })!, 4)).toBeUndefined();
    expect(stepSecondsOf({ ...record, metrics: [] })).toBeUndefined();
  });
  test('is a row for each method: memory, time, tests, operations', () => {
    const all: State[] = runsOf(e, 'x').map((r) => ({ run: r, state: 'done', record }));
    const { rows } = costTable(e, all, new Map([['grown', 2.5e12]]));
    expect(rows[1]).toEqual(
      ['grown', '105.5', '1:02:05', '2000', '5000', '37.5%', '50%', '2.5'].map((c) =>
        c.replace(/(\d)(\d{3})$/, '$1\u202f$2'),
      ),
    );
    expect(rows[0]!.at(-1)).toBe('–');
    expect(memoryOverTime(e.arms[0]!, all)).toEqual(
      Array.from({ length: 12 }, (_, i) => ({ step: i + 1, value: 100 + i })),
    );
    expect(costTable(e, []).rows[0]!.slice(1, 4)).toEqual(['–', '–', '–']);
  });
  test('granted ranks beside used ones', () => {
    const used = { ...run([1]), modules: run([1]).modules.map((m, i) => ({ ...m, used: [0.5, 0.4, 2, 3][i]! })) };
    const all: State[] = runsOf(e, 'x').map((r) => ({ run: r, state: 'done', record: used }));
    // ranks 1 2 3 4 beside 2 1 3 4
    expect(rankUse(all, 'LoRA')).toEqual({
      granted: 10,
      used: expect.closeTo(5.9, 12),
      correlation: expect.closeTo(0.8, 12),
    });
    expect(rankUse(states([1], [1]), 'LoRA')).toBeUndefined();
  });
});

describe('words', () => {
  const row = (lora: readonly (number | undefined)[], grown: readonly (number | undefined)[]): Row =>
    compare(e, states(lora, grown), [loss])[0]!;
  test.each([
    ['clearly lower', [0.5, 0.52, 0.51], [0.4, 0.41, 0.42], /: better over these 3 seeds, though 3 seeds are few\.$/],
    ['clearly higher', [0.4, 0.41, 0.42], [0.5, 0.52, 0.51], /: worse over these 3 seeds/],
    ['mixed', [0.5, 0.4, 0.45], [0.45, 0.42, 0.46], /: the interval holds 0, so 3 seeds show no difference\.$/],
  ])('%s', (_name, lora, grown, words) => {
    expect(conclude(row(lora, grown), 'grown', 'LoRA')).toMatch(words);
  });
  test('of a method beside itself, of what nobody has, and of what is no judgement nothing is said', () => {
    expect(conclude(row([1, 1, 1], [1, 1, 1]), 'LoRA', 'LoRA')).toBeUndefined();
    expect(compare(e, states([], []), [loss])).toEqual([]);
    const { better: _, ...neutral } = loss;
    expect(conclude(compare(e, states([1, 2, 3], [1, 2, 3]), [neutral])[0]!, 'grown', 'LoRA')).toBeUndefined();
  });
  test('a single seed is no ground for a sentence of its own, and one line says so', () => {
    const rows = compare(e, states([0.5, undefined, undefined], [0.4, 0.4, undefined]), [loss]);
    expect(conclude(rows[0]!, 'grown', 'LoRA')).toBeUndefined();
    expect(conclusions(e, rows)).toEqual(['Differences from a single seed say nothing about others.']);
  });
  test('several comparisons carry a line on chance', () => {
    const rows = compare(e, states([0.5, 0.52, 0.51], [0.4, 0.41, 0.42]), [loss, { ...loss, label: 'again' }]);
    expect(conclusions(e, rows).at(-1)).toMatch(
      /^Each interval is that of one comparison\. Among 2 of them about 0\.1/,
    );
  });
});

describe('tables', () => {
  const all = states([0.5, 0.52, 0.51], [0.4, undefined, 0.42]);
  const tables = tablesOf(e, compare(e, all));
  test('Markdown, LaTeX and CSV say the same numbers', () => {
    expect(markdown(tables[0]!)).toContain('| validation loss | 0.51 ± 0.01 (n = 3) | 0.41 ± 0.014 (n = 2) |');
    expect(latex(tables[0]!)).toContain('validation loss & 0.51 $\\pm$ 0.01 (n = 3) & 0.41 $\\pm$ 0.014 (n = 2) \\\\');
    const rows = comparisonCsv(compare(e, all))
      .split('\n')
      .map((l) => l.split(','));
    const [, , n, mean, , difference, pairs] = rows.find((r) => r[0] === 'loss' && r[1] === 'grown')!;
    expect([n, pairs]).toEqual(['2', '2']);
    expect([Number(mean), Number(difference)]).toEqual([expect.closeTo(0.41, 12), expect.closeTo(-0.095, 12)]);
  });
  test('a run that is missing has a row and no numbers', () => {
    const lines = runsCsv(all).trim().split('\n');
    expect(lines).toHaveLength(7);
    expect(lines.find((l) => l.startsWith('grown,2,'))).toMatch(/^grown,2,not begun,,,/);
  });
  test('what could be markup or a command stays text', () => {
    const odd = { title: 'a|b', head: ['', 'x_y & 5%'], rows: [['\\input{f} | c', '~1']] };
    expect(markdown(odd)).toContain('| \\\\input{f} \\| c | ~1 |');
    expect(latex(odd)).toContain('\\textbackslash{}input\\{f\\} | c & \\textasciitilde{}1 \\\\');
    expect(latex(odd)).toContain(' & x\\_y \\& 5\\% \\\\');
  });
});
