/** What a person mistypes is told before the run has a folder, or hours of work behind it. */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import type * as Open from '../../../core/backends/open.ts';
import type { Json } from '../../../models/io/json.ts';
import { encodePng } from '../../../train/data/pictures/image-write.ts';
import { loadCheckpoint, saveCheckpoint } from '../../../train/run/checkpoint.ts';
import { changeConfig, openRun } from '../../../train/run/folder.ts';
import { readComparison } from '../../../train/run/read.ts';
import { main as train } from '../../../train/train.ts';
import { runCommand, writeCalmBase } from '../../support/commands.ts';
import { folder, rows, scratch } from '../../support/data-fixtures.ts';

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
/** backends open now */
const open = vi.hoisted(() => ({ backends: 0 }));
vi.mock('../../../core/backends/open.ts', async (original) => {
  const real = await original<typeof Open>();
  const openBackend: typeof real.openBackend = async (...args) => {
    const backend = await real.openBackend(...args);
    open.backends++;
    let closed = false;
    const close = async () => {
      if (!closed) open.backends--;
      closed = true;
      await backend.close();
    };
    return new Proxy(backend, { get: (b, key) => (key === 'close' ? close : Reflect.get(b, key, b)) });
  };
  return { ...real, openBackend };
});

const pictures: Uint8Array[] = [];
/** twelve pairs of pictures of 16 × 16, ten of them to train on */
const twelve = (): string =>
  folder({
    'metadata.csv': rows(...Array.from({ length: 12 }, (_, i) => `${i}.png,lung ${i}`)),
    ...Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`${i}.png`, pictures[i]!])),
  });
/** one number of a JSON text changed, its layout with it */
const respelled = (text: string, key: string, value: number): string =>
  JSON.stringify({ ...JSON.parse(text), [key]: value });
beforeAll(async () => {
  await writeCalmBase(base);
  for (let i = 0; i < 12; i++)
    pictures.push(
      await encodePng(
        Float32Array.from({ length: 16 * 16 * 3 }, (_, k) => Math.sin(i + Math.floor(k / 3) * (0.05 + 0.02 * i))),
        16,
      ),
    );
});

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

describe('before the base is opened', () => {
  // a base that does not exist is not the complaint: nobody looked
  const start = (...more: string[]) =>
    refused(['--base', 'no-such-base', '--out', out, '--backend', 'cpu', '--steps', '3', ...more]);
  test('data that are not there', async () => {
    expect(await start('--data', 'no-such-folder')).toMatch(/^no-such-folder: data: no such folder/);
    expect(existsSync(out)).toBe(false);
  });
  test('a batch larger than the training part', async () => {
    expect(await start('--pairs', '30', '--batch', '2000')).toBe(
      '--batch 2000: the training part has 24 pairs, expected at most as many\n',
    );
    expect(await start('--data', twelve(), '--batch', '11')).toMatch(/^--batch 11: the training part has 10 pairs/);
    expect(existsSync(out)).toBe(false);
  });
  test('but the default batch takes what there is, and says so', async () => {
    const args = words(`--pairs 20 --split 25/25/50 --base no-such-base --out ${out} --backend cpu`);
    const { stdout, stderr } = await runCommand(train, args);
    expect(stdout).toBe('the training part has 5 pairs: --batch 5 instead of 8\n');
    expect(stderr).toMatch(/^no-such-base/);
  });
  test("--out on somebody else's folder, which stays as it was", async () => {
    const foreign = join(scratch, 'foreign');
    mkdirSync(foreign);
    writeFileSync(join(foreign, 'config.json'), '{\n  "_class_name": "UNet2DConditionModel"\n}\n');
    expect(await refused(['--base', 'no-such-base', '--backend', 'cpu', '--out', foreign])).toMatch(
      /foreign: is not empty; choose another folder$/m,
    );
    expect(readdirSync(foreign)).toEqual(['config.json']);
  });
  test('--compare with no run in it, a --memory of nothing', async () => {
    expect(await start('--compare', 'no-such-run')).toMatch(/^no-such-run\/config\.json: no such file/);
    expect(await start('--memory', '-1')).toMatch(/^--memory: is -1, expected more than 0/);
  });
  test('and where only the base is wrong, it is the base that is told', async () => {
    expect(await start('--pairs', '20')).toMatch(/^no-such-base: no such file/);
    expect(existsSync(out)).toBe(false);
  });
});

