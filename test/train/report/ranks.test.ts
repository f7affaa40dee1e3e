/** Rank granted and used, maps of change, and what is said of them. */
import { expect, test } from 'vitest';
import { bands } from '../../../train/report/charts/curves.ts';
import { drawChangeMaps } from '../../../train/report/charts/heatmap.ts';
import { columnWords, layout } from '../../../train/report/charts/modules.ts';
import { gainAgainstBrought } from '../../../train/report/charts/scatter.ts';
import { moduleHistories } from '../../../train/report/history.ts';
import { correlationSentence } from '../../../train/report/panels/ranks.ts';
import { parseRecord } from '../../../train/run/record.ts';
import { integer } from '../../../train/words/format.ts';
import { all, parse } from '../../support/report-dom.ts';
import { render, sd15Modules, simulatedRun, smallModules } from '../../support/report-fixture.ts';

test('the legend names this model’s columns and no others', () => {
  const columns = (paths: readonly string[]) => layout(paths.map((p) => [p, 1] as const)).unet!.columns;
  expect(columnWords(columns(sd15Modules()))).toEqual([
    't1, t2: the time embedding',
    'd31: down block 3, transformer or resnet 1 in it',
    'mid: the middle',
    'm1: its second resnet',
    'u32: up block 3, transformer or resnet 2 in it',
  ]);
  expect(columnWords(columns(smallModules())).join()).not.toMatch(/m1|d31|u32|inside/);
  const deep = 'unet.down_blocks.1.attentions.0.transformer_blocks.3.attn1.to_q';
  expect(columnWords(columns([deep]))).toEqual(['d10.3: block 3 inside that transformer']);
});

test('maps of change are on one scale and in one unit, and no number in them is nothing but zeros', () => {
  const [q, k, v] = ['q', 'k', 'v'].map((p) => `text_encoder.text_model.encoder.layers.0.self_attn.${p}_proj`);
  const unet = smallModules().filter((p) => p.startsWith('unet'));
  const cells = (svg: string): string[] => [...svg.matchAll(/>([\d.<]+)<\/text>/g)].map((m) => m[1]!);
  const maps = (values: readonly (readonly [string, number])[]) => drawChangeMaps(layout(values), '‖ΔW‖/‖W‖');

  const shares = maps([
    [unet[0]!, 0.148],
    [unet[1]!, 0.0321],
    [q!, 0.0004],
    [k!, 0.00001],
    [v!, 0],
  ]);
  expect(shares.unet).toContain('per layer in %');
  expect(cells(shares.unet!)).toEqual(expect.arrayContaining(['15', '3.2']));
  expect(cells(shares.text!.replaceAll('&lt;', '<'))).toEqual(expect.arrayContaining(['.04', '<.01', '0']));
  for (const svg of [shares.unet!, shares.text!]) expect(cells(svg)).not.toContain('.00');
  // the ends of the scale are those of both maps together
  const ends = (svg: string) => cells(svg.replaceAll('&lt;', '<')).slice(-2);
  expect(ends(shares.unet!)).toEqual(ends(shares.text!));

  const tiny = maps([
    [unet[0]!, 3.2e-6],
    [unet[1]!, 1.1e-6],
  ]);
  expect(tiny.unet).toContain('per layer in 10⁻⁶');
  expect(cells(tiny.unet!)).toEqual(expect.arrayContaining(['3.2', '1.1']));
});

test('one sentence says what the correlation of rank and change means', () => {
  const histories = (changes: readonly number[], ranks = changes.map((_, i) => i + 1)) =>
    moduleHistories({
      expansions: [],
      modules: changes.map((change, i) => ({ path: `m${i}`, rank: ranks[i]!, change })),
    });
  expect(correlationSentence(histories([1, 2, 3, 4]))).toMatch(
    / is 1 over 4 modules: .* those whose weights changed most; it does not tell/,
  );
  expect(correlationSentence(histories([4, 3, 2, 1]))).toContain(
    'is −1 over 4 modules: modules with more rank tend to have changed less',
  );
  // 1 to 5 against 2, 4, 1, 5, 3: Σd² = 14, 1 − 6·14/120 = 0.3; against 2, 5, 1, 4, 3: 18, 0.1
  expect(correlationSentence(histories([2, 4, 1, 5, 3]))).toContain('with many exceptions');
  expect(correlationSentence(histories([2, 5, 1, 4, 3]))).toContain(
    'is 0.1 over 5 modules: rank and change have little to do',
  );
  expect(correlationSentence(histories([1, 2, 3], [4, 4, 4]))).toBeUndefined();
});

