/** `resize`: forms, ranks and padding through the command, and its refusals. */
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { type AdapterFile, deltaWeight, readAdapter } from '../../../models/io/adapter-file.ts';
import { runOf, withRun } from '../../../models/io/adapter-run.ts';
import { writeAdapter } from '../../../models/io/adapter-write.ts';
import { openSafetensors } from '../../../models/io/safetensors.ts';
import { main } from '../../../train/resize.ts';
import { adapter, MODULES } from '../../support/adapters.ts';
import { runCommand } from '../../support/commands.ts';
import { longRows } from '../../support/long.ts';
import { modesIn } from '../../support/modes.ts';

vi.setConfig({ testTimeout: 60_000 });

const scratch = mkdtempSync(path.join(tmpdir(), 'selora-resize-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const at = (name: string) => path.join(scratch, name);
const run = (...args: readonly string[]) => runCommand(main, args);
const golden = path.join(import.meta.dirname, '../../golden/io/interchange');

const facts = {
  format: 'selora/1',
  method: 'selora',
  lambda: 1.1,
  testEvery: 40,
  scale: 1,
  initA: 0,
  steps: 80,
  baseHash: 'a'.repeat(64),
  rankHistory: [{ step: 40, module: MODULES[1], rank: 2, ratio: 1.5 }],
} as const;
const mixed: AdapterFile = withRun(
  { ...adapter(1), metadata: new Map() },
  { ...facts, rankHistory: [...facts.rankHistory] },
);
await writeAdapter(at('mixed.safetensors'), mixed);

/** Largest difference of ΔW in units of float32's rounding of the sum of absolute terms. */
function expectSame(a: AdapterFile, b: AdapterFile): void {
  expect(new Set(b.modules.keys())).toEqual(new Set(a.modules.keys()));
  for (const [name, one] of a.modules) {
    const [x, y] = [deltaWeight(one), deltaWeight(b.modules.get(name)!)];
    const bound = deltaWeight({ ...one, A: one.A.map(Math.abs), B: one.B.map(Math.abs), scale: Math.abs(one.scale) });
    for (const [i, v] of x.entries()) expect(Math.abs(v - y[i]), name).toBeLessThanOrEqual(2 ** -24 * bound[i]);
  }
}

describe('forms', () => {
  // what diffusers, PEFT and kohya's scripts wrote, with mixed ranks and alphas
  const foreign = [
    'diffusers',
    'diffusers-metadata',
    'diffusers-peft-names',
    'kohya.safetensors',
    'peft-unet',
    'peft-conv-rslora',
  ];
  const forms = ['diffusers', 'kohya', 'peft', 'peft-flat'];
  const pairs = foreign.flatMap((from, i) => forms.map((to, j) => [from, to, (i + j) % 3] as const));
  it.each(longRows(pairs, ([, , third]) => third === 0))('%s → %s: the same ΔW', async (from, to) => {
    const out = at(`${path.basename(from)}-${to}${to.startsWith('peft') ? '' : '.safetensors'}`);
    const result = await run('--adapter', path.join(golden, from), '--form', to, '--out', out);
    expect(result).toMatchObject({ code: 0, stderr: '' });
    expectSame(await readAdapter(path.join(golden, from)), await readAdapter(out));
  });
});

describe('ranks', () => {
  it('--rank gives every module that rank, says what is lost, and marks the header', async () => {
    const { code, stdout } = await run(
      '--adapter',
      at('mixed.safetensors'),
      '--rank',
      '1',
      '--out',
      at('one.safetensors'),
    );
    expect(code).toBe(0);
    expect(stdout).toMatch(/^7 modules, ranks 1 to 4 → rank 1; most is lost in unet\.\S+: ‖ΔW − ΔW'‖ = \S+% of ‖ΔW‖\n/);
    const after = await readAdapter(at('one.safetensors'));
    expect([...after.modules.values()].every(({ rank }) => rank === 1)).toBe(true);
    expect(runOf(after, 'one')).toEqual({ ...facts, resized: 1 });
  });

  it('--pad-rank leaves ΔW as it is, to the bit', async () => {
    for (const [args, rank] of [
      [['--pad-rank'], 4],
      [['--pad-rank', '6'], 6],
    ] as const) {
      const out = at(`pad-${rank}.safetensors`);
      expect(await run('--adapter', at('mixed.safetensors'), ...args, '--out', out)).toMatchObject({ code: 0 });
      const { modules } = await readAdapter(out);
      for (const [name, one] of mixed.modules) {
        expect(modules.get(name)!.rank).toBe(rank);
        expect(deltaWeight(modules.get(name)!)).toEqual(deltaWeight(one));
      }
    }
  });

  it('kohya files carry the names its loaders look up', async () => {
    await run('--adapter', at('mixed.safetensors'), '--form', 'kohya', '--rank', '1', '--out', at('k.safetensors'));
    const keys = [...(await openSafetensors(at('k.safetensors'))).tensors.keys()];
    expect(keys).toContain('lora_te_text_model_encoder_layers_2_mlp_fc1.lora_down.weight');
    expect(keys).toContain('lora_unet_up_blocks_3_attentions_1_transformer_blocks_0_ff_net_2.lora_up.weight');
    expect(keys).toHaveLength(14);
  });
});

it.skipIf(process.platform === 'win32')("is yours alone, or everybody's with --public", async () => {
  process.umask(0o022);
  for (const [i, [form, extra, folders, files]] of (
    [
      ['diffusers', [], ['700'], ['600']],
      ['diffusers', ['--public'], ['700'], ['644']],
      ['peft', [], ['700'], ['600']],
      ['peft', ['--public'], ['755', '700'], ['644']],
    ] as const
  ).entries()) {
    const folder = at(`modes-${i}`);
    mkdirSync(folder, { mode: 0o700 });
    await run('--adapter', at('mixed.safetensors'), '--form', form, '--out', path.join(folder, 'a'), ...extra);
    expect(modesIn(folder), `${form} ${extra}`).toEqual({ folders, files });
  }
});

it('reads the adapter of a run from its folder', async () => {
  mkdirSync(at('run'));
  cpSync(at('mixed.safetensors'), at('run/adapter.safetensors'));
  expect(await run('--adapter', at('run'), '--out', at('of-run.safetensors'))).toMatchObject({ code: 0, stderr: '' });
  expect((await readAdapter(at('of-run.safetensors'))).modules).toEqual(
    (await readAdapter(at('mixed.safetensors'))).modules,
  );
});

describe('refusals in one line, with nothing written', () => {
  it.each([
    ['both ways', ['--rank', '2', '--pad-rank'], 'exclude each other'],
    ['padding below a rank', ['--pad-rank', '3'], '--pad-rank 3: a module has rank 4'],
    ['rank 0', ['--rank', '0'], 'expected a whole number from 1'],
    ['an unknown form', ['--form', 'onnx'], 'Allowed choices are diffusers, kohya, peft, peft-flat'],
  ])('%s', async (_why, args, words) => {
    const { code, stderr } = await run('--adapter', at('mixed.safetensors'), '--out', at('no.safetensors'), ...args);
    expect(code).toBe(1);
    expect(stderr).toContain(words);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(existsSync(at('no.safetensors'))).toBe(false);
  });

  it('a file that is there already', async () => {
    const before = readFileSync(at('mixed.safetensors'));
    const { code, stderr } = await run(
      '--adapter',
      at('mixed.safetensors'),
      '--rank',
      '1',
      '--out',
      at('mixed.safetensors'),
    );
    expect(code).toBe(1);
    expect(stderr).toContain('mixed.safetensors: exists already');
    expect(readFileSync(at('mixed.safetensors'))).toEqual(before);
  });

  it('a cancelled write leaves nothing behind', async () => {
    const stop = AbortSignal.abort(new Error('stop'));
    const { code } = await runCommand(main, ['--adapter', at('mixed.safetensors'), '--out', at('c.safetensors')], stop);
    expect(code).not.toBe(0);
    expect(readdirSync(scratch).filter((name) => name.includes('c.safetensors') && !name.includes('mixed'))).toEqual(
      [],
    );
  });
});
