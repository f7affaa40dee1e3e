import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { type Backend, cpuBackend } from '../../../core/index.ts';
import { withRun } from '../../../models/io/adapter-run.ts';
import { writeAdapter } from '../../../models/io/adapter-write.ts';
import { openBase } from '../../../models/io/base.ts';
import { encodePng, writePng } from '../../../train/data/pictures/image-write.ts';
import { main, ordersOf } from '../../../train/generate.ts';
import { main as merge } from '../../../train/merge.ts';
import { loadPipeline } from '../../../train/model/model.ts';
import { createGenerator } from '../../../train/model/sample.ts';
import { main as train } from '../../../train/train.ts';
import { wavyAdapter } from '../../support/adapters.ts';
import { runCommand, writeCalmBase } from '../../support/commands.ts';
import { LONG, longRows, longTest } from '../../support/long.ts';

// other processes may have all cores
vi.setConfig({ testTimeout: 180_000, hookTimeout: 60_000 });

let scratch: string;
let base: string;
const at = (name: string) => path.join(scratch, name);
beforeAll(async () => {
  scratch = mkdtempSync(path.join(tmpdir(), 'selora-generate-'));
  base = at('base');
  await writeCalmBase(base);
  await writeAdapter(at('zero.safetensors'), await wavyAdapter(base, 2, 0));
  await writeAdapter(at('grown.safetensors'), await wavyAdapter(base, 2, 0.5));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const drawIn =
  (...settings: readonly string[]) =>
  (out: string, ...more: readonly string[]) =>
    runCommand(main, [
      ...['--base', base, '--backend', 'cpu', '--out', at(out), ...settings],
      ...(more.some((m) => m.startsWith('--prompt')) ? more : ['--prompt', 'the cat', ...more]),
    ]);
const draw = drawIn('--steps', '2');
const pictures = (out: string): readonly Buffer[] =>
  readdirSync(at(out))
    .filter((name) => name.endsWith('.png'))
    .sort()
    .map((name) => readFileSync(path.join(at(out), name)));

/** The pictures by default, drawn once. */
let drawnPlain: Promise<unknown> | undefined;
const plain = async () => {
  drawnPlain ??= draw('plain');
  await drawnPlain;
  return pictures('plain');
};

describe('pictures', () => {
  it('are those of createGenerator, byte for byte, for every seed alike', async () => {
    expect(await draw('a', '--seed', '7')).toMatchObject({ code: 0, stderr: '' });
    const backend = cpuBackend() as Backend;
    const { pipeline } = await loadPipeline(base, backend);
    const options = { steps: 2, guidance: 3, sampler: 'ddim', seeds: [7], height: 16, width: 16 } as const;
    const [pixels] = await createGenerator(backend, pipeline.configs)(pipeline, ['the cat'], options);
    expect(pictures('a')).toEqual([Buffer.from(await encodePng(pixels, 16))]);
    await draw('b', '--seed', '7');
    await draw('c', '--seed', '8');
    expect(pictures('b')).toEqual(pictures('a'));
    expect(pictures('c')).not.toEqual(pictures('a'));
  });

  // the next test draws in other groups too
  longTest('do not change when more are drawn, or in other groups', async () => {
    const prompts = ['--prompt', 'the cat', '--prompt', 'a hat'];
    await draw('one', ...prompts);
    await draw('three', ...prompts, '--n', '3', '--batch', '4');
    expect(pictures('three')).toHaveLength(6);
    expect(pictures('three').slice(0, 2)).toEqual(pictures('one'));
  });

  it('are found again by prompt and seed, whatever other prompts, order or batch', async () => {
    await draw('all', '--prompt', 'the cat', '--prompt', 'a hat', '--n', '3', '--seed', '5', '--batch', '4');
    await draw('turned', '--prompt', 'a hat', '--prompt', 'the cat', '--n', '2', '--seed', '6', '--batch', '1');
    await draw('alone', '--prompt', 'a hat', '--seed', '7');
    const [all, turned] = [pictures('all'), pictures('turned')];
    expect(new Set(all.map((png) => png.toString('base64'))).size).toBe(6);
    expect(turned).toEqual([all[3], all[2], all[5], all[4]]);
    expect(pictures('alone')).toEqual([all[5]]);
    const { pictures: told } = JSON.parse(readFileSync(path.join(at('all'), 'settings.json'), 'utf8'));
    expect(told.map((p: { seed: number }) => p.seed)).toEqual([5, 5, 6, 6, 7, 7]);
  });

  const samplers = ['pndm', 'dpm-solver++', 'euler', 'euler-ancestral', 'ddpm'];
  it.each(longRows(samplers, (name) => ['dpm-solver++', 'euler-ancestral'].includes(name)))(
    'by %s differ from those by ddim',
    async (name) => {
      expect((await draw(`by-${name}`, '--sampler', name)).code).toBe(0);
      expect(pictures(`by-${name}`)).not.toEqual(await plain());
    },
  );

  it('with an adapter whose B is zero are those of the base; with another they are not', async () => {
    await draw('zero', '--adapter', at('zero.safetensors'));
    await draw('grown', '--adapter', at('grown.safetensors'));
    expect(pictures('zero')).toEqual(await plain());
    expect(pictures('grown')).not.toEqual(await plain());
  });

  it('of a merged model are those of base and adapter, to a grey level', async () => {
    expect(
      (await runCommand(merge, ['--base', base, '--adapter', at('grown.safetensors'), '--out', at('m')])).code,
    ).toBe(0);
    const backend = cpuBackend() as Backend;
    const options = { steps: 2, guidance: 3, sampler: 'ddim', seeds: [3], height: 16, width: 16 } as const;
    const attached = (await loadPipeline(base, backend, { adapter: at('grown.safetensors') })).pipeline;
    const merged = (await loadPipeline(at('m'), backend)).pipeline;
    const generate = createGenerator(backend, attached.configs);
    const [a] = await generate(attached, ['the cat'], options);
    const [b] = await generate(merged, ['the cat'], options);
    expect(Math.max(...a.map((x, i) => Math.abs(x - b[i])))).toBeLessThan(1e-3);
  });

  it('come with the settings that repeat them', async () => {
    writeFileSync(at('prompts.txt'), 'the cat\n\n  \r\na hat\n');
    const { stdout } = await draw('settings', '--prompts', at('prompts.txt'), '--seed', '5', '--resolution', '24x16');
    const settings = JSON.parse(readFileSync(path.join(at('settings'), 'settings.json'), 'utf8'));
    expect(settings).toMatchObject({
      seed: 5,
      steps: 2,
      guidance: 3,
      sampler: 'ddim',
      width: 24,
      height: 16,
      adapter: null,
    });
    expect(settings.baseHash).toBe(await (await openBase(base)).hash());
    expect(settings.pictures.map((p: { prompt: string }) => p.prompt)).toEqual(['the cat', 'a hat']);
    for (const { file } of settings.pictures) expect(stdout).toContain(file);
    // width and height of the PNG's header
    const [first] = pictures('settings');
    expect([first.readUInt32BE(16), first.readUInt32BE(20)]).toEqual([24, 16]);
  });

  longTest(
    'of long prompts: the end is heard with --caption-chunks, or where the adapter was trained with chunks',
    async () => {
      const [cat, hat] = ['cat', 'hat'].map((end) => `${'the '.repeat(80)}${end}`) as [string, string];
      const facts = {
        ...({
          format: 'selora/1',
          method: 'lora',
          lambda: null,
          testEvery: null,
          scale: 1,
          initA: 0,
          steps: 1,
        } as const),
        ...{ baseHash: 'a'.repeat(64), rankHistory: [], captionChunks: 2 },
      };
      await writeAdapter(at('long.safetensors'), withRun(await wavyAdapter(base, 1, 0), facts));
      const draw = drawIn('--steps', '1');
      const two = ['--prompt', cat, '--prompt', hat];
      const outputs = await Promise.all([
        draw('short', ...two),
        draw('chunks', ...two, '--caption-chunks', '2'),
        draw('of-adapter', ...two, '--adapter', at('long.safetensors')),
      ]);
      // noise differs by position, so the same prompt is drawn in both places
      await draw('short-cat', '--prompt', cat, '--prompt', cat);
      await draw('chunks-cat', '--prompt', cat, '--prompt', cat, '--caption-chunks', '2');
      expect(pictures('short')).toEqual(pictures('short-cat'));
      expect(pictures('chunks')[0]).toEqual(pictures('chunks-cat')[0]);
      expect(pictures('chunks')[1]).not.toEqual(pictures('chunks-cat')[1]);
      expect(pictures('of-adapter')).toEqual(pictures('chunks'));
      expect(outputs.map(({ stdout }) => stdout.includes('cut to'))).toEqual([true, false, false]);
      const settings = JSON.parse(readFileSync(path.join(at('of-adapter'), 'settings.json'), 'utf8'));
      expect(settings).toMatchObject({
        captionChunks: 2,
        pictures: [
          { ids: 85, cut: false },
          { ids: 85, cut: false },
        ],
      });
      const { stdout } = await draw('cut-2', '--prompt', 'the '.repeat(200), '--caption-chunks', '2');
      expect(stdout).toContain('cut to 152 of 202 ids');
    },
  );

  it('tells which prompts are cut', async () => {
    const { stdout } = await draw('cut', '--prompt', 'x '.repeat(100));
    expect(stdout).toContain('cut to 77 of 102 ids: x x x');
  });
});

// the trainer's tests of a scale do it with captions of one chunk
describe.runIf(LONG)('the trainer', () => {
  it.each([1, 2])(
    'draws its samples by the same function: same seed, same PNG; captions of %i chunks',
    async (chunks) => {
      const data = at(`films-${chunks}`);
      mkdirSync(data);
      const texts = ['the cat', 'a hat', 'the hat', 'a cat'].map((text) => 'the '.repeat(80 * (chunks - 1)) + text);
      const wave = (i: number) => Float32Array.from({ length: 16 * 16 * 3 }, (_, j) => Math.sin(i + j));
      for (const i of texts.keys()) await writePng(path.join(data, `${i}.png`), wave(i), 16);
      writeFileSync(
        path.join(data, 'metadata.csv'),
        `file_name,text\n${texts.map((t, i) => `${i}.png,${t}`).join('\n')}\n`,
      );
      const run = at(`run-${chunks}`);
      const settings = ['--seed', '11', '--guidance', '2', '--sampler', 'euler', '--backend', 'cpu'];
      const training = ['--steps', '2', '--lr', '0.05', '--resolution', '16', '--split', '50/0/50', '--samples', '2'];
      const few = ['--targets', '**.attn1.*,text.**.q_proj'];
      const trained = await runCommand(train, [
        ...['--data', data, '--base', base, '--out', run, '--sample-steps', '3'],
        ...training,
        ...few,
        ...settings,
        ...(chunks === 1 ? ['--merged'] : ['--caption-chunks', `${chunks}`]),
      ]);
      expect(trained.code, trained.stderr).toBe(0);
      expect(trained.stdout).toContain(`0 training captions cut at ${75 * chunks + 2} ids`);
      const told = JSON.parse(readFileSync(path.join(run, 'samples/samples.json'), 'utf8')) as {
        readonly report: string;
        readonly pictures: readonly { readonly label: string; readonly seed?: number; readonly file: string }[];
      }[];
      const sample = (file: string) => readFileSync(path.join(run, file));
      for (const [i, { report, pictures: shown }] of longRows([...told.entries()], ([i]) => i === 1)) {
        const [untouched, adapted] = ['base', 'adapted'].map((label) => shown.find((p) => p.label === label)!);
        expect([untouched.seed, adapted.seed]).toEqual([11 + i, 11 + i]);
        // the last --seed counts
        const drawing = ['--base', base, '--steps', '3', '--resolution', '16', '--prompt', report, ...settings];
        const [again, plain] = [`again-${chunks}-${i}`, `untouched-${chunks}-${i}`];
        const seed = ['--seed', `${adapted.seed}`];
        // the number of chunks comes with the adapter
        const adapter = ['--adapter', path.join(run, 'adapter.safetensors')];
        await runCommand(main, [...drawing, ...seed, '--out', at(again), ...adapter]);
        await runCommand(main, [...drawing, ...seed, '--out', at(plain), '--caption-chunks', `${chunks}`]);
        expect(pictures(again)).toEqual([sample(adapted.file)]);
        expect(pictures(plain)).toEqual([sample(untouched.file)]);
        expect(sample(adapted.file)).not.toEqual(sample(untouched.file));
      }
      expect(told).toHaveLength(2);
      if (chunks > 1) return;
      // --merged is what `merge` makes of base and adapter
      await runCommand(merge, [
        ...['--base', base, '--adapter', path.join(run, 'adapter.safetensors')],
        ...['--out', at('merged-by-hand')],
      ]);
      const files = readdirSync(at('merged-by-hand'), { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => path.relative(at('merged-by-hand'), path.join(entry.parentPath, entry.name)));
      expect(files).toContain('unet/diffusion_pytorch_model.safetensors');
      for (const file of files)
        expect(
          readFileSync(path.join(run, 'merged', file)).equals(readFileSync(path.join(at('merged-by-hand'), file))),
          file,
        ).toBe(true);
      expect(readFileSync(path.join(run, 'merged', files.find((f) => f.startsWith('unet/diff'))!))).not.toEqual(
        readFileSync(path.join(base, 'unet/diffusion_pytorch_model.safetensors')),
      );
    },
  );
});

describe('names', () => {
  it('sort in the order of drawing and are plain', () => {
    const files = ordersOf(['Épanchement: ../../x\u0000', '…'], 2, 9).map(({ file }) => file);
    expect(files).toEqual([
      '000-epanchement-x-seed9.png',
      '001-picture-seed9.png',
      '002-epanchement-x-seed10.png',
      '003-picture-seed10.png',
    ]);
    expect([...files].sort()).toEqual(files);
  });
});
