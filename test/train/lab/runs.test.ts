/** Runs beside the lab: what the server tells of a folder, what it refuses, and the page in a browser while a run goes on. */
import { spawn } from 'node:child_process';
import {
  appendFileSync,
  cpSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { serveLab } from '../../../train/lab/serve.ts';
import { openCommand } from '../../../train/lab/watch.ts';
import { renderReport } from '../../../train/report/page.ts';
import { readRun } from '../../../train/run/read.ts';
import type { RunRecord } from '../../../train/run/record.ts';
import { browserThere } from '../../support/browser.ts';
import { programOf } from '../../support/commands.ts';
import { axeFaults, drawn, type OpenedLab, openLab, unreached, visit } from '../../support/lab.ts';
import { LONG, longTest } from '../../support/long.ts';
import { parse } from '../../support/report-dom.ts';
import { folderWithPicture, simulatedRun } from '../../support/report-fixture.ts';
import { scratch } from '../../support/scratch.ts';
import { out, prepare, settingsOf } from '../../support/small-runs.ts';

const root = join(scratch, 'shown');
const at = (...names: readonly string[]): string => join(root, ...names);

/** A run's folder as the trainer leaves it at a step. */
async function writeRun(name: string, steps: number, more: Readonly<Record<string, unknown>> = {}): Promise<void> {
  const run = simulatedRun();
  mkdirSync(at(name, 'samples'), { recursive: true });
  await folderWithPicture(at(name));
  const pictures = [{ label: 'real', file: 'samples/here.png' }];
  writeFileSync(
    at(name, 'samples', 'samples.json'),
    JSON.stringify([{ report: 'A report.', split: 'test', pictures }]),
  );
  const settings = { ...run.settings, method: run.method, rank: 1, testEvery: 40, compare: [], ...more };
  writeFileSync(at(name, 'config.json'), JSON.stringify(settings));
  const facts = {
    command: run.command,
    modules: run.modules,
    validation: run.validation,
    environment: run.environment,
  };
  writeFileSync(at(name, 'facts.json'), JSON.stringify(facts));
  writeFileSync(at(name, 'metrics.jsonl'), '');
  addRows(name, 1, steps);
}
/** More rows of it. */
function addRows(name: string, from: number, to: number): void {
  const { metrics, expansions, validations } = simulatedRun();
  for (let step = from; step <= to; step++) {
    const { step: _, ...validation } = validations!.find((v) => v.step === step) ?? { step };
    const tests = expansions!.filter((e) => e.step === step).map(({ step: _, ...test }) => test);
    const row = {
      ...metrics![step - 1]!,
      ...(tests.length > 0 ? { tests } : {}),
      ...('loss' in validation ? { validation } : {}),
    };
    appendFileSync(at(name, 'metrics.jsonl'), `${JSON.stringify(row)}\n`);
  }
}

beforeAll(async () => {
  await writeRun('first', 240);
  await writeRun('methods/second', 120, { lambda: 1.3, method: 'lora' });
  writeFileSync(join(scratch, 'secret.txt'), 'secret');
  mkdirSync(join(scratch, 'elsewhere'));
  cpSync(at('first'), join(scratch, 'elsewhere', 'run'), { recursive: true });
  symlinkSync(join(scratch, 'elsewhere'), at('link'));
  symlinkSync(join(scratch, 'secret.txt'), at('first', 'samples', 'secret.png'));
  cpSync(at('first'), at('linked'), { recursive: true });
  rmSync(at('linked', 'samples'), { recursive: true });
  symlinkSync(join(scratch, 'elsewhere', 'run', 'samples'), at('linked', 'samples'));
  mkdirSync(at('no-run'));
  writeFileSync(at('first', 'trace-step-10.safetensors'), 'ten');
  writeFileSync(at('first', 'trace-step-9.safetensors'), 'nine');
  writeFileSync(at('first', 'trace.safetensors'), 'other');
  symlinkSync(join(scratch, 'secret.txt'), at('first', 'trace-step-3.safetensors'));
});

describe('the server', () => {
  let site: Awaited<ReturnType<typeof serveLab>>;
  const get = (name: string) => fetch(`${site.address}runs/${name}`);
  beforeAll(async () => {
    mkdirSync(join(scratch, 'page'));
    writeFileSync(join(scratch, 'page', 'index.html'), '<p>here');
    site = await serveLab(join(scratch, 'page'), 0, root);
  });
  afterAll(() => site.close());

  test('lists the runs below the folder, links left out', async () => {
    const list = (await (await get('index.json')).json()) as { name: string; method: string; step: number }[];
    expect(list.find(({ name }) => name === 'first')).toMatchObject({
      traces: ['trace-step-9.safetensors', 'trace-step-10.safetensors'],
    });
    expect(list.map(({ name, method, step }) => [name, method, step]).sort()).toEqual([
      ['first', 'selora', 240],
      ['linked', 'selora', 240],
      ['methods/second', 'lora', 120],
    ]);
  });

  test('tells a record as the folder has it, and nothing of where it lies', async () => {
    const { record, end } = (await (await get('first/record.json')).json()) as {
      record: Record<string, unknown>;
      end: number;
    };
    expect(end).toBe(readFileSync(at('first', 'metrics.jsonl')).length);
    const { folder: _, ...whole } = await readRun(at('first'));
    expect(record).toEqual({ ...JSON.parse(JSON.stringify(whole)), folder: '' });
    expect(JSON.stringify(record)).not.toContain(scratch);
    expect((await get('methods%2Fsecond/record.json')).status).toBe(200);
  });

  test('hands out pictures of a run, and nothing else of it or beside it', async () => {
    const recorded = await get('first/trace-step-9.safetensors');
    expect([recorded.status, await recorded.text()]).toEqual([200, 'nine']);
    const picture = await get('first/samples/here.png');
    expect([picture.status, picture.headers.get('content-type')]).toEqual([200, 'image/png']);
    expect(picture.headers.get('content-security-policy')).toBe("default-src 'none'");
    for (const name of [
      'first/config.json',
      'first/samples/secret.png',
      'linked/samples/here.png',
      'first/samples/..%2f..%2f..%2fsecret.txt',
      'first/samples/../../../secret.txt',
      '..%2Felsewhere%2Frun/record.json',
      'link%2Frun/record.json',
      'no-run/record.json',
      'first%00/record.json',
      '%E0%A4%A/record.json',
      'first/rows?from=-1',
      'first/rows?from=x',
      'first/trace-step-2.safetensors',
      'first/trace-step-2.safetensors/x',
      'first/trace-step-3.safetensors',
      'first/trace.safetensors',
      '',
    ])
      expect((await get(name)).status, name).toBe(404);
  });

  test('answers nobody who calls this machine by a foreign name', async () => {
    const { port } = new URL(site.address);
    const status = await new Promise((resolve, reject) => {
      request({ port, host: '127.0.0.1', path: '/runs/index.json', headers: { host: 'evil.example' } }, (answer) => {
        answer.resume();
        resolve(answer.statusCode);
      })
        .on('error', reject)
        .end();
    });
    expect(status).toBe(403);
  });

  test('a folder that is broken is told in a line', async () => {
    await writeRun('broken', 3);
    appendFileSync(at('broken', 'metrics.jsonl'), '{"step":"four"}\n');
    const answer = await get('broken/record.json');
    expect([answer.status, await answer.text()]).toEqual([
      500,
      expect.stringMatching(/metrics\.jsonl: line 4\.step: .*\n$/),
    ]);
    rmSync(at('broken'), { recursive: true });
  });

  test('follows the rows: each once, whole, as it is written', async () => {
    await writeRun('live', 2);
    const { end } = (await (await get('live/record.json')).json()) as { end: number };
    const stop = new AbortController();
    const stream = await fetch(`${site.address}runs/live/rows?from=${end}`, { signal: stop.signal });
    expect(stream.headers.get('content-type')).toContain('text/event-stream');
    let heard = '';
    const reading = (async () => {
      for await (const bytes of stream.body!) heard += new TextDecoder().decode(bytes as Uint8Array);
    })().catch(() => undefined);
    addRows('live', 3, 4);
    await expect.poll(() => heard).toContain('"step":4');
    // half a row is none yet
    appendFileSync(at('live', 'metrics.jsonl'), '{"step":5,"loss":0.');
    writeFileSync(at('live', 'facts.json'), '{}');
    await expect.poll(() => heard).toContain('event: facts');
    appendFileSync(at('live', 'metrics.jsonl'), '25}\n');
    await expect.poll(() => heard).toContain('{"step":5,"loss":0.25}');
    expect([...heard.matchAll(/"step":(\d)/g)].map((m) => m[1])).toEqual(['3', '4', '5']);
    // a resume cuts off what it will write again
    truncateSync(at('live', 'metrics.jsonl'), end);
    await expect.poll(() => heard).toContain('event: restart');
    stop.abort();
    await reading;
    rmSync(at('live'), { recursive: true });
  });
});

test('what opens an address, where there is a desktop', () => {
  expect(openCommand('http://a', 'linux', {})).toBeUndefined();
  expect(openCommand('http://a', 'linux', { DISPLAY: ':0' })).toEqual(['xdg-open', 'http://a']);
  expect(openCommand('http://a', 'darwin', {})).toEqual(['open', 'http://a']);
  expect(openCommand('http://a', 'win32', {})![0]).toBe('cmd');
});

longTest(
  'train --watch: the page stands beside the run and ends with it',
  async () => {
    await prepare();
    const run = spawn(
      process.execPath,
      [...programOf('train'), '--watch', ...settingsOf('watched', '--steps 1000000')],
      { cwd: join(import.meta.dirname, '../../..'), stdio: ['ignore', 'pipe', 'ignore'] },
    );
    const over = new Promise((done) => run.on('close', done));
    let said = '';
    run.stdout.on('data', (text) => {
      said += text;
    });
    const place = () => /open (http:\/\/127\.0\.0\.1:\d+\/)#\/runs\?show=watched /.exec(said)?.[1];
    const soon = <T>(what: () => T) => expect.poll(what, { timeout: 120_000, interval: 200 });
    await soon(place).toBeDefined();
    const told = async () => {
      const answer = await fetch(`${place()}runs/watched/record.json`);
      const { record } = answer.ok ? ((await answer.json()) as { record: RunRecord }) : {};
      return [record?.name, record?.method, record?.metrics[1]?.step];
    };
    await soon(told).toEqual(['watched', 'selora', 2]);
    expect(await (await fetch(place()!)).text()).toContain('data-only="runs"');
    run.kill('SIGINT');
    expect(await over).toBe(130);
    await expect(fetch(place()!)).rejects.toThrow();
    expect(JSON.parse(readFileSync(join(out('watched'), 'config.json'), 'utf8'))).not.toHaveProperty('watch');
  },
  300_000,
);

describe.runIf(browserThere && LONG)('the page', () => {
  let lab: OpenedLab;
  beforeAll(async () => {
    lab = await openLab({ only: ['runs'], runs: root });
  }, 120_000);
  afterAll(() => lab?.close());
  const soon = <T>(what: () => Promise<T>) => expect.poll(what, { timeout: 60_000 });

  test('draws what the report draws, and goes on while the run does', async () => {
    const { page, faults } = await visit(lab, '#/runs?show=first');
    const parts = await page.evaluate(
      `[...document.querySelectorAll('[data-part]')].map((s) => [s.dataset.part, s.querySelector('h2')?.textContent ?? ''])`,
    );
    await soon(() => page.evaluate(`document.querySelector('.strip img').naturalWidth`)).toBeGreaterThan(0);
    const { html } = await renderReport(await readRun(at('first')));
    const sections = [...parse(html).querySelectorAll('section')] as unknown as {
      id: string;
      querySelector(s: string): { textContent: string };
    }[];
    expect(parts).toEqual([
      ['head', expect.anything()],
      ...sections.map((s) => [s.id, s.querySelector('h2').textContent]),
    ]);
    const charts = await page.evaluate(
      `[...document.querySelectorAll('.chart svg > title')].map((t) => t.textContent)`,
    );
    for (const title of ['Learning rate', 'Gradient norm', 'Validation loss by timestep', 'Total rank'])
      expect(charts).toContain(title);
    // the history of a module, where it is pointed at
    await page.locator('[data-module][tabindex="0"]').first().focus();
    await soon(() => page.locator('#tip').textContent()).toContain('of 6 tests');
    await page.locator('h1').click();

    expect(await page.locator('[data-steps]').getAttribute('data-steps')).toBe('240');
    addRows('first', 241, 260);
    await soon(() => page.locator('[data-steps]').getAttribute('data-steps')).toBe('260');
    expect(await page.locator('[data-part=loss] desc').first().textContent()).toContain('260 training steps');
    expect(faults).toEqual([]);
  });

  test('the keyboard reaches every control', async () => {
    const { page } = await visit(lab, '#/runs?show=methods%252Fsecond');
    // panels of a run come after the page
    await page.waitForSelector('[data-part="head"]');
    expect(await unreached(page)).toEqual([]);
  });

  test('two beside each other: where their settings differ, each compared with the other, a link to both', async () => {
    const { page, faults } = await visit(lab, '#/runs?show=first');
    await page.getByLabel('show methods/second').check();
    await soon(() => page.evaluate('location.hash')).toBe('#/runs?show=first,methods%252Fsecond');
    await soon(() => page.locator('[data-part=loss] .report').count()).toBe(2);
    const table = page.getByRole('region', { name: 'Settings that differ' });
    expect(await table.locator('tbody tr').allTextContents()).toEqual(['lambda1.11.3', 'methodseloralora']);
    expect(await page.locator('[data-part=loss] svg').first().textContent()).toContain('methods/second');
    const link = (await page.evaluate('location.hash')) as string;
    await page.evaluate(`location.hash = '#/runs?show=methods%252Fsecond'`);
    await drawn(page, '#/runs?show=methods%252Fsecond');
    expect(await page.locator('[data-part=loss] .report').count()).toBe(1);
    await page.evaluate(`location.hash = ${JSON.stringify(link)}`);
    await drawn(page, link);
    expect(await page.locator('[data-part=loss] .report').count()).toBe(2);
    expect(await axeFaults(page)).toEqual([]);
    await page.emulateMedia({ colorScheme: 'dark' });
    expect(await axeFaults(page, ['color-contrast'])).toEqual([]);
    await page.setViewportSize({ width: 390, height: 844 });
    expect(await page.evaluate('checks.fits(390)')).toMatchObject({ width: 390, out: [] });
    expect(faults).toEqual([]);
  });

  test('a name that is no run, and a host without runs, are told in a line', async () => {
    const { page } = await visit(lab, '#/runs?show=nothing', { fresh: true });
    expect(await page.locator('.error').textContent()).toContain('there is no such run');
    await page.route('**/runs/index.json', (route) => route.fulfill({ status: 404, body: 'none' }));
    await page.evaluate(`location.hash = '#/runs?show=first'`);
    await drawn(page, '#/runs?show=first');
    expect(await page.locator('main').textContent()).toContain('npm run train -- --watch');
    await page.close();
  });
});
