/** `npm run evaluate --clip`: a folder as transformers writes CLIPModel, with the reference's weights, texts and pictures. */
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import sharp from 'sharp';
import { beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { type Backend, openBackend } from '../../../core/index.ts';
import { writeSafetensors } from '../../../models/io/safetensors-write.ts';
import { featuresOf } from '../../../train/evaluate/cache.ts';
import { clipEmbedders, clipPixels, textItem } from '../../../train/evaluate/clip.ts';
import { loadPicture } from '../../../train/evaluate/pictures.ts';
import { main } from '../../../train/evaluate.ts';
import { parseExperiment, runsOf } from '../../../train/experiment/config.ts';
import { scoresOf } from '../../../train/experiment/scores.ts';
import type { State } from '../../../train/experiment/state.ts';
import { cosine } from '../../../train/metrics/measures/clip-score.ts';
import { agreement, otherTexts } from '../../../train/metrics/sets/agreement.ts';
import type { PictureSet } from '../../../train/metrics/sets/metric.ts';
import { parseRecord } from '../../../train/run/record.ts';
import { type GoldenTensors, need, readGoldenJson, readGoldenTensors } from '../../../train/verify/golden.ts';
import { runCommand } from '../../support/commands.ts';
import { scratch } from '../../support/data-fixtures.ts';

const golden = path.join(import.meta.dirname, '../../golden/metrics');
const at = (name: string) => path.join(scratch, name);
const config = z.object({ text: z.record(z.string(), z.unknown()), vision: z.record(z.string(), z.unknown()), projection_dim: z.number() }); // biome-ignore format: one line
const cut = z.object({ mean: z.array(z.number()), std: z.array(z.number()), size: z.number(), means: z.array(z.number()) }); // biome-ignore format: one line
let tensors: GoldenTensors;
let pictures: GoldenTensors;
let rule: z.output<typeof cut>;
let sizes: z.output<typeof config>;
/** texts whose ids are the reference's: each id in use is the id of one letter, sign or digit */
let texts: readonly string[];
const rows = (name: string): Float64Array[] => {
  const { data, shape } = need(tensors, name);
  const [n, d] = shape as [number, number];
  return Array.from({ length: n }, (_, i) => data.subarray(i * d, (i + 1) * d));
};
const json = (file: string, value: unknown) => writeFile(file, JSON.stringify(value));

/** A folder of CLIPModel; `change` replaces settings of its files. */
async function writeClip(folder: string, change: { readonly [file: string]: object } = {}): Promise<void> {
  await mkdir(folder, { recursive: true });
  const { text, vision, projection_dim } = sizes;
  await json(path.join(folder, 'config.json'), { model_type: 'clip', text_config: text, vision_config: vision, projection_dim, logit_scale_init_value: 2.6592, ...change['config.json'] }); // biome-ignore format: one line
  const picture = { crop_size: 32, do_center_crop: true, do_normalize: true, do_resize: true, image_mean: rule.mean, image_std: rule.std, resample: 3, size: 32 }; // biome-ignore format: one line
  await json(path.join(folder, 'preprocessor_config.json'), { ...picture, ...change['preprocessor_config.json'] });
  const used = [...new Set(rows('clip.input_ids').flatMap((ids) => [...ids].filter((id) => id < 298)))];
  const signs = [...'abcdefghijklmnopqrstuvwxyz0123456789'].slice(0, used.length);
  const vocabulary = Object.fromEntries(used.map((id, i) => [`${signs[i]}</w>`, id]));
  await json(path.join(folder, 'vocab.json'), { ...vocabulary, '<|startoftext|>': 298, '<|endoftext|>': 299 });
  await writeFile(path.join(folder, 'merges.txt'), '#version: 0.2\n');
  await json(path.join(folder, 'tokenizer_config.json'), { model_max_length: 16 });
  texts = rows('clip.input_ids').map((ids) => [...ids].filter((id) => id < 298).map((id) => signs[used.indexOf(id)]).join(' ')); // biome-ignore format: one line
  const weights = [...tensors].filter(([name]) => name.startsWith('clip.weights.')).map(([name, { shape, data }]) => [name.slice('clip.weights.'.length), { dtype: 'F32' as const, shape, data: Float32Array.from(data) }] as const); // biome-ignore format: one line
  const all = new Map([...weights, ['logit_scale', { dtype: 'F32' as const, shape: [], data: Float32Array.of(2.6) }], ['text_model.embeddings.position_ids', { dtype: 'F32' as const, shape: [1, 2], data: Float32Array.of(0, 1) }]]); // biome-ignore format: one line
  await writeSafetensors(path.join(folder, 'model.safetensors'), all, new Map(), {});
}

/** Eight drawn pictures with captions in metadata.csv. */
async function writeSet(folder: string, captions: readonly (string | undefined)[]): Promise<void> {
  await mkdir(folder, { recursive: true });
  const lines = ['file_name,text'];
  for (const [i, caption] of captions.entries()) {
    const rgb = Uint8Array.from({ length: 40 * 48 * 3 }, (_, k) => (k * (i + 3) * 7 + (k >> 5) * 31) % 256);
    await sharp(rgb, { raw: { width: 40, height: 48, channels: 3 } })
      .png()
      .toFile(path.join(folder, `${i}.png`));
    if (caption !== undefined) lines.push(`${i}.png,${caption}`);
  }
  if (lines.length > 1) await writeFile(path.join(folder, 'metadata.csv'), `${lines.join('\n')}\n`);
}

const counted = { vectors: 0 };
const how = (folder: string | undefined) => ({ folder, say: () => undefined });
let backend: Backend;
beforeAll(async () => {
  tensors = await readGoldenTensors(path.join(golden, 'clip.safetensors'));
  pictures = await readGoldenTensors(path.join(golden, 'clip-pictures.safetensors'));
  rule = await readGoldenJson(golden, 'clip-pictures.json', cut);
  sizes = await readGoldenJson(golden, 'clip.json', config);
  await writeClip(at('clip'));
  backend = await openBackend('wasm');
  await writeSet(at('drawn'), [texts[0], texts[1], texts[2], texts[3], texts[0], texts[1], texts[2], undefined]);
  await writeSet(at('films'), [texts[3], texts[2], texts[1], texts[0]]);
  await writeSet(at('bare'), [undefined, undefined, undefined, undefined]);
  return () => backend.close();
});

describe('pictures and texts as CLIP takes them', () => {
  test('pictures are cut as transformers cuts them, to the byte, and normalised', () => {
    for (const k of [0, 1, 2]) {
      const [image, cropped] = [need(pictures, `${k}.image`), need(pictures, `${k}.cropped`)];
      const [height, width] = image.shape as [number, number, number];
      const got = clipPixels({ file: '', hash: '', width, height, data: Uint8Array.from(image.data) }, { side: rule.size, mean: rule.mean, std: rule.std }); // biome-ignore format: one line
      expect(got.length).toBe(rule.size ** 2 * 3);
      const bytes = got.map((x, i) => Math.round((x * rule.std[i % 3]! + rule.mean[i % 3]!) * 255) + 0);
      expect(Array.from(bytes)).toEqual(Array.from(cropped.data));
      // per channel as many values: the mean of all is the reference's
      expect(Math.abs(got.reduce((a, b) => a + b, 0) / got.length - rule.means[k]!)).toBeLessThan(1e-6);
    }
  });
  test('texts from words to vectors are those of transformers', async () => {
    const clip = await clipEmbedders(at('clip'), backend);
    const got = await featuresOf(texts.map(textItem), clip.texts, how(undefined));
    for (const [i, want] of rows('clip.text_embeds').entries())
      for (let j = 0; j < want.length; j++) expect(Math.abs(got[i]![j]! - want[j]!)).toBeLessThan(7e-6);
    expect([clip.cut(texts[0]!), clip.cut('a '.repeat(15))]).toEqual([false, true]);
  });
  test('vectors are kept by content, those of pictures beside those of texts', async () => {
    const clip = await clipEmbedders(at('clip'), backend);
    const counting = { ...clip.texts, features: (all: Parameters<typeof clip.texts.features>[0]) => { counted.vectors += all.length; return clip.texts.features(all); } }; // biome-ignore format: one line
    const items = [texts[0]!, texts[1]!, texts[0]!].map(textItem);
    const first = await featuresOf(items, counting, how(at('kept')));
    expect(await featuresOf(items.slice(1), counting, how(at('kept')))).toEqual(first.slice(1));
    expect(counted.vectors).toBe(2);
    await writeClip(at('clip-other'), { 'preprocessor_config.json': { image_mean: [0.5, 0.5, 0.5] } });
    const other = await clipEmbedders(at('clip-other'), backend);
    expect(other.pictures.id).not.toBe(clip.pictures.id);
  });
});

describe('the metric', () => {
  const set = (pairs: PictureSet['pairs']): PictureSet => ({ name: 'fake', features: [], grey: [], ...(pairs && { pairs }) }); // biome-ignore format: one line
  const pairs = () => ({ texts: ['a', 'b', 'c', 'd'], vectors: { pictures: rows('clip.image_embeds'), texts: rows('clip.text_embeds') }, without: 0, cut: 2 }); // biome-ignore format: one line
  const found = (p: PictureSet['pairs']) => agreement.compute({ real: set(undefined), fake: set(p), key: [1, 2] as never }); // biome-ignore format: one line
  test('of the reference’s vectors is torchmetrics’ and Hessel’s', () => {
    const { readings, cautions } = found(pairs());
    const value = new Map(readings.map((r) => [r.label, r.value]));
    expect(value.get('CLIP score, each pair clamped at 0')).toBeCloseTo(11.364051950472062, 11);
    expect(value.get('CLIPScore')).toBeCloseTo(0.2841012987618015, 12);
    expect(value.get('CLIP score, mean clamped at 0')).toBeCloseTo(6.289214067433948, 11);
    expect(value.get('100·cosine')).toBeCloseTo(6.289214067433948, 11);
    // above other texts: each picture's own cosine less that with the next text
    const cos = need(tensors, 'clip.cosine').data;
    const above = [0, 1, 2, 3].map((i) => 100 * (cos[5 * i]! - cos[4 * i + ((i + 1) % 4)]!));
    expect(value.get('100·cosine above other texts')).toBeCloseTo(above.reduce((a, b) => a + b, 0) / 4, 11);
    expect(cautions!.join(' ')).toContain('2 texts of fake pictures are longer');
  });
  test('other texts are other texts', () => {
    const vectors = { pictures: [[1], [2], [3]], texts: [[4], [4], [5]] };
    expect(otherTexts({ texts: ['x', 'x', 'y'], vectors, without: 0, cut: 0 })).toEqual([[5], [5], [4]]);
    expect(otherTexts({ texts: ['x', 'x'], vectors, without: 0, cut: 0 })).toBeUndefined();
    const { readings, cautions } = found({ ...pairs(), texts: ['a', 'a', 'a', 'a'] });
    expect(readings.map((r) => r.label)).not.toContain('100·cosine above other texts');
    expect(cautions!.join(' ')).toContain('All fakes have one text');
  });
  test('without CLIP there is none', () => expect(found(undefined).readings).toEqual([]));
});

describe('the command', () => {
  const run = (...args: string[]) => runCommand(main, ['--backend', 'wasm', '--out', at('clip.html'), ...args]);
  test('scores captions of a folder, beside real pictures with theirs', async () => {
    const r = await run(
      '--real',
      at('films'),
      '--fake',
      at('drawn'),
      '--clip',
      at('clip'),
      '--cache',
      at('cache-clip'),
    );
    expect([r.code, r.stderr]).toEqual([0, expect.stringContaining('features of 4 of 4 texts by CLIP in ')]);
    const clip = await clipEmbedders(at('clip'), backend);
    const loaded = await Promise.all([0, 1, 2, 3, 4, 5, 6].map((i) => loadPicture(path.join(at('drawn'), `${i}.png`))));
    const seen = await featuresOf(loaded, clip.pictures, how(undefined));
    const own = await featuresOf(
      [0, 1, 2, 3, 0, 1, 2].map((i) => textItem(texts[i]!)),
      clip.texts,
      how(undefined),
    );
    const mean = seen.reduce((sum, v, i) => sum + (100 * cosine(v, own[i]!)) / 7, 0);
    const value = (label: string) => Number(r.stdout.match(new RegExp(`^ *${label} +(\\S+)`, 'm'))![1]!.replace('−', '-')); // biome-ignore format: one line
    expect(Math.abs(value('100·cosine') - mean)).toBeLessThan(6e-4 * Math.abs(mean));
    expect(r.stdout).toContain('real pictures with their own texts');
    expect(r.stdout).toContain('1 fake pictures have no text');
    const page = await readFile(at('clip.html'), 'utf8');
    for (const text of ['CLIP score', 'Hessel et al.', 'Texts: CLIP of 3 layers, patches of 8 at 32 pixels, 20 numbers', 'of findings in films it knows little']) expect(page).toContain(text); // biome-ignore format: one line
    const again = await run('--real', at('films'), '--fake', at('drawn'), '--clip', at('clip'), '--cache', at('cache-clip')); // biome-ignore format: one line
    expect([again.code, again.stderr, again.stdout]).toEqual([0, '', r.stdout]);
  });
  test('scores a run by the reports its pictures were drawn from', async () => {
    const samples = at('a-run/samples');
    await mkdir(samples, { recursive: true });
    await json(at('a-run/config.json'), {});
    await writeFile(at('a-run/metrics.jsonl'), '');
    const list = [];
    for (let i = 1; i <= 4; i++) {
      await copyFile(path.join(at('drawn'), `${i}.png`), path.join(samples, `0${i}-adapted.png`));
      list.push({ report: texts[i - 1], split: 'test', pictures: [{ label: 'adapted', file: `samples/0${i}-adapted.png` }] }); // biome-ignore format: one line
    }
    await json(path.join(samples, 'samples.json'), list);
    const r = await run('--real', at('bare'), '--fake', at('a-run'), '--clip', at('clip'));
    expect(r.code, r.stderr).toBe(0);
    expect(r.stdout).toContain('CLIP score stands without that of real pictures, whose texts were not found');
    expect(r.stdout).toMatch(/^100·cosine +\S+/m);
  });
  test('and in an experiment, as the mean that torchmetrics prints', async () => {
    const [run] = runsOf(parseExperiment('{ name: e, methods: [{ name: one }], seeds: [1] }'), 'x');
    const done: State = { run: run!, state: 'done', record: parseRecord({ name: 'r', folder: at('a-run') }) };
    const scores = await scoresOf({ clip: at('clip'), dims: [2048] }, [done], at('out'), 'wasm', { say: () => undefined, signal: new AbortController().signal }); // biome-ignore format: one line
    const clip = await clipEmbedders(at('clip'), backend);
    const loaded = await Promise.all([1, 2, 3, 4].map((i) => loadPicture(path.join(at('drawn'), `${i}.png`))));
    const seen = await featuresOf(loaded, clip.pictures, how(undefined));
    const own = await featuresOf(texts.slice(0, 4).map(textItem), clip.texts, how(undefined));
    const mean = seen.reduce((sum, v, i) => sum + Math.max(0, 100 * cosine(v, own[i]!)) / 4, 0);
    expect(scores.get(at('a-run'))!.get('clip')).toBeCloseTo(mean, 9);
    expect(mean).toBeGreaterThan(0);
  });
  test.each([
    ['no texts', {}, ['--fake', at('bare')], 'bare: data: no known layout here'],
    ['no folder', {}, ['--clip', at('no-clip')], 'config.json: no such file'],
    ['another model', { 'config.json': { model_type: 'siglip' } }, [], 'model_type: is "siglip", only "clip" is supported'], // biome-ignore format: one line
    ['patches that do not fit', { 'config.json': { vision_config: { image_size: 32, patch_size: 7 } } }, [], 'vision_config: patch_size: is 7, 7 does not divide image_size 32'], // biome-ignore format: one line
    ['another size', { 'preprocessor_config.json': { crop_size: 24 } }, [], 'crop_size: pictures of 32 cut to 24, expected 32 for both'], // biome-ignore format: one line
    ['another filter', { 'preprocessor_config.json': { resample: 2 } }, [], 'resample: is 2, only 3 (bicubic) is supported'], // biome-ignore format: one line
    ['another width', { 'config.json': { projection_dim: 16 } }, [], 'text_projection.weight'],
  ] as const)('%s: one line, no page', async (name, change, args, message) => {
    const folder = at(`clip-${name.replaceAll(' ', '-')}`);
    await writeClip(folder, change);
    const r = await runCommand(main, ['--real', at('films'), '--fake', at('drawn'), '--clip', folder, '--backend', 'cpu', ...args, '--out', at('none-clip.html')]); // biome-ignore format: one line
    expect([r.code, r.stderr]).toEqual([1, expect.stringContaining(message)]);
    expect(r.stderr.trim().split('\n')).toHaveLength(1);
    await expect(readFile(at('none-clip.html'))).rejects.toThrow('ENOENT');
  });
});