describe('a start that fails later', () => {
  test('on a base that cannot be loaded leaves no folder, and no backend open', async () => {
    const spoilt = join(scratch, 'spoilt');
    await writeCalmBase(spoilt);
    const file = join(spoilt, 'text_encoder/model.safetensors');
    const bytes = readFileSync(file);
    bytes.writeUInt32LE(0x7fc00000, bytes.length - 4);
    writeFileSync(file, bytes);
    const place = join(scratch, 'deep/er/run');
    const args = ['--pairs', '20', '--base', spoilt, '--out', place, '--backend', 'cpu', '--steps', '3'];
    expect(await refused(args)).toMatch(/model\.safetensors: .*NaN/);
    expect(existsSync(join(scratch, 'deep'))).toBe(false);
    expect(open.backends).toBe(0);
  });
  test.each(['--estimate', '--memory 1'])('%s on a backend without plans: closed again', async (more) => {
    const args = ['--pairs', '20', '--base', base, '--out', out, '--backend', 'cpu', ...words(more)];
    expect(await refused(args)).toMatch(/^--(estimate|memory): plans are made for wasm and webgpu/);
    expect([existsSync(out), open.backends]).toEqual([false, 0]);
  });
  test.skipIf(process.platform !== 'linux')('--out below /proc is told at once', async () => {
    const args = ['--pairs', '20', '--base', base, '--backend', 'cpu', '--out', '/proc/no-such-place/run'];
    expect(await refused(args)).toMatch(/^\/proc\/no-such-place\/run: /);
    expect(open.backends).toBe(0);
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
  expect(existsSync(out)).toBe(false);
});

describe('a run gone on with', () => {
  const run = join(scratch, 'begun');
  const own = join(scratch, 'own-base');
  let data: string;
  const config = () => readFileSync(join(run, 'config.json'), 'utf8');
  const settings =
    '--method lora --rank 1 --steps 2 --batch 1 --samples 0 --obedience 0 --validation-pairs 1 --targets **.to_q --resolution 16 --backend cpu';
  beforeAll(async () => {
    await writeCalmBase(own);
    data = twelve();
    const args = [...words(settings), '--data', data, '--base', own, '--out', run];
    expect(await runCommand(train, args)).toMatchObject({ code: 0 });
  });
  /** with one file changed for as long as it takes; what is refused leaves the run as it was */
  async function changed(file: string, change: (text: string) => string, ...more: string[]): Promise<string> {
    const [before, kept] = [config(), readFileSync(file, 'utf8')];
    expect(change(kept)).not.toBe(kept);
    writeFileSync(file, change(kept));
    try {
      return await refused(['--resume', run, ...more]);
    } finally {
      writeFileSync(file, kept);
      expect(config()).toBe(before);
      expect(readdirSync(run).filter((name) => name.startsWith('lock'))).toEqual([]);
      expect(open.backends).toBe(0);
    }
  }
  test('--compare with no run in it changes nothing', async () => {
    const before = config();
    expect(await refused(['--resume', run, '--compare', 'no-such-run'])).toMatch(
      /^no-such-run\/config\.json: no such file/,
    );
    expect(config()).toBe(before);
  });
  test('changed data and a length that is passed are told before the base is opened', async () => {
    const hidden = join(scratch, 'hidden');
    renameSync(own, hidden);
    try {
      expect(await refused(['--resume', run, '--steps', '1'])).toBe(
        '--steps 1: this run has done 2 already; give 2 or more\n',
      );
      const table = join(data, 'metadata.csv');
      expect(await changed(table, (t) => t.replace('lung 3', 'lung of another'))).toMatch(
        /begun: data: was .* is .* now$/m,
      );
      expect(await changed(table, (t) => `${t}nowhere.png,x\n`)).toMatch(/nowhere\.png/);
      expect(await refused(['--resume', run])).toMatch(/own-base: no such file/);
    } finally {
      renameSync(hidden, own);
    }
  });
  test.each([
    ['unet/config.json', 'norm_eps', 1e-3, /base\.unet\.norm_eps: was 0\.00001 .* is 0\.001 now/],
    ['vae/config.json', 'scaling_factor', 0.2, /base\.vae\.scaling_factor: was not set .* is 0\.2 now/],
    ['scheduler/scheduler_config.json', 'beta_end', 0.02, /base\.scheduler\.beta_end: was 0\.012 .* is 0\.02 now/],
  ] as const)('a base whose %s has another %s is refused by the field', async (file, key, value, message) => {
    expect(await changed(join(own, file), (text) => respelled(text, key, value))).toMatch(message);
  });
  test('two ids of the tokenizer swapped', async () => {
    const swap = (text: string) => {
      const table = JSON.parse(text) as Record<string, number>;
      const [a, b] = Object.keys(table) as [string, string];
      return JSON.stringify({ ...table, [a]: table[b], [b]: table[a] });
    };
    expect(await changed(join(own, 'tokenizer/vocab.json'), swap)).toMatch(/base\.tokenizer\.vocab\.json: was another/);
  });
  test('a checkpoint of an earlier version: its weights are compared, and a line says so', async () => {
    const old = join(scratch, 'old');
    cpSync(run, old, { recursive: true });
    const opened = (await openRun(old)).run;
    const { tensors, info } = (await loadCheckpoint(opened))!;
    const { baseFiles: _new, ...before } = info;
    // a setting that the version did not have, either
    const { noiseOffset: _later, ...settings } = opened.config as Record<string, Json>;
    const earlier = await changeConfig(opened, settings);
    await saveCheckpoint(earlier, tensors, before as typeof info);
    await opened.close();
    const again = await runCommand(train, ['--resume', old]);
    expect([again.code, again.stderr]).toEqual([0, '']);
    expect(again.stdout).toMatch(/^this run was saved by an earlier version: of its base the weights are compared/m);
    expect((await loadCheckpoint(old))!.tensors).toEqual(tensors);
  });
});

test('control bytes of names do not reach the terminal', async () => {
  const place = join(scratch, 'a\u001b]0;b\u0007c');
  const args =
    '--pairs 20 --steps 1 --batch 1 --samples 0 --obedience 0 --validation-pairs 1 --targets **.to_q --resolution 16 --backend cpu';
  const { code, stdout, stderr } = await runCommand(train, [...words(args), '--base', base, '--out', place]);
  expect([code, stderr.includes('\u001b]')]).toEqual([0, false]);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: finding control characters is the purpose
  expect(stdout.replaceAll('\n', '')).not.toMatch(/[\u0000-\u001f]/);
  expect(stdout).toContain('a\\u{1b}]0;b\\u{7}c');
});

test('a damaged log of a run to compare with is one line with its name', async () => {
  const other = join(scratch, 'other');
  mkdirSync(other);
  writeFileSync(join(other, 'config.json'), '{"method":"lora","rank":4}');
  writeFileSync(join(other, 'metrics.jsonl'), '{"step":1,"validation":{"loss":1,');
  await expect(readComparison(other)).rejects.toThrow(/metrics\.jsonl: /);
});
