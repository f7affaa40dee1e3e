/** `merge`: against the tree version on the reference backend, forth and back, and in half precision. */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { cpuBackend, entries, evaluate, read, type Tensor } from '../../../core/index.ts';
import { type AdapterFile, type AdapterModule, readAdapter } from '../../../models/io/adapter-file.ts';
import { RUN_KEY } from '../../../models/io/adapter-run.ts';
import { writeAdapter } from '../../../models/io/adapter-write.ts';
import { openBase } from '../../../models/io/base.ts';
import { openSafetensors } from '../../../models/io/safetensors.ts';
import { load } from '../../../models/spec.ts';
import { merge as mergeTree } from '../../../selora/merge.ts';
import { Interrupted } from '../../../train/cli/command.ts';
import { main } from '../../../train/merge.ts';
import { adaptersFromFile } from '../../../train/model/adapters.ts';
import { linearsOf, specsOf } from '../../../train/model/model.ts';
import { runCommand, writeCalmBase } from '../../support/commands.ts';
import { LONG } from '../../support/long.ts';
import { modesIn } from '../../support/modes.ts';
import { sizeOf } from '../../support/tiny-base.ts';
import { rewrite } from '../../support/tiny-base-files.ts';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 });

let scratch: string;
const at = (name: string) => path.join(scratch, name);
beforeAll(async () => {
  scratch = mkdtempSync(path.join(tmpdir(), 'selora-merge-'));
  await writeCalmBase(at('base'));
  await writeAdapter(at('a.safetensors'), await adapterOf());
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Mixed ranks and scales on every linear, and one on a convolution. */
async function adapterOf(): Promise<AdapterFile> {
  const base = await openBase(at('base'));
  const linears = linearsOf(base);
  const modules = new Map<string, AdapterModule>();
  const wave = (n: number, f: number) => Float32Array.from({ length: n }, (_, i) => Math.sin(f + 2.7 * i));
  for (const [part, paths] of [['unet', linears.unet] as const, ['text_encoder', linears.text] as const])
    for (const [i, [name, [dOut, dIn]]] of [...paths].entries()) {
      const rank = 1 + (i % 3);
      const scale = [1, 0.5, 3][i % 3];
      modules.set(`${part}.${name}`, { A: wave(dIn * rank, i), B: wave(rank * dOut, -i), rank, dIn, dOut, scale });
    }
  return { modules, metadata: new Map() };
}

const run = (...args: readonly string[]) => runCommand(main, args);
const weightsOf = async (folder: string, part: 'unet' | 'text_encoder' | 'vae') => {
  const { weights } = (await openBase(folder)).parts[part];
  return new Map(await Promise.all([...weights].map(async ([name, w]) => [name, await w.read()] as const)));
};

describe.skipIf(process.platform === 'win32')('who may read a merged model', () => {
  afterEach(() => void process.umask(0o022));
  it.each([
    [[], 0, { folders: ['700'], files: ['600'] }],
    [['--public'], 0o022, { folders: ['755'], files: ['644'] }],
    [['--public'], 0o027, { folders: ['750'], files: ['640'] }],
  ] as const)('%j under umask %o', async (extra, umask, expected) => {
    process.umask(umask);
    const out = at(`modes-${extra.length}-${umask}/deep`);
    await run('--base', at('base'), '--adapter', at('a.safetensors'), '--out', out, ...extra);
    expect(modesIn(path.dirname(out))).toEqual(expected);
  });
});

describe('merging', () => {
  it('gives the weights that merging parameter trees on the reference backend gives', async () => {
    expect(await run('--base', at('base'), '--adapter', at('a.safetensors'), '--out', at('m'))).toMatchObject({
      code: 0,
      stderr: '',
    });
    const base = await openBase(at('base'));
    const adapters = adaptersFromFile(await readAdapter(at('a.safetensors')), linearsOf(base), { dtype: 'f64' });
    const backend = cpuBackend();
    const specs = specsOf(base);
    const trees = {
      unet: mergeTree(await load(specs.unet, base.parts.unet, { dtype: 'f64' }), adapters.unet, adapters.scale),
      text_encoder: mergeTree(
        await load(specs.text, base.parts.text_encoder, { dtype: 'f64' }),
        adapters.text,
        adapters.scale,
      ),
    };
    for (const part of ['unet', 'text_encoder'] as const) {
      const got = await weightsOf(at('m'), part);
      const before = await weightsOf(at('base'), part);
      let changed = 0;
      for (const [name, tensor] of entries<Tensor>(evaluate(trees[part] as never, backend as never))) {
        // matrices only: convolutions have another order of axes in memory, and are not adapted here
        if (tensor.shape.length !== 2) continue;
        const want = await read(tensor);
        const values = got.get(name)!;
        if (values.some((x, i) => x !== before.get(name)![i])) changed++;
        for (const [i, w] of want.entries())
          expect(Math.abs(values[i] - w), name).toBeLessThanOrEqual(2 ** -23 * Math.abs(w));
      }
      expect(changed).toBe(part === 'unet' ? adaptersCount(adapters.unet) : adaptersCount(adapters.text));
    }
  });
  const adaptersCount = (a: object) => Object.keys(a).length;

  it('leaves everything that is not adapted as it was, to the bit', async () => {
    const files = ['vae/diffusion_pytorch_model.safetensors', 'tokenizer/vocab.json', 'tokenizer/merges.txt'];
    for (const file of files)
      expect(readFileSync(path.join(at('m'), file))).toEqual(readFileSync(path.join(at('base'), file)));
    for (const file of ['unet/config.json', 'vae/config.json', 'scheduler/scheduler_config.json'])
      expect(JSON.parse(readFileSync(path.join(at('m'), file), 'utf8'))).toEqual(
        JSON.parse(readFileSync(path.join(at('base'), file), 'utf8')),
      );
  });

  it('is undone by --unmerge to a rounding of each value', async () => {
    const code = await run('--base', at('m'), '--adapter', at('a.safetensors'), '--out', at('u'), '--unmerge');
    expect(code).toMatchObject({ code: 0, stderr: '' });
    for (const part of ['unet', 'text_encoder', 'vae'] as const) {
      const [want, merged, got] = [
        await weightsOf(at('base'), part),
        await weightsOf(at('m'), part),
        await weightsOf(at('u'), part),
      ];
      // one rounding when it was added, one when it was taken out
      for (const [name, values] of want)
        for (const [i, w] of values.entries())
          expect(Math.abs(got.get(name)![i] - w), name).toBeLessThanOrEqual(
            2 ** -24 * (Math.abs(merged.get(name)![i]) + Math.abs(w)) * 1.01,
          );
    }
  });

  it.each([
    ['f16', 'F16', 2 ** -11],
    ['f32', 'F32', 2 ** -24],
  ] as const)('--dtype %s', async (name, stored, unit) => {
    expect(
      await run('--base', at('base'), '--adapter', at('a.safetensors'), '--out', at(name), '--dtype', name),
    ).toMatchObject({ code: 0 });
    const file = await openSafetensors(path.join(at(name), 'unet/diffusion_pytorch_model.safetensors'));
    expect(new Set([...file.tensors.values()].map(({ dtype }) => dtype))).toEqual(new Set([stored]));
    const [want, got] = [await weightsOf(at('m'), 'unet'), await weightsOf(at(name), 'unet')];
    for (const [key, values] of want)
      for (const [i, w] of values.entries())
        expect(Math.abs(got.get(key)![i] - w)).toBeLessThanOrEqual(unit * Math.abs(w) + 2 ** -25);
  });

  it('weights of 8 bits are merged, and written as half floats', async () => {
    cpSync(at('base'), at('fp8'), { recursive: true });
    const unet = 'unet/diffusion_pytorch_model.safetensors';
    // patterns of finite numbers below 2, drawn by their place
    await rewrite(path.join(at('fp8'), unet), (name, { shape }) => [
      [name, { dtype: 'F8_E4M3', shape, data: Uint8Array.from({ length: sizeOf(shape) }, (_, i) => (i * 37) % 64) }],
    ]);
    expect(await run('--base', at('fp8'), '--adapter', at('a.safetensors'), '--out', at('fp8m'))).toMatchObject({
      code: 0,
    });
    const file = await openSafetensors(path.join(at('fp8m'), unet));
    expect(new Set([...file.tensors.values()].map(({ dtype }) => dtype))).toEqual(new Set(['F16']));
    const [before, after] = [await weightsOf(at('fp8'), 'unet'), await weightsOf(at('fp8m'), 'unet')];
    expect(after.get('conv_in.bias')).toEqual(before.get('conv_in.bias'));
    const { modules } = await readAdapter(at('a.safetensors'));
    const [key, { A, B, rank, dIn, dOut, scale }] = [...modules].find(([name]) => name.startsWith('unet.'))!;
    const weight = `${key.slice('unet.'.length)}.weight`;
    for (const [o, i] of [
      [0, 0],
      [dOut - 1, dIn - 1],
    ] as const) {
      let delta = 0;
      for (let r = 0; r < rank; r++) delta += scale * A[i * rank + r]! * B[r * dOut + o]!;
      const wanted = before.get(weight)![o * dIn + i]! + delta;
      expect(Math.abs(after.get(weight)![o * dIn + i]! - wanted)).toBeLessThan(
        2 ** -10 * Math.max(1, Math.abs(wanted)),
      );
    }
  });

  it('adds to convolutions, in the order of axes that files have', async () => {
    const shape = (await openBase(at('base'))).parts.unet.get('conv_in.weight').shape;
    const [o, c, kh, kw] = shape;
    const dIn = c * kh * kw;
    const A = Float32Array.from({ length: dIn }, (_, i) => i);
    const B = Float32Array.from({ length: o }, (_, i) => i + 1);
    const module: AdapterModule = { A, B, rank: 1, dIn, dOut: o, scale: 0.5, kernel: [kh, kw] };
    await writeAdapter(at('conv.safetensors'), { modules: new Map([['unet.conv_in', module]]), metadata: new Map() });
    expect(await run('--base', at('base'), '--adapter', at('conv.safetensors'), '--out', at('c'))).toMatchObject({
      code: 0,
    });
    const [before, after] = [
      (await weightsOf(at('base'), 'unet')).get('conv_in.weight')!,
      (await weightsOf(at('c'), 'unet')).get('conv_in.weight')!,
    ];
    for (let out = 0; out < o; out++)
      for (let i = 0; i < dIn; i++)
        expect(after[out * dIn + i]).toBeCloseTo(before[out * dIn + i] + 0.5 * i * (out + 1), 4);
  });

  it('notes when the adapter was trained on another base', async () => {
    const facts = {
      format: 'selora/1',
      method: 'lora',
      lambda: null,
      testEvery: null,
      scale: 1,
      initA: 0,
      steps: 1,
      baseHash: '0'.repeat(64),
      rankHistory: [],
    };
    await writeAdapter(at('other.safetensors'), {
      ...(await adapterOf()),
      metadata: new Map([[RUN_KEY, JSON.stringify(facts)]]),
    });
    expect((await run('--base', at('base'), '--adapter', at('other.safetensors'), '--out', at('n'))).stdout).toContain(
      'trained on another base',
    );
  });
});

describe('Ctrl-C', () => {
  it('at any moment leaves neither the folder nor a part of it', async () => {
    await mkdir(at('stopped'));
    const args = ['--base', at('base'), '--adapter', at('a.safetensors'), '--out', path.join(at('stopped'), 'm')];
    const outcomes: number[] = [];
    for (let stopAt = 1; outcomes.at(-1) !== 0; stopAt += LONG ? 41 : 83) {
      const { signal } = new AbortController();
      let asked = 0;
      // the writers ask before every chunk, every rename and the last one
      vi.spyOn(signal, 'throwIfAborted').mockImplementation(() => {
        if (++asked === stopAt) throw new Interrupted('stopped by Ctrl-C');
      });
      const { code, stderr } = await runCommand(main, args, signal);
      outcomes.push(code);
      if (code === 0) break;
      expect({ code, stderr }).toEqual({ code: 130, stderr: 'stopped by Ctrl-C\n' });
      expect(readdirSync(at('stopped'))).toEqual([]);
    }
    expect(outcomes.length).toBeGreaterThan(4);
    expect(readdirSync(at('stopped'))).toEqual(['m']);
  });
});

describe('refusals in one line, with nothing written', () => {
  const broken = async (
    name: string,
    change: (m: AdapterModule) => AdapterModule,
    key = 'unet.time_embedding.linear_1',
  ) => {
    const { modules } = await adapterOf();
    const [[, first]] = modules;
    await writeAdapter(at(name), { modules: new Map([[key, change(first)]]), metadata: new Map() });
  };
  it.each([
    ['another size', 'size.safetensors', 'of another size: unet.time_embedding.linear_1 is 5'],
    ['an unknown module', 'unknown.safetensors', 'not in the base model: unet.nothing'],
    ['too large for a half', 'huge.safetensors', 'becomes'],
    ['a folder that is not empty', 'full', 'is not empty'],
    ['no adapter', 'none.safetensors', 'none.safetensors: no such file'],
  ])('%s', async (_why, file, words) => {
    await broken('size.safetensors', (m) => ({ ...m, A: new Float32Array(5 * m.rank), dIn: 5 }));
    await broken('unknown.safetensors', (m) => m, 'unet.nothing');
    await broken('huge.safetensors', (m) => ({ ...m, A: m.A.map(() => 1e20), B: m.B.map(() => 1e20) }));
    const out = file === 'full' ? at('base') : at('x');
    const adapter = file === 'full' ? at('a.safetensors') : at(file);
    const { code, stderr } = await run('--base', at('base'), '--adapter', adapter, '--out', out, '--dtype', 'f16');
    expect(code).toBe(1);
    expect(stderr).toContain(words);
    expect(stderr.split('\n')).toHaveLength(2);
    // neither the folder nor a temporary one
    expect(readdirSync(scratch).filter((name) => name === 'x' || name.startsWith('.x'))).toEqual([]);
  });

  it('a base with a tensor too few', async () => {
    await writeCalmBase(at('hole'));
    const config = path.join(at('hole'), 'unet/config.json');
    writeFileSync(config, readFileSync(config, 'utf8').replace('"layers_per_block": 1', '"layers_per_block": 2'));
    const { code, stderr } = await run('--base', at('hole'), '--adapter', at('a.safetensors'), '--out', at('y'));
    expect(code).toBe(1);
    expect(stderr).toMatch(/unet.*missing: .*\n$/);
  });
});
