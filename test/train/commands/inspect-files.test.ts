/** `inspect` on bases, safetensors files, data folders and other things: what is there, what is wrong, in one line where it is broken. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { openBase } from '../../../models/io/base.ts';
import { writeSafetensors } from '../../../models/io/safetensors-write.ts';
import { writePng } from '../../../train/data/pictures/image-write.ts';
import { rangeOf } from '../../../train/inspect/tensors.ts';
import { main } from '../../../train/inspect.ts';
import { runCommand, writeCalmBase } from '../../support/commands.ts';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 });

let scratch: string;
const at = (...names: readonly string[]) => path.join(scratch, ...names);
const inspect = (...args: readonly string[]) => runCommand(main, args);
beforeAll(async () => {
  scratch = mkdtempSync(path.join(tmpdir(), 'selora-inspect-files-'));
  await writeCalmBase(at('base'));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe('a base model', () => {
  it('shows parts, parameter counts and what adapters cost', async () => {
    const { code, stdout, stderr } = await inspect(at('base'));
    expect([code, stderr]).toEqual([0, '']);
    const { parts, hash } = await openBase(at('base'));
    for (const part of ['unet', 'vae', 'text_encoder'] as const) {
      const count = [...parts[part].weights.values()].reduce((n, { shape }) => n + shape.reduce((a, b) => a * b, 1), 0);
      const shown = String(count).replace(/\B(?=(\d{3})+$)/, ',');
      expect(stdout).toMatch(new RegExp(`${part} +${parts[part].weights.size} +${shown} +F32 +complete`));
    }
    expect(stdout).toContain('16x16 (latents 8x8x4, factor 2)');
    expect(stdout).toContain(await hash());
    expect((await inspect(at('base'), '--quick')).stdout).not.toContain('SHA-256');
  });

  it('lists what is missing and of the wrong shape before it fails', async () => {
    await writeCalmBase(at('torn'));
    const { parts } = await openBase(at('torn'));
    const tensors = new Map(
      await Promise.all(
        [...parts.unet.weights.values()].slice(1).map(async (w, i) => {
          const shape = i === 0 ? [...w.shape, 1] : w.shape;
          return [w.name, { dtype: 'F32' as const, shape, data: await w.read() }] as const;
        }),
      ),
    );
    const [first, second] = [...parts.unet.weights.keys()];
    await writeSafetensors(at('torn', 'unet', 'diffusion_pytorch_model.safetensors'), tensors);
    const { code, stdout, stderr } = await inspect(at('torn'));
    expect(code).toBe(1);
    expect(stdout).toContain(`unet: missing ${first}`);
    expect(stdout).toContain(`unet: wrong shape ${second}`);
    expect(stdout).toMatch(/vae .*complete/);
    expect(stderr).toMatch(new RegExp(`1 missing: ${first}; 1 of the wrong shape: ${second} .*\n$`));
  });

  it('with a value that is not finite is one line', async () => {
    await writeCalmBase(at('nan'));
    const { parts } = await openBase(at('nan'));
    const tensors = new Map(
      await Promise.all(
        [...parts.vae.weights.values()].map(
          async (w) => [w.name, { dtype: 'F32' as const, shape: w.shape, data: await w.read() }] as const,
        ),
      ),
    );
    tensors.get('decoder.conv_in.bias')!.data[2] = Number.NaN;
    await writeSafetensors(at('nan', 'vae', 'diffusion_pytorch_model.safetensors'), tensors);
    const { code, stderr } = await inspect(at('nan'));
    expect(code).toBe(1);
    expect(stderr).toMatch(/decoder\.conv_in\.bias": value 2 is NaN.*\n$/);
  });
});

describe('a safetensors file', () => {
  it('shows few values whole and many by their range', async () => {
    const tensors = new Map([
      [
        'few',
        { dtype: 'F32' as const, shape: [2, 2], data: Float32Array.of(1.5, -0, Number.NaN, Number.POSITIVE_INFINITY) },
      ],
      ['many', { dtype: 'F16' as const, shape: [40], data: Float32Array.from({ length: 40 }, (_, i) => i - 10) }],
      ['ids', { dtype: 'I64' as const, shape: [3], data: Int32Array.of(3, -4, 5) }],
      ['none', { dtype: 'F32' as const, shape: [0, 3], data: new Float32Array(0) }],
    ]);
    await writeSafetensors(at('t.safetensors'), tensors, new Map([['note', 'a\u001b[31mb']]));
    const { code, stdout } = await inspect(at('t.safetensors'));
    expect(code).toBe(0);
    expect(stdout).toMatch(/few +F32 +\[2, 2\] +1\.5 -0 NaN Infinity\n/);
    expect(stdout).toMatch(/ids +I64 +\[3\] +3 -4 5\n/);
    // mean of |i − 10|, i < 40: (10·11/2 + 29·30/2)/40 = 12.25
    expect(stdout).toMatch(/many +F16 +\[40\] +−10 … 29, mean \|x\| 12\.[23]\d*\n/);
    expect(stdout).toMatch(/none +F32 +\[0, 3\] +empty\n/);
    expect(stdout).toContain('metadata note: a\\u{1b}[31mb');
    expect((await inspect(at('t.safetensors'), '--quick')).stdout).not.toContain('NaN');
  });

  it('counts what is not finite apart', () => {
    expect(rangeOf([Number.NaN, 3, -1, Number.NEGATIVE_INFINITY])).toEqual({
      low: -1,
      high: 3,
      meanAbs: 2,
      notFinite: 2,
    });
  });
});

describe('a data folder', () => {
  const pixels = (seed: number, side: number) =>
    Float32Array.from({ length: side * side * 3 }, (_, i) => Math.sin(seed + i));
  beforeAll(async () => {
    mkdirSync(at('data'));
    const rows = [
      ['0.png', 'the cat'],
      ['1.png', 'a hat'],
      ['2.png', 'the cat'],
      ['3.png', `${'word '.repeat(90)}end`],
    ];
    for (const [i, [name]] of rows.entries())
      await writePng(at('data', name), pixels(i === 2 ? 0 : i, i === 3 ? 20 : 16), i === 3 ? 20 : 16);
    writeFileSync(at('data', 'metadata.csv'), `file_name,text\n${rows.map(([f, t]) => `${f},${t}`).join('\n')}\n`);
  });

  it('shows pairs, sizes, duplicates, cut captions and the split', async () => {
    const { code, stdout, stderr } = await inspect(at('data'), '--split', '50/50');
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/layout +imagefolder\n/);
    expect(stdout).toMatch(/prompt +the column text, /);
    expect(stdout).toMatch(/range +brightest pixel \d+% of white/);
    expect(stdout).toMatch(/pairs +4\n/);
    expect(stdout).toMatch(/width +16 … 20, median 16\n/);
    expect(stdout).toMatch(/captions +3 different/);
    expect(stdout).toMatch(
      /cut +1 of 4 captions are longer than 77 ids and would be cut; none with --caption-chunks 2\n/,
    );
    expect(stdout).toMatch(/captions cut at 77 ids: 1\n +3\.png: word word/);
    expect(stdout).toMatch(/there several times: 1\n +0\.png = 2\.png\n/);
    const [train, test] = ['train', 'test'].map((name) => Number(new RegExp(`${name} +(\\d)`).exec(stdout)?.[1]));
    expect(train + test).toBe(4);
  });

  it('without a picture, with a broken one, or without a table is one line', async () => {
    mkdirSync(at('broken'));
    writeFileSync(at('broken', 'metadata.csv'), 'file_name,text\n0.png,the cat\n');
    expect((await inspect(at('broken'))).stderr).toMatch(/metadata\.csv: .*0\.png.*is not there\n$/);
    writeFileSync(at('broken', '0.png'), 'no picture');
    expect((await inspect(at('broken'))).stderr).toMatch(/0\.png: .*\n$/);
    mkdirSync(at('empty'));
    expect((await inspect(at('empty'))).stderr).toMatch(/empty: data: no known layout here; looked for .*\n$/);
  });

  it('is refused by --split that does not add up', async () => {
    // before anything is read
    expect(await inspect(at('data'), '--split', '80/30')).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringMatching(/80\/30.*sum of 100.*\n$/),
    });
  });
});

describe('other things', () => {
  it('a pipe, a device or nothing is one line', async () => {
    expect((await inspect('/dev/null')).stderr).toBe('/dev/null: is neither a file nor a folder\n');
    expect((await inspect(at('gone'))).stderr).toContain('gone: no such file\n');
    expect((await inspect()).stderr).toBe("missing required argument 'path'\n");
  });
  it('one part of a model, or a file of another kind, is told as such', async () => {
    expect((await inspect(at('base', 'unet'))).stderr).toMatch(
      /unet: is one part of a model: inspect the folder above/,
    );
    expect((await inspect(at('base', 'unet', 'config.json'))).stderr).toMatch(/or no safetensors file\n$/);
  });
  it('--as settles what a folder is', async () => {
    expect((await inspect(at('base'), '--as', 'data')).stderr).toContain('no known layout');
  });
});
