/**
 * Bad (and good) inputs of our own through the commands a person types: exit code, exactly one line on stderr that names
 * the file, nothing half-written, no crash.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { writeAdapter } from '../../models/io/adapter-write.ts';
import type { Main } from '../../train/cli/command.ts';
import { writePng } from '../../train/data/pictures/image-write.ts';
import { main as generate } from '../../train/generate.ts';
import { main as inspect } from '../../train/inspect.ts';
import { main as merge } from '../../train/merge.ts';
import { main as train } from '../../train/train.ts';
import { clean, expectNoRun, expectRefused, fitting, trainArgs } from '../support/bad-commands.ts';
import { runCommand, writeCalmBase } from '../support/commands.ts';

vi.setConfig({ testTimeout: 240_000, hookTimeout: 60_000 });

let scratch: string;
const at = (...names: readonly string[]) => path.join(scratch, ...names);
beforeAll(async () => {
  scratch = mkdtempSync(path.join(tmpdir(), 'selora-badcommands-'));
  await writeCalmBase(at('base'));
  await writeAdapter(at('fits.safetensors'), { modules: await fitting(at('base')), metadata: new Map() });
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

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
