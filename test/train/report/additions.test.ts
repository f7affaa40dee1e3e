/** A new panel is one file and one line, a new metric too: toys of both, from the run's folder into the page. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { z } from 'zod';
import { METRICS } from '../../../train/metrics/index.ts';
import { defineMetric, lacking, type Material } from '../../../train/metrics/metric.ts';
import { html } from '../../../train/report/html.ts';
import { renderReport } from '../../../train/report/page.ts';
import { definePanel } from '../../../train/report/panel.ts';
import { PANELS } from '../../../train/report/panels/index.ts';
import { readRun } from '../../../train/run/read.ts';
import { all, parse } from '../../support/report-dom.ts';

const folder = mkdtempSync(join(tmpdir(), 'selora-additions-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

// What would be train/report/panels/rate.ts …
const rate = definePanel<number>({
  id: 'rate',
  title: 'Highest learning rate',
  data: (run) => (run.metrics.length === 0 ? undefined : Math.max(...run.metrics.map((row) => row.lr ?? 0))),
  draw: (highest) => ({ body: html`<p>${highest}</p>`, charts: { rate: '<svg viewBox="0 0 1 1"></svg>' } }),
  headlines: () => [{ place: -1, label: 'Rate', value: 'first of all' }],
  warnings: (run) => (run.metrics.length > 1 ? ['more than one step'] : []),
});

// … and train/metrics/brightness.ts: the mean of the adapted pictures.
const result = z.object({ mean: z.number() });
const brightness = defineMetric<z.output<typeof result>>({
  name: 'brightness',
  doc: 'mean of the adapted pictures',
  source: 'a toy',
  needs: { adapted: 2 },
  result,
  compute: ({ adapted }) => ({ mean: adapted[0]!.reduce((a, b) => a + b, 0) / adapted[0]!.length }),
  lines: ({ mean }) => [`brightness ${mean}`],
  panel: definePanel<number>({
    id: 'brightness',
    title: 'Brightness',
    data: (run) => result.safeParse(run.results.brightness).data?.mean,
    draw: (mean) => ({ body: html`<p>mean ${mean}</p>` }),
  }),
});

const pictures = (n: number) => Array.from({ length: n }, () => Float32Array.of(0.25, 0.75));
const material = (n: number): Material => ({
  side: 1,
  reports: [],
  real: [],
  autoencoder: [],
  base: [],
  adapted: pictures(n),
  training: [],
  method: 'lora',
  parameters: 1,
  guidance: 1,
  keep: async (name) => `samples/${name}.png`,
});

test('from rows and results in the folder to the page, its head and its files', async () => {
  const run = join(folder, 'run');
  mkdirSync(run);
  writeFileSync(join(run, 'config.json'), JSON.stringify({ method: 'lora', rank: 4 }));
  const rows = [1, 2, 3].map((step) => ({ step, loss: 1 / step, lr: step / 8 }));
  writeFileSync(join(run, 'metrics.jsonl'), rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  const measured = await brightness.compute(material(2));
  writeFileSync(join(run, 'brightness.json'), JSON.stringify(measured));
  expect(brightness.lines(measured)).toEqual(['brightness 0.5']);

  const report = await renderReport(await readRun(run), [...PANELS, rate, brightness.panel]);
  const page = parse(report.html);
  const text = (id: string) => page.querySelector(`#${id} p`)!.textContent;
  expect([text('rate'), text('brightness')]).toEqual(['0.375', 'mean 0.5']);
  expect(all(page, 'nav a').map((a) => a.textContent)).toEqual(
    expect.arrayContaining(['Highest learning rate', 'Brightness']),
  );
  expect(all(page, '.numbers .value')[0]!.textContent).toBe('first of all');
  expect(page.querySelector('.alert')!.textContent).toContain('more than one step');
  expect(report.charts.get('rate')).toContain('xmlns');
  // Without the two nothing of them is left: every panel stands for itself.
  const without = (await renderReport(await readRun(run))).html;
  expect(without).not.toMatch(/brightness|Highest learning rate|more than one step/);
});

test('a metric says what it lacks', () => {
  expect(lacking(brightness, material(2))).toBeUndefined();
  expect(lacking(brightness, material(1))).toBe('adapted: 1 of 2');
});

test('every metric says what it is, and its result has a file of its own beside the run’s', () => {
  const names = METRICS.map((m) => m.name);
  expect(new Set(names).size).toBe(names.length);
  for (const { name, doc, source } of METRICS) {
    expect(name).toMatch(/^[a-z][a-z0-9-]*$/);
    expect(['config', 'facts', 'split']).not.toContain(name);
    expect(doc.length * source.length).toBeGreaterThan(0);
  }
});

test('one line in the index is all that a panel or a metric has outside its file', () => {
  const index = (path: string) => readFileSync(join(import.meta.dirname, '../../..', path), 'utf8');
  for (const name of ['loss', 'ranks', 'growth', 'costs', 'repeat'])
    expect(index('train/report/panels/index.ts').split(`${name},`).length).toBe(2);
  for (const name of ['obedience', 'nearest'])
    expect(index('train/metrics/index.ts')).toContain(`import { ${name} } from './${name}.ts';`);
});
