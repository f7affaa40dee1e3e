/** The page fetches nothing, says what the data says, and odd runs still get a report. */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { XMLValidator } from 'fast-xml-parser';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parseRecord, type RunRecordInput } from '../../../train/run/record.ts';
import { all, type Node, parse } from '../../support/report-dom.ts';
import {
  folderWithPicture,
  render,
  runWith,
  simulatedComparison,
  simulatedRun,
  smallModules,
} from '../../support/report-fixture.ts';

const folder = mkdtempSync(join(tmpdir(), 'selora-page-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('the page fetches nothing and runs only its own script', () => {
  let page: Node;
  let source = '';
  beforeAll(async () => {
    const pictures = await folderWithPicture(folder);
    const run = { ...simulatedRun(), folder: pictures, samples: runWith('x', pictures).samples! };
    source = (await render(run, [simulatedComparison()])).html;
    page = parse(source);
  });

  test('the policy names the hashes of its one style and one script, and nothing else', () => {
    const policy = page.querySelector('meta[http-equiv="Content-Security-Policy"]')!.getAttribute('content')!;
    const hash = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
    const styles = [...source.matchAll(/<style>([\s\S]*?)<\/style>/g)].map((m) => m[1]!);
    const scripts = [...source.matchAll(/<script>([\s\S]*?)<\/script>/g)].map((m) => m[1]!);
    expect([styles.length, scripts.length]).toEqual([1, 1]);
    expect(policy).toBe(
      `default-src 'none'; img-src data:; style-src ${hash(styles[0]!)}; script-src ${hash(scripts[0]!)}; base-uri 'none'; form-action 'none'`,
    );
    // The policy must come before anything it governs.
    expect(source.indexOf('Content-Security-Policy')).toBeLessThan(source.indexOf('<style>'));
  });

  test('no inline style, no handler, no outside address', () => {
    for (const node of all(page, '*')) {
      for (const { name, value } of node.attributes) {
        expect(name).not.toMatch(/^(style|on.*|srcset|action|formaction|ping|background|poster|xlink:href)$/);
        if (name === 'href') expect(value).toMatch(/^#[a-z]+$/);
        if (name === 'src') expect(value).toMatch(/^data:image\/png;base64,[A-Za-z0-9+/=]+$/);
      }
    }
    const outside = source
      .replace(/data:image\/png;base64,[A-Za-z0-9+/=]+/g, '')
      .match(/(?:https?:)?\/\/[a-z0-9][^\s'"<]*/gi);
    expect([...new Set(outside ?? [])]).toEqual(['http://www.w3.org/2000/svg']);
    expect(source).not.toMatch(/url\(|@import/);
  });

  test('every link of the contents leads to a section, every section has a heading', () => {
    const ids = all(page, 'section').map((s) => s.getAttribute('id'));
    expect(all(page, 'nav a').map((a) => a.getAttribute('href')!.slice(1))).toEqual(ids);
    expect(ids).toEqual([
      'pictures',
      'obedience',
      'loss',
      'ranks',
      'growth',
      'updates',
      'memorisation',
      'costs',
      'data',
      'repeat',
    ]);
  });

  test('headline numbers come first and agree with the data', () => {
    const values = all(page, '.numbers .value').map((v) => v.textContent);
    const run = parseRecord(simulatedRun());
    const total = run.modules.reduce((s, m) => s + m.rank, 0);
    const lowest = Math.min(...run.validations.map((r) => r.loss));
    expect(values.slice(0, 2)).toEqual([`0.471 → ${Number(lowest.toPrecision(3))}`, '58 of 96']);
    expect(values[3]).toBe(`${smallModules().length} → ${total}`);
    expect(source.indexOf('class="numbers"')).toBeLessThan(source.indexOf('id="pictures"'));
    expect(source.indexOf('id="pictures"')).toBeLessThan(source.indexOf('id="loss"'));
  });

  test('every module has a cell with its history, with and without the script', () => {
    const cells = all(page, '#ranks [data-module]');
    const paths = new Set(cells.map((c) => c.getAttribute('data-module')));
    expect(paths).toEqual(new Set(smallModules()));
    const log = simulatedRun().expansions!;
    const path = 'unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k';
    const title = cells.find((c) => c.getAttribute('data-module') === path)!.querySelector('title')!.textContent;
    const grown = log.filter((e) => e.module === path && e.expanded);
    expect(title).toContain(`rank ${1 + grown.length}`);
    expect(title).toContain(`grew in ${grown.length} of 30 tests`);
    const data = JSON.parse(page.querySelector('#run-data')!.textContent) as {
      modules: [string, number, number, number, [number, number][]][];
    };
    const mine = data.modules.find((m) => m[0] === path)!;
    expect(mine[4].map((t) => t[0])).toEqual(log.filter((e) => e.module === path).map((e) => e.step));
  });
});

describe('odd runs', () => {
  test('an empty run gets a page', async () => {
    const { html: source, charts } = await render({ name: 'nothing' });
    expect([...charts]).toEqual([]);
    const page = parse(source);
    expect(page.querySelector('h1')!.textContent.length).toBeGreaterThan(10);
    expect(all(page, 'section')).toEqual([]);
    const visible = source.replace(/<(style|script)[^>]*>[\s\S]*?<\/\1>/g, '');
    expect(visible).not.toMatch(/NaN|undefined|Infinity/);
  });

  test('timesteps and gradient norms have a line each, and the limit of the norm where there is one', async () => {
    const run = simulatedRun();
    const { charts } = await render({ ...run, settings: { ...run.settings, clip: 0.5 } });
    for (const t of [125, 375, 625, 875, 975]) expect(charts.get('timesteps')).toContain(`t = ${t}`);
    expect(charts.get('gradient-norm')).toContain('clipped to 0.5');
    expect((await render({ ...run, settings: {} })).charts.get('gradient-norm')).not.toContain('clipped to');
  });

  test('a single step is drawn', async () => {
    const { charts, html: source } = await render({
      name: 'one',
      metrics: [{ step: 1, loss: 0.5, seconds: 0.2 }],
    });
    expect([...charts.keys()]).toEqual(['loss']);
    expect(charts.get('loss')).toMatch(/<circle[^>]*r="2.6"/);
    for (const svg of charts.values()) expect(svg).not.toMatch(/NaN|undefined/);
    expect(source).toContain('1 step, ');
  });

  test('NaN and infinite values are said, not drawn', async () => {
    const run = simulatedRun();
    const metrics = run.metrics!.map((m, i) =>
      i >= 1190 ? { ...m, loss: i % 2 ? Number.NaN : Number.POSITIVE_INFINITY } : m,
    );
    const expansions = run.expansions!.map((e, i) =>
      i % 5 ? e : { ...e, ratio: Number.POSITIVE_INFINITY, fiOriginal: Number.NaN },
    );
    const modules = run.modules!.map((m, i) => (i % 3 ? m : { ...m, change: Number.NaN }));
    const validations = run.validations!.map((r) => ({ ...r, loss: Number.NaN, shuffled: Number.NaN }));
    const phases = [...run.phases!, { name: 'odd', seconds: Number.NaN, peakBytes: Number.NaN }];
    const report = await render({
      ...run,
      metrics,
      expansions,
      modules,
      phases,
      validations,
    });
    const page = parse(report.html);
    expect(page.querySelector('.alert')!.textContent).toContain(
      'The loss was not finite at 10 steps, first at step 1191.',
    );
    const finite = modules.filter((m) => Number.isFinite(m.change)).length;
    expect(report.charts.get('rank-change')).toContain(`n = ${finite}<`);
    for (const [name, svg] of report.charts) {
      expect(XMLValidator.validate(svg), name).toBe(true);
      expect(svg.replace(/<title>.*?<\/title>/g, ''), name).not.toMatch(/NaN|undefined|Infinity/);
    }
    expect(() => JSON.parse(page.querySelector('#run-data')!.textContent)).not.toThrow();
  });

  test('values that went through a JSON file as null are NaN again', () => {
    const copy = JSON.parse(JSON.stringify({ name: 'a', metrics: [{ step: 1, loss: Number.NaN }] })) as unknown;
    expect(parseRecord(copy).metrics[0]!.loss).toBeNaN();
  });

  test.each([
    [{}, 'run: name: '],
    [{ name: 'a', metrics: [{ step: -1, loss: 0 }] }, 'run: metrics[0].step: '],
    [{ name: 'a', metrics: [{ step: 1, loss: '0.5' }] }, 'run: metrics[0].loss: '],
    [{ name: 'a', colour: 'red' }, 'run: '],
  ])('a wrong record %j is refused in one line', (record, start) => {
    expect(() => parseRecord(record)).toThrow(start);
    try {
      parseRecord(record);
    } catch (error) {
      expect(String((error as Error).message)).not.toContain('\n');
    }
  });

  test.each([
    [
      'nothing adapted',
      {
        modules: [
          { path: 'a', rank: 1, change: 0 },
          { path: 'b', rank: 1, change: 0 },
        ],
      },
      'Nothing was adapted',
    ],
    [
      'captions cut',
      {
        data: {
          source: 's',
          splits: [
            { name: 'train', images: 9, cut: 2 },
            { name: 'test', images: 1, cut: 1 },
          ],
        },
      },
      '3 of 10 captions are longer than 77 ids',
    ],
    ['no test fired', { testEvery: 40, metrics: [{ step: 41, loss: 1 }] }, 'No expansion test was made in 41 steps'],
    [
      'nothing grew',
      { expansions: [{ step: 1, module: 'a', fiOriginal: 1, fiExpanded: 1, ratio: 1, expanded: false, rankAfter: 1 }] },
      'No module ever grew',
    ],
    ['copies', { results: { nearest: { measure: 'm', threshold: 1, below: 2, n: 9 } } }, '2 of 9 samples lie closer'],
  ] as ReadonlyArray<readonly [string, Partial<RunRecordInput>, string]>)('warns: %s', async (_, part, text) => {
    const healthy = await render({ name: 'a' });
    expect(healthy.html).not.toContain('class="alert"');
    const page = parse((await render({ name: 'a', ...part })).html);
    expect(page.querySelector('.alert')!.textContent).toContain(text);
  });

  test('says when SeLoRA is not better than LoRA', async () => {
    const score = (right: number): { question: string; right: number; n: number }[] => [
      { question: 'lungs right', right, n: 100 },
    ];
    const rows = [
      { method: 'LoRA r = 4', scores: score(70) },
      { method: 'SeLoRA', scores: score(40) },
    ];
    const { html: source } = await render({ name: 'a', method: 'selora', results: { obedience: { what: 'w', rows } } });
    expect(source).toContain('Lungs right: SeLoRA 40 of 100, LoRA r = 4 70 of 100. SeLoRA is worse.');
    const near = [
      { method: 'LoRA r = 4', scores: score(70) },
      { method: 'SeLoRA', scores: score(72) },
    ];
    const { html: close } = await render({
      name: 'a',
      method: 'selora',
      results: { obedience: { what: 'w', rows: near } },
    });
    expect(close).toContain('SeLoRA is higher, a difference within chance.');
  });
});

test('what was read off a picture stands below it, and not below those from other noise', async () => {
  const picture = (seed: number) => ({ label: 'adapted', seed, file: `samples/a-${seed}.png` });
  const readings = [{ report: 0, picture: 'adapted', text: 'a large effusion', right: false }];
  const { html: source } = await render({
    name: 'a',
    method: 'selora',
    samples: [{ report: 'clear', split: 'test', pictures: [picture(1), picture(1001), picture(2001)] }],
    results: { obedience: { what: 'w', rows: [], readings } },
  });
  const captions = all(parse(source), '.sample figcaption').map((node) => node.textContent!.trim());
  expect(captions).toEqual([
    'adapted, seed 1✗ wrong · read: a large effusion',
    'adapted, seed 1001',
    'adapted, seed 2001',
  ]);
});

test('of a run that drew hundreds of reports the page holds the first 48, and says where the others are', async () => {
  const samples = Array.from({ length: 60 }, (_, i) => ({
    report: `report ${i + 1}`,
    split: 'test',
    pictures: [{ label: 'adapted', file: `samples/${i + 1}.png` }],
  }));
  const settings = { sampler: 'ddim', sampleSteps: 20, guidance: 3 };
  const { html: source } = await render({ name: 'a', method: 'selora', settings, samples });
  const page = parse(source);
  const shown = all(page, '.sample blockquote').map((node) => node.textContent!.trim());
  expect([shown.length, shown[0], shown.at(-1)]).toEqual([48, 'report 1', 'report 48']);
  expect(all(page, '#pictures .lead')[0]!.textContent).toContain(
    'The first 48 held-out reports of 60, the others are in samples/, not chosen',
  );
});
