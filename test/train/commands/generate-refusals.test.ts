/** `generate` refuses in one line what a person mistypes, writes over nothing, and ends on Ctrl-C. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { AdapterFile, AdapterModule } from '../../../models/io/adapter-file.ts';
import { openBase } from '../../../models/io/base.ts';
import { main } from '../../../train/generate.ts';
import { adaptersFromFile } from '../../../train/model/adapters.ts';
import { linearsOf } from '../../../train/model/model.ts';
import { wavyAdapter } from '../../support/adapters.ts';
import { programOf, runCommand, writeCalmBase } from '../../support/commands.ts';

// other processes may have all cores
vi.setConfig({ testTimeout: 180_000, hookTimeout: 60_000 });

let scratch: string;
let base: string;
const at = (name: string) => path.join(scratch, name);
beforeAll(async () => {
  scratch = mkdtempSync(path.join(tmpdir(), 'selora-generate-refusals-'));
  base = at('base');
  await writeCalmBase(base);
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const draw = (out: string, ...more: readonly string[]) =>
  runCommand(main, [
    ...['--base', base, '--backend', 'cpu', '--steps', '2', '--out', at(out)],
    ...(more.some((m) => m.startsWith('--prompt')) ? more : ['--prompt', 'the cat', ...more]),
  ]);
describe('refusals in one line', () => {
  it('does not write over other pictures unless told to', async () => {
    await draw('full');
    expect(await draw('full')).toMatchObject({ code: 0 });
    const refused = await draw('full', '--seed', '2');
    expect(refused).toMatchObject({ code: 1 });
    expect(refused.stderr).toMatch(/full: holds other files: .*--overwrite.*\n$/);
    expect(await draw('full', '--seed', '2', '--overwrite')).toMatchObject({ code: 0 });
  });

  it.each([
    [['--prompts', 'nowhere.txt'], 'nowhere.txt: no such file'],
    [['--resolution', '15'], 'multiples of 2'],
    [['--resolution', '99999'], 'up to 4096'],
    [['--resolution', '-4'], 'expected a side such as'],
    [['--sampler', 'magic'], 'Allowed choices are ddim'],
    [['--base', '/dev/null'], '/dev/null'],
    [['--adapter', 'nothing.safetensors'], 'nothing.safetensors: no such file'],
    [['--steps', '0'], 'whole number from 1'],
  ])('%j', async (options, words) => {
    const { code, stderr } = await draw('refused', ...options);
    expect(code).toBe(1);
    expect(stderr).toContain(words);
    expect(stderr.split('\n')).toHaveLength(2);
    expect(existsSync(at('refused'))).toBe(false);
  });

  it('a folder that cannot be made is told before anything is drawn', async () => {
    symlinkSync(at('nowhere/at/all'), at('dangling'));
    const { code, stdout, stderr } = await draw('dangling');
    expect([code, stderr]).toEqual([1, expect.stringMatching(/dangling: .*\n$/)]);
    expect(stdout).not.toContain('step 1/');
  });

  it('names modules that the base does not have, or of another size', async () => {
    const linears = linearsOf(await openBase(base));
    const { modules, metadata } = await wavyAdapter(base, 1, 1);
    const [[name, module]] = modules;
    const file = (entries: readonly (readonly [string, AdapterModule])[]): AdapterFile => ({
      modules: new Map(entries),
      metadata,
    });
    const open = (f: AdapterFile) => () => adaptersFromFile(f, linears, { file: 'x.safetensors' });
    expect(open(file([['unet.no_such.to_q', module]]))).toThrow(
      'x.safetensors: modules: unet.no_such.to_q is no linear',
    );
    expect(open(file([[name, { ...module, dIn: 5 }]]))).toThrow(/maps 5 → \d+, the base's layer 4 → /);
    expect(open(file([[name, { ...module, kernel: [3, 3], dIn: 9 * module.dIn }]]))).toThrow(
      /maps 36 → \d+, the base's layer 4 → /,
    );
    expect(open(file([]))).toThrow('it adapts nothing');
    // scales that differ are multiplied into B; ΔW stays
    const [, [other, second]] = modules;
    const two = adaptersFromFile(
      file([
        [name, { ...module, scale: 2 }],
        [other, { ...second, scale: 8 }],
      ]),
      linears,
    );
    expect(two.scale).toBe(1);
    expect(adaptersFromFile(file([[name, { ...module, scale: 2 }]]), linears).scale).toBe(2);
  });

  it('ends on Ctrl-C with exit code 130 and no pictures', async () => {
    const args = ['--base', base, '--backend', 'cpu', '--prompt', 'the cat', '--steps', '500', '--out', at('stopped')];
    const child = spawn(process.execPath, [...programOf('generate'), ...args]);
    let [stderr, stopped] = ['', false];
    child.stderr.on('data', (chunk) => {
      stderr += String(chunk);
    });
    child.stdout.on('data', (chunk) => {
      // once: a second Ctrl-C ends the process at once
      if (!stopped && String(chunk).includes('step')) stopped = child.kill('SIGINT');
    });
    const code = await new Promise((resolve) => child.on('close', resolve));
    expect([code, stderr]).toEqual([130, 'stopped by Ctrl-C\n']);
    expect(existsSync(at('stopped'))).toBe(false);
  });
});