test('what ranks brought against what was expected: a dot for each that was measured, with their correlation', () => {
  const row = { step: 20, expanded: true, rankAfter: 1 };
  const run = (brought: readonly (number | undefined)[]) =>
    parseRecord({
      name: 'gains',
      expansions: brought.map((b, i) => ({
        ...row,
        module: `unet.m${i}`,
        gain: i + 1,
        ...(b === undefined ? {} : { brought: b }),
      })),
    });
  const svg = gainAgainstBrought(run([1, 2.5, undefined, 2.5, Number.NaN]))!;
  expect(svg.match(/<circle[^>]*><title>/g)).toHaveLength(3);
  expect(svg).toContain('unet.m3: step 20, expected 4, brought 2.5');
  // 1, 2, 4 against 1, 2.5, 2.5: 2 / √(4.667 · 1.5)
  expect(svg).toContain('r = 0.756, n = 3');
  expect(gainAgainstBrought(run([1, 2, undefined]))).toBeUndefined();
  expect(gainAgainstBrought(run([1, 1, 1]))).toBeUndefined();
});

test('granted and used rank and parameters by kind of layer add up to those of the run', async () => {
  const run = parseRecord(simulatedRun());
  const page = parse((await render(simulatedRun())).html);
  const table = all(page, '#ranks table').find((t) =>
    t.querySelector('caption')?.textContent.startsWith('Rank by kind'),
  )!;
  const rows = all(table, 'tbody tr').map((tr) => all(tr, 'th, td').map((c) => c.textContent));
  const number = (text: string) => Number(text.split(' ')[0]!.replaceAll('\u202f', ''));
  const sum = (column: number) => rows.slice(0, -1).reduce((n, r) => n + number(r[column]!), 0);
  const rank = run.modules.reduce((n, m) => n + m.rank, 0);
  const used = run.modules.reduce((n, m) => n + m.used!, 0);
  const last = rows.at(-1)!;
  expect(last.slice(0, 2)).toEqual(['all', String(run.modules.length)]);
  expect([sum(1), sum(2), sum(4)]).toEqual([run.modules.length, rank, rank * 192]);
  expect(number(last[2]!)).toBe(rank);
  expect(Math.abs(sum(3) - used)).toBeLessThan(0.05 * rows.length);
  const values = all(page, '.numbers .value').map((v) => v.textContent);
  expect(values).toContain(`${integer(used)} of ${integer(rank)}`);
});

test('modules that were given no rank count as none, and hide nothing of the others', async () => {
  const run = simulatedRun();
  const [first, ...rest] = run.modules ?? [];
  const { used: _u, change: _c, ...none } = { ...first!, rank: 0 };
  const page = parse((await render({ ...run, modules: [none, ...rest], expansions: [] })).html);
  const values = all(page, '.numbers .value').map((v) => v.textContent);
  const sum = (pick: (m: (typeof rest)[number]) => number) => rest.reduce((n, m) => n + pick(m), 0);
  expect(values).toContain(`${integer(sum((m) => m.used!))} of ${integer(sum((m) => m.rank))}`);
  const cells = all(page, '#ranks table tbody tr').map((tr) => all(tr, 'td').map((c) => c.textContent));
  expect(cells.filter((row) => row.length === 4 && row.some((cell) => cell.includes('–')))).toEqual([]);
});

test('many points are told by the median and the 10–90% of neighbours', () => {
  const points = Array.from({ length: 1000 }, (_, i) => ({ step: i + 1, value: i % 10 }));
  const { size, bins } = bands(points, 100);
  expect([size, bins.length]).toEqual([10, 100]);
  // quantiles of 0 … 9: 0.9, 4.5, 8.1
  for (const [i, bin] of bins.entries()) {
    expect(bin.step).toBe(10 * (i + 1));
    expect([bin.low, bin.value, bin.high].map((v) => Number(v.toFixed(9)))).toEqual([0.9, 4.5, 8.1]);
  }
  expect(bands([{ step: 1, value: Number.NaN }], 10).bins).toEqual([]);
});
