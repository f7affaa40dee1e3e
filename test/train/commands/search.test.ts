/** `npm run search` on small runs: its losses are the trainer's, it goes on where it stopped, and its file is an adapter as any. */
import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { readAdapter } from '../../../models/io/adapter-file.ts';
import { main as generate } from '../../../train/generate.ts';
import { main } from '../../../train/search.ts';
import { runCommand } from '../../support/commands.ts';
import { base, log, out, prepare, start } from '../../support/small-runs.ts';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });
const common = '--rank 4 --samples 0 --steps 4 --final last --test-every 2';
beforeAll(async () => {
  await prepare();
  for (const [name, more] of [
    ['nested', '--method dylora'],
    ['plain', '--method lora'],
  ] as const) {
    const { code, stderr } = await start(name, `${common} ${more}`);
    expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
  }
});
const search = (name: string, ...more: string[]) => runCommand(main, ['--backend', 'wasm', '--threads', '1', '--out', out(name), '--run', out('nested'), ...more]); // biome-ignore format: one line
const rows = (name: string) => readFileSync(join(out(name), 'evaluations.jsonl'), 'utf8').trim().split('\n').map((l) => JSON.parse(l) as { choices: number[]; loss: number }); // biome-ignore format: one line
const parameters = async (file: string) => [...(await readAdapter(file)).modules.values()].reduce((n, m) => n + m.rank * (m.dIn + m.dOut), 0); // biome-ignore format: one line

describe('a search', () => {
  test('measures what the trainer measures: all ranks give the run’s last validation, none the untouched base’s', async () => {
    const whole = await parameters(join(out('nested'), 'adapter.safetensors'));
    const r = await search('alike', '--ranks', '4', '--budget-parameters', String(whole), '--evaluations', '2');
    expect([r.code, r.code === 0 ? '' : r.stderr]).toEqual([0, '']);
    const [all, none] = rows('alike');
    expect([new Set(all!.choices), new Set(none!.choices)]).toEqual([new Set([1]), new Set([0])]);
    const validations = log('nested').flatMap((row) => (row.validation ? [row.validation.loss] : []));
    expect(Math.abs(all!.loss - validations.at(-1)!)).toBeLessThan(1e-5 * validations.at(-1)!);
    const untouched = JSON.parse(readFileSync(join(out('nested'), 'facts.json'), 'utf8')) as { validation: { base: { loss: number } } }; // biome-ignore format: one line
    expect(Math.abs(none!.loss - untouched.validation.base.loss)).toBeLessThan(1e-5 * none!.loss);
  });
  test('keeps its budget, never ends above what is alike everywhere, and writes an adapter that others read', async () => {
    const r = await search('found', '--evaluations', '30', '--population', '10', '--parents', '4');
    expect([r.code, r.code === 0 ? '' : r.stderr]).toEqual([0, expect.anything()]);
    const file = join(out('found'), 'adapter.safetensors');
    const whole = await parameters(join(out('nested'), 'adapter.safetensors'));
    expect(await parameters(file)).toBeLessThanOrEqual(whole / 2);
    const value = (name: string) => Number(new RegExp(`^${name} +[\\d,]+ +([\\d.]+)`, 'm').exec(r.stdout)![1]);
    expect(value('found')).toBeLessThanOrEqual(value('the best that is alike everywhere'));
    expect(value('found')).toBeCloseTo(Math.min(...rows('found').map(({ loss }) => loss)), 4);
    expect(r.stdout).toContain('the test loss is what may be quoted');
    const drawn = await runCommand(generate, ['--base', base(), '--adapter', file, '--prompt', 'a clear lung', '--steps', '2', '--backend', 'wasm', '--threads', '1', '--out', out('drawn-found')]); // biome-ignore format: one line
    expect([drawn.code, drawn.code === 0 ? '' : drawn.stderr]).toEqual([0, '']);
  });
  test('that stopped goes on to the same end', async () => {
    const folder = out('again');
    cpSync(out('found'), folder, { recursive: true });
    const file = join(folder, 'evaluations.jsonl');
    // killed while it wrote its thirteenth line
    const lines = readFileSync(file, 'utf8').split('\n');
    writeFileSync(file, `${lines.slice(0, 12).join('\n')}\n{"choi`);
    const r = await search('again', '--evaluations', '30', '--population', '10', '--parents', '4');
    expect([r.code, r.stdout]).toEqual([0, expect.stringContaining('goes on after 12 candidates')]);
    expect(rows('again')).toEqual(rows('found'));
    expect(readFileSync(join(folder, 'adapter.safetensors'))).toEqual(readFileSync(join(out('found'), 'adapter.safetensors'))); // biome-ignore format: one line
  });
  test('of two runs takes each module from one of them', async () => {
    const r = await search('mixed', '--run', out('plain'), '--evaluations', '12', '--ranks', '1,2');
    expect([r.code, r.code === 0 ? '' : r.stderr]).toEqual([0, expect.anything()]);
    expect(new Set(rows('mixed').flatMap(({ choices }) => choices))).toEqual(new Set([0, 1, 2, 3, 4]));
  });
});

describe('refusals', () => {
  test.each([
    ['no run', ['--run', out('nowhere')], 'nowhere'],
    ['ranks that no adapter has', ['--ranks', '1,8'], '--ranks 1,8: expected whole numbers from 1 to 4'],
    ['another search in the folder', ['--out', out('found'), '--seed', '2', '--population', '10', '--parents', '4'], 'tells of another search'], // biome-ignore format: one line
  ])('%s: one line', async (_name, args, message) => {
    const r = await search('refused', ...args);
    expect([r.code === 0, r.stderr]).toEqual([false, expect.stringContaining(message)]);
    expect(r.stderr.trim().split('\n').filter((l) => !l.startsWith('Usage'))).toHaveLength(1); // biome-ignore format: one line
    expect(existsSync(join(out('refused'), 'adapter.safetensors'))).toBe(false);
  });
});
