/** Whatever a name, a text or a file holds, no command hands a terminal anything but printable lines; failures are one of them. */
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Main } from '../../../train/cli/command.ts';
import { main as generate } from '../../../train/generate.ts';
import { main as inspect } from '../../../train/inspect.ts';
import { main as train } from '../../../train/train.ts';
import { runCommand, writeCalmBase } from '../../support/commands.ts';
import { film } from '../../support/data-fixtures.ts';
import { casesOf, patience, scattered } from '../../support/drivers.ts';
import { payloads } from '../../support/hostile-texts.ts';
import { scratchFolder } from '../../support/run-state.ts';
import { encodeSafetensors } from '../../support/safetensors-bytes.ts';

const scratch = scratchFolder();
const at = (...names: readonly string[]) => path.join(scratch, ...names);
const fresh = () => mkdtempSync(at('x-'));
beforeAll(() => writeCalmBase(at('base')));

/** Names as most file systems take them. */
const asName = (text: string) => text.replace(/[/\0]/g, '|').slice(0, 60);
const wellFormed = (text: string) => Buffer.from(text, 'utf8').toString('utf8');
const short = '--steps 1 --samples 0 --backend cpu --resolution 16 --batch 1'.split(' ');

/** place → a command line that carries a text there */
const sinks: Readonly<Record<string, (text: string) => Promise<readonly [Main, readonly string[]]>>> = {
  'the text of a report': async (text) => {
    const data = fresh();
    for (const name of ['a.png', 'b.png']) writeFileSync(path.join(data, name), film);
    const rows = ['a.png', 'b.png'].map((file_name) =>
      JSON.stringify({ file_name, text: `${text} ${'long '.repeat(99)}` }),
    );
    writeFileSync(path.join(data, 'metadata.jsonl'), rows.join('\n'));
    return [inspect, [data, '--as', 'data', '--base', at('base')]];
  },
  'the name of a file': async (text) => {
    const data = fresh();
    writeFileSync(path.join(data, 'metadata.jsonl'), JSON.stringify({ file_name: asName(text), text: 'x' }));
    return [inspect, [data, '--as', 'data']];
  },
  'a prompt': async (text) => [
    generate,
    ['--base', at('base'), '--prompt', text, '--steps', '1', '--backend', 'cpu', '--out', path.join(fresh(), 'drawn')],
  ],
  'the name of a run': async (text) => {
    const data = fresh();
    writeFileSync(path.join(data, 'metadata.csv'), 'file_name,text\n');
    return [train, ['--data', data, '--base', at('base'), '--out', path.join(fresh(), asName(text)), ...short]];
  },
  'the name of a tensor': async (text) => {
    const file = path.join(fresh(), 'x.safetensors');
    const one = { dtype: 'F32' as const, shape: [1], data: Float32Array.of(1) };
    writeFileSync(file, await encodeSafetensors(new Map([[wellFormed(text), one]])));
    return [inspect, [file, '--as', 'tensors']];
  },
  'a text of a configuration': async (text) => {
    const base = fresh();
    mkdirSync(path.join(base, 'unet'));
    const config = JSON.parse(readFileSync(at('base/unet/config.json'), 'utf8'));
    writeFileSync(path.join(base, 'unet/config.json'), JSON.stringify({ ...config, down_block_types: [text, text] }));
    return [inspect, [base, '--as', 'base']];
  },
  'the value of an option': async (text) => [train, ['--method', text, '--base', at('base')]],
};

// what could move a cursor, begin a line, turn text round or hide it; stated apart from the program's own list
const unfit = /[\p{Cc}\p{Zl}\p{Zp}\p{Cs}]|\p{Bidi_Control}/u;
async function shows(main: Main, args: readonly string[], about: string): Promise<void> {
  const { code, stdout, stderr } = await runCommand(main, args);
  for (const line of [...stdout.split('\n'), ...stderr.split('\n')])
    expect(unfit.test(line), `${about}: ${JSON.stringify(line)}`).toBe(false);
  if (code !== 0) {
    expect(stderr.trimEnd().split('\n'), about).toHaveLength(1);
    expect(stderr, about).not.toContain('SELORA_DEBUG');
  }
}

describe('no text of a stranger', () => {
  it('reaches the terminal as more than letters', { timeout: patience('terminal', 120_000) }, async () => {
    for (const text of scattered(payloads, casesOf('terminal')))
      for (const [sink, make] of Object.entries(sinks)) {
        const [main, args] = await make(text);
        await shows(main, args, `${JSON.stringify(text)} as ${sink}`);
      }
  });
  it('would go unnoticed', async () => {
    const bare: Main = async ([text], io) => {
      io.stdout.write(`adapters for ${text}\n`);
    };
    await expect(shows(bare, ['a\u001b[2Jb'], 'bare')).rejects.toThrow('bare');
    const two: Main = async () => {
      throw Object.assign(new RangeError('x'), { message: 'one' });
    };
    await shows(two, [], 'one line');
  });
});
