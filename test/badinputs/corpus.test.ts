/**
 * The corpus of bad (and good) inputs through the commands a person types, by the rules of its manifest. It is optional:
 * SELORA_BADINPUTS or ../shared/badinputs.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { writeAdapter } from '../../models/io/adapter-write.ts';
import { main as generate } from '../../train/generate.ts';
import { main as inspect } from '../../train/inspect.ts';
import { main as merge } from '../../train/merge.ts';
import { main as train } from '../../train/train.ts';
import { clean, expectNoRun, expectRefused, fitting, trainArgs } from '../support/bad-commands.ts';
import { type BadCase, badInputs, materialised } from '../support/bad-inputs.ts';
import { type Outcome, runCommand, runProcess, writeCalmBase } from '../support/commands.ts';
import { cpuSeconds } from '../support/cpu-seconds.ts';
import { LONG, longRows } from '../support/long.ts';
import { all, parse } from '../support/report-dom.ts';

vi.setConfig({ testTimeout: 240_000, hookTimeout: 60_000 });

let scratch: string;
const at = (...names: readonly string[]) => path.join(scratch, ...names);
beforeAll(async () => {
  scratch = mkdtempSync(path.join(tmpdir(), 'selora-badcommands-'));
  await writeCalmBase(at('base'));
  await writeAdapter(at('fits.safetensors'), { modules: await fitting(at('base')), metadata: new Map() });
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const corpus = badInputs();
const casesOf = (...kinds: readonly string[]) =>
  (corpus?.cases ?? []).filter(({ kind }) => kinds.includes(kind)).map((c) => [c.id, c.expect, c] as const);

let made: ReadonlyMap<string, string>;
beforeAll(() => {
  if (corpus !== undefined) made = materialised(corpus, at('cases'));
});

/** The path to give to the program; no command changes what it is given. */
const pathOf = (id: string): string => made.get(id)!;

/** The tiny base's tokenizer for pictures with texts: reading CLIP's takes longer than most folders. */
const tokenizerOf = ({ kind }: BadCase): readonly string[] =>
  kind === 'image' || kind === 'table' ? ['--base', at('base')] : [];

/** The manifest's verdict on what a command did. */
function judge(bad: BadCase, outcome: Outcome, seconds: number): 'accept' | 'reject' {
  const verdict = outcome.code === 0 ? 'accept' : 'reject';
  if (bad.expect !== 'either') expect(verdict, outcome.stderr).toBe(bad.expect);
  if (verdict === 'reject') expectRefused(outcome, bad.message_names?.file ?? '', bad.message_names?.any_of ?? []);
  else expect(outcome.stderr).toBe('');
  for (const secret of (bad as { must_not_appear?: readonly string[] }).must_not_appear ?? [])
    expect(outcome.stdout + outcome.stderr).not.toContain(secret);
  expect(seconds).toBeLessThan(4 * (bad.limits?.seconds ?? 60));
  clean();
  return verdict;
}

describe.runIf(corpus !== undefined)('the corpus through inspect', () => {
  it.each(casesOf('safetensors', 'image', 'table', 'config', 'layout'))('%s: %s', async (id, _expect, bad) => {
    const [outcome, seconds] = await cpuSeconds(() => runCommand(inspect, [pathOf(id), ...tokenizerOf(bad)]));
    if (judge(bad, outcome, seconds) === 'reject') return;
    for (const [name, wanted] of Object.entries(bad.value?.tensors ?? {})) {
      const line = outcome.stdout.split('\n').find((l) => l.startsWith(`${name} `));
      expect(line, name).toContain(` ${wanted.dtype} `);
      expect(line).toContain(`[${wanted.shape.join(', ')}]`);
      if (wanted.data.length > 16 || wanted.data.length === 0) continue;
      const values = line!.split(']').at(-1)!.trim().split(' ').map(Number);
      expect(values).toEqual(wanted.data.map((x) => expect.closeTo(Number(x), 6)));
    }
    const pairs = (bad.value as { rows_count?: number } | undefined)?.rows_count;
    if (pairs !== undefined) expect(outcome.stdout).toMatch(new RegExp(`pairs +${pairs}\n`));
  });
});

