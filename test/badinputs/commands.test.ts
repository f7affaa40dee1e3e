/**
 * Bad (and good) inputs through the commands a person types: exit code, exactly one line on stderr that names the file,
 * nothing half-written, no crash. The corpus is optional (SELORA_BADINPUTS or ../shared/badinputs); the cases of our own
 * below run everywhere.
 */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { AdapterModule } from '../../models/io/adapter-file.ts';
import { writeAdapter } from '../../models/io/adapter-write.ts';
import { openBase } from '../../models/io/base.ts';
import type { Main } from '../../train/cli/command.ts';
import { writePng } from '../../train/data/pictures/image-write.ts';
import { main as generate } from '../../train/generate.ts';
import { main as inspect } from '../../train/inspect.ts';
import { main as merge } from '../../train/merge.ts';
import { linearsOf } from '../../train/model/model.ts';
import { main as train } from '../../train/train.ts';
import { type BadCase, badInputs, materialised } from '../support/bad-inputs.ts';
import { type Outcome, runCommand, runProcess, writeCalmBase } from '../support/commands.ts';
import { compiled } from '../support/compiled.ts';
import { all, parse } from '../support/report-dom.ts';

vi.setConfig({ testTimeout: 240_000, hookTimeout: 60_000 });

let scratch: string;
const at = (...names: readonly string[]) => path.join(scratch, ...names);
beforeAll(async () => {
  scratch = mkdtempSync(path.join(tmpdir(), 'selora-badcommands-'));
  await writeCalmBase(at('base'));
  await writeAdapter(at('fits.safetensors'), { modules: await fitting(), metadata: new Map() });
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** An adapter that fits the tiny base (and the corpus's model, which has the same sizes). */
async function fitting(): Promise<ReadonlyMap<string, AdapterModule>> {
  const [[name, [dOut, dIn]]] = linearsOf(await openBase(at('base'))).unet;
  const module = { A: new Float32Array(dIn).fill(1), B: new Float32Array(dOut).fill(1), rank: 1, dIn, dOut, scale: 1 };
  return new Map([[`unet.${name}`, module]]);
}

/** The manifest's rule for a refusal. */
function expectRefused({ code, stderr }: Outcome, file: string, words: readonly string[] = []): void {
  expect(code).toBe(1);
  expect(stderr.endsWith('\n')).toBe(true);
  expect(stderr.slice(0, -1)).not.toMatch(/\p{Cc}/u);
  expect(stderr.toLowerCase()).toContain(file.toLowerCase());
  if (words.length > 0)
    expect(
      words.filter((word) => stderr.toLowerCase().includes(word.toLowerCase())),
      stderr,
    ).not.toEqual([]);
  expect(stderr).not.toMatch(/SELORA_DEBUG|\bat .*:\d+:\d+/);
}

const clean = () => {
  expect(Object.getOwnPropertyNames(Object.prototype)).not.toContain('dtype');
  expect(Object.hasOwn(Object.prototype, 'polluted')).toBe(false);
};

const trainArgs = (data: string, base: string, out: string) => [
  '--data',
  data,
  '--base',
  base,
  '--out',
  out,
  '--steps',
  '1',
  '--samples',
  '0',
  '--resolution',
  '16',
  '--backend',
  'cpu',
];

describe('our own bad inputs, whatever command reads them', () => {
  const NAME = 'bad.safetensors';
  const header = (json: string, length = json.length) => {
    const bytes = Buffer.alloc(8 + json.length);
    bytes.writeBigUInt64LE(BigInt(length), 0);
    bytes.write(json, 8);
    return bytes;
  };
  const files: readonly (readonly [string, Buffer])[] = [
    ['empty', Buffer.alloc(0)],
    ['header longer than the file', header('{}', 1000)],
    ['header of 2⁶³ bytes', Buffer.from([0, 0, 0, 0, 0, 0, 0, 0x80])],
    ['no JSON', header('<xml/>')],
    ['offsets outside', header('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}')],
    ['a shape that overflows', header('{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}')],
    ['an unknown dtype', header('{"a":{"dtype":"F99","shape":[],"data_offsets":[0,0]}}')],
    ['a pickle', Buffer.from([0x80, 2, 0x63, 0x6f, 0x73, 0x0a])],
  ];
  it.each(files)('a safetensors file: %s', async (_why, bytes) => {
    writeFileSync(at(NAME), bytes);
    const prompt = ['--prompt', 'the cat', '--backend', 'cpu', '--steps', '1', '--out', at('never')];
    const commands: readonly (readonly [Main, readonly string[]])[] = [
      [inspect, [at(NAME)]],
      [inspect, [at(NAME), '--as', 'adapter']],
      [inspect, [at(NAME), '--as', 'base']],
      [merge, ['--base', at('base'), '--adapter', at(NAME), '--out', at('never')]],
      [merge, ['--base', at(NAME), '--adapter', at('fits.safetensors'), '--out', at('never')]],
      [generate, ['--base', at('base'), '--adapter', at(NAME), ...prompt]],
      [generate, ['--base', at(NAME), ...prompt]],
    ];
    for (const [main, args] of commands) expectRefused(await runCommand(main, args), NAME);
    expect(existsSync(at('never'))).toBe(false);
    clean();
  });

  const spoilt: readonly (readonly [string, string, (file: string) => void, readonly string[]])[] = [
    ['unet/config.json', 'no JSON', (f) => writeFileSync(f, '{"layers_per_block": 1,'), ['json']],
    [
      'unet/config.json',
      'a key of the wrong type',
      (f) => writeFileSync(f, readFileSync(f, 'utf8').replace(/"layers_per_block": \d/, '"layers_per_block": "two"')),
      ['layers_per_block'],
    ],
    [
      'unet/config.json',
      'more layers than weights',
      (f) => writeFileSync(f, readFileSync(f, 'utf8').replace(/"layers_per_block": \d/, '"layers_per_block": 2')),
      ['missing'],
    ],
    [
      'vae/config.json',
      'widths that groups do not divide',
      (f) => writeFileSync(f, readFileSync(f, 'utf8').replace(/"norm_num_groups": \d/, '"norm_num_groups": 3')),
      ['norm_num_groups', 'divisible'],
    ],
    ['text_encoder/model.safetensors', 'cut off', (f) => truncateSync(f, 2000), ['header', 'end', 'short', 'bytes']],
    ['tokenizer/vocab.json', 'an array', (f) => writeFileSync(f, '[]'), ['object']],
    [
      'scheduler/scheduler_config.json',
      'beta above 1',
      (f) => writeFileSync(f, '{"_class_name":"DDIMScheduler","beta_end":2}'),
      ['beta_end'],
    ],
  ];
  it.each(spoilt)('a base: %s, %s', async (file, _why, spoil, words) => {
    rmSync(at('spoilt'), { recursive: true, force: true });
    await writeCalmBase(at('spoilt'));
    spoil(at('spoilt', file));
    const named = words[0] === 'missing' ? 'unet' : file;
    const data = await goodData();
    const commands: readonly (readonly [Main, readonly string[]])[] = [
      [inspect, [at('spoilt')]],
      [merge, ['--base', at('spoilt'), '--adapter', at('fits.safetensors'), '--out', at('never')]],
      [generate, ['--base', at('spoilt'), '--prompt', 'x', '--backend', 'cpu', '--out', at('never')]],
      [train, trainArgs(data, at('spoilt'), at(`run-${Math.random()}`))],
    ];
    for (const [main, args] of commands) expectRefused(await runCommand(main, args), named, words);
    expect(existsSync(at('never'))).toBe(false);
  });

  /** Six small pictures with texts. */
  async function goodData(): Promise<string> {
    const folder = at('good');
    if (existsSync(folder)) return folder;
    mkdirSync(folder);
    const names = Array.from({ length: 6 }, (_, i) => `${i}.png`);
    for (const [i, name] of names.entries())
      await writePng(
        path.join(folder, name),
        Float32Array.from({ length: 16 * 16 * 3 }, (_, j) => Math.sin(i + j)),
        16,
      );
    writeFileSync(
      path.join(folder, 'metadata.csv'),
      `file_name,text\n${names.map((n) => `${n},the cat`).join('\n')}\n`,
    );
    return folder;
  }

  const tables: readonly (readonly [string, string, readonly string[]])[] = [
    ['a path that leaves the folder', 'file_name,text\n../good/0.png,x\n', ['outside']],
    ['an address', 'file_name,text\nhttp://127.0.0.1/0.png,x\n', ['address', 'http']],
    ['no text column', 'file_name,colour\n0.png,x\n', ['text']],
    ['a picture that is not there', 'file_name,text\nnone.png,x\n', ['not there']],
    ['an open quote', 'file_name,text\n0.png,"x\n', ['quote']],
    ['nothing', '', ['file_name', 'empty', 'header', 'pair']],
  ];
  it.each(tables)('a data folder: %s', async (_why, table, words) => {
    await goodData();
    rmSync(at('bad-data'), { recursive: true, force: true });
    mkdirSync(at('bad-data'));
    writeFileSync(at('bad-data', '0.png'), readFileSync(at('good', '0.png')));
    writeFileSync(at('bad-data', 'metadata.csv'), table);
    const out = at(`run-${Math.random()}`);
    for (const [main, args] of [
      [inspect, [at('bad-data'), '--base', at('base')]],
      [train, trainArgs(at('bad-data'), at('base'), out)],
    ] as const)
      expectRefused(await runCommand(main, args), 'metadata.csv', words);
    expectNoRun(out);
  });

  it('good inputs are taken by the same commands', async () => {
    const data = await goodData();
    expect(await runCommand(inspect, [data])).toMatchObject({ code: 0, stderr: '' });
    expect(await runCommand(inspect, [at('base')])).toMatchObject({ code: 0, stderr: '' });
    expect(await runCommand(inspect, [at('fits.safetensors')])).toMatchObject({ code: 0, stderr: '' });
  });
});

/** No folder that one could take for a finished run. */
function expectNoRun(out: string): void {
  const names = existsSync(out) ? readdirSync(out) : [];
  for (const name of ['adapter.safetensors', 'best.safetensors', 'report.html']) expect(names).not.toContain(name);
}

const corpus = badInputs();
const casesOf = (...kinds: readonly string[]) =>
  (corpus?.cases ?? []).filter(({ kind }) => kinds.includes(kind)).map((c) => [c.id, c.expect, c] as const);

let made: ReadonlyMap<string, string>;
beforeAll(() => {
  if (corpus !== undefined) made = materialised(corpus, at('cases'));
});

/** The path to give to the program; no command changes what it is given. */
const pathOf = (id: string): string => made.get(id)!;

/** The manifest's verdict on what a command did. */
function judge(bad: BadCase, outcome: Outcome, seconds: number): 'accept' | 'reject' {
  const verdict = outcome.code === 0 ? 'accept' : 'reject';
  if (bad.expect !== 'either') expect(verdict, outcome.stderr).toBe(bad.expect);
  if (verdict === 'reject') expectRefused(outcome, bad.message_names?.file ?? '', bad.message_names?.any_of ?? []);
  else expect(outcome.stderr).toBe('');
  for (const secret of (bad as { must_not_appear?: readonly string[] }).must_not_appear ?? [])
    expect(outcome.stdout + outcome.stderr).not.toContain(secret);
  // a busy machine is no fault of the program
  expect(seconds).toBeLessThan(4 * (bad.limits?.seconds ?? 60));
  clean();
  return verdict;
}

async function timed(run: Promise<Outcome>): Promise<readonly [Outcome, number]> {
  const start = performance.now();
  return [await run, (performance.now() - start) / 1000];
}

describe.runIf(corpus !== undefined)('the corpus through inspect', () => {
  it.each(casesOf('safetensors', 'image', 'table', 'config', 'layout'))('%s: %s', async (id, _expect, bad) => {
    // the tiny base's tokenizer: reading CLIP's takes longer than most folders
    const words = bad.kind === 'image' || bad.kind === 'table' ? ['--base', at('base')] : [];
    const [outcome, seconds] = await timed(runCommand(inspect, [pathOf(id), ...words]));
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
    const verdict = judge(bad, ...(await timed(runCommand(merge, args))));
    expect(existsSync(out)).toBe(verdict === 'accept');
  });

  it.each(casesOf('image', 'table').filter(([, verdict]) => verdict === 'reject'))(
    '%s as the data of train: %s',
    async (id, _expect, bad) => {
      const out = at('runs', id);
      const args = trainArgs(pathOf(id), path.join(corpus!.folder, 'model-base'), out);
      judge(bad, ...(await timed(runCommand(train, args))));
      expectNoRun(out);
    },
  );

  it.each(casesOf('config', 'layout').filter(([, verdict]) => verdict === 'reject'))(
    '%s as the base of train: %s',
    async (id, _expect, bad) => {
      const out = at('runs', id);
      const args = trainArgs(path.join(corpus!.folder, 'data-base'), pathOf(id), out);
      judge(bad, ...(await timed(runCommand(train, args))));
      expectNoRun(out);
    },
  );

  it('trains on a text with script tags, and the report shows it as text', async () => {
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

/** One of each kind as processes of their own: start-up, streams and exit codes are the real ones. */
const SAMPLE = [
  'st-header-length-2e63',
  'st-json-deep',
  'png-claims-2g',
  'csv-url',
  'xml-billion-laughs',
  'cfg-vocab-trillion',
  'lay-ok',
  'csv-ok-long-text',
];

describe.runIf(corpus !== undefined)('a sample of the corpus as processes', async () => {
  const program = await compiled(path.join(import.meta.dirname, '../../train/inspect.ts'));
  it.each((corpus?.cases ?? []).filter(({ id }) => SAMPLE.includes(id)).map((c) => [c.id, c.expect, c] as const))(
    '%s: %s',
    async (id, _expect, bad) => {
      const outcome = await runProcess('inspect', [pathOf(id)], [program]);
      expect(outcome.signal).toBe(null);
      judge(bad, outcome, 0);
    },
  );
});