describe.runIf(corpus !== undefined)('the corpus through the commands that use the file', () => {
  it.each(casesOf('safetensors'))('%s as an adapter and as a base', async (_id, _expect, bad) => {
    // none of them is an adapter or a model: whatever they are as files, these commands say no
    const file = path.join(corpus!.folder, bad.file!);
    const name = path.basename(file);
    const asAdapter = await runCommand(merge, ['--base', at('base'), '--adapter', file, '--out', at('no')]);
    expectRefused(asAdapter, name);
    expectRefused(
      await runCommand(generate, ['--base', file, '--prompt', 'x', '--backend', 'cpu', '--out', at('no')]),
      name,
    );
    expect(existsSync(at('no'))).toBe(false);
    clean();
  });

  it.each(casesOf('config', 'layout'))('%s as the base of merge: %s', async (id, _expect, bad) => {
    const out = at('merged', id);
    const base = pathOf(id);
    const args = ['--base', base, '--adapter', at('fits.safetensors'), '--out', out];
    const verdict = judge(bad, ...(await cpuSeconds(() => runCommand(merge, args))));
    expect(existsSync(out)).toBe(verdict === 'accept');
  });

  it.each(casesOf('image', 'table').filter(([, verdict]) => verdict === 'reject'))(
    '%s as the data of train: %s',
    async (id, _expect, bad) => {
      const out = at('runs', id);
      const args = trainArgs(pathOf(id), path.join(corpus!.folder, 'model-base'), out);
      judge(bad, ...(await cpuSeconds(() => runCommand(train, args))));
      expectNoRun(out);
    },
  );

  it.each(casesOf('config', 'layout').filter(([, verdict]) => verdict === 'reject'))(
    '%s as the base of train: %s',
    async (id, _expect, bad) => {
      const out = at('runs', id);
      const args = trainArgs(path.join(corpus!.folder, 'data-base'), pathOf(id), out);
      judge(bad, ...(await cpuSeconds(() => runCommand(train, args))));
      expectNoRun(out);
    },
  );

  it.runIf(LONG)('trains on a text with script tags, and the report shows it as text', async () => {
    const out = at('runs', 'xss');
    const base = path.join(corpus!.folder, 'model-base');
    // nearly all pairs are held out, so that the text is among those drawn
    const shown = ['--split', '10/0/90', '--samples', '11', '--sample-steps', '1'];
    const args = [...trainArgs(pathOf('csv-ok-xss-script'), base, out), ...shown];
    const outcome = await runCommand(train, args);
    expect(outcome.code, outcome.stderr).toBe(0);
    const html = readFileSync(path.join(out, 'report.html'), 'utf8');
    const page = parse(html);
    expect(page.querySelector('body')!.textContent).toContain('<img src=x onerror="window.__pwned=2">');
    for (const script of all(page, 'script')) expect(script.textContent).not.toContain('__pwned');
    for (const element of all(page, '*'))
      for (const { name, value } of element.attributes) {
        expect(name).not.toMatch(/^on/);
        expect(value).not.toMatch(/^\s*javascript:/i);
        if (name === 'src') expect(value).toMatch(/^data:image\//);
      }
  });
});

/** One of each kind as processes of their own (every second one in the short form): start-up, streams and exit codes are the real ones. */
const SAMPLES = [
  'st-header-length-2e63',
  'st-json-deep',
  'png-claims-2g',
  'csv-url',
  'xml-billion-laughs',
  'cfg-vocab-trillion',
  'csv-ok-long-text',
  'lay-ok',
];
const SAMPLE = longRows(SAMPLES, (id) => SAMPLES.indexOf(id) % 2 === 0);

describe.runIf(corpus !== undefined)('a sample of the corpus as processes', () => {
  it.each((corpus?.cases ?? []).filter(({ id }) => SAMPLE.includes(id)).map((c) => [c.id, c.expect, c] as const))(
    '%s: %s',
    async (id, _expect, bad) => {
      const outcome = await runProcess('inspect', [pathOf(id), ...tokenizerOf(bad)]);
      expect(outcome.signal).toBe(null);
      judge(bad, outcome, 0);
    },
  );
});
