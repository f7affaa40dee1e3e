/** `npm run evaluate` as a person types it, and its numbers from pictures to scores against torch-fidelity and prdc. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import sharp from 'sharp';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { z } from 'zod';
import { openBackend } from '../../../core/index.ts';
import { inceptionSpecUpTo } from '../../../models/inception/index.ts';
import { writeSafetensors } from '../../../models/io/safetensors-write.ts';
import { specShapes } from '../../../models/spec.ts';
import { hostKey } from '../../../selora/adapter.ts';
import { featuresOf } from '../../../train/evaluate/cache.ts';
import { type Extractor, inceptionExtractor } from '../../../train/evaluate/features.ts';
import { loadPicture, setFiles } from '../../../train/evaluate/pictures.ts';
import { evaluateSets, main } from '../../../train/evaluate.ts';
import type { PictureSet } from '../../../train/metrics/sets/metric.ts';
import { type GoldenTensors, need, readGoldenJson, readGoldenTensors } from '../../../train/verify/golden.ts';
import { duration } from '../../../train/words/format.ts';
import { runCommand } from '../../support/commands.ts';
import { scratch } from '../../support/data-fixtures.ts';
import { weightByFormula } from '../../support/inception-weights.ts';

const folder = path.join(import.meta.dirname, '../../golden/metrics');
const at = (name: string) => path.join(scratch, name);
let tensors: GoldenTensors;
let scores: Record<string, number>;
beforeAll(async () => {
  tensors = await readGoldenTensors(path.join(folder, 'evaluate.safetensors'));
  scores = await readGoldenJson(folder, 'evaluate.json', z.record(z.string(), z.number()));
  for (const name of ['real', 'fake']) {
    await mkdir(at(name), { recursive: true });
    const { data, shape } = need(tensors, name);
    const [n, , height, width] = shape as [number, number, number, number];
    const area = width * height;
    for (let i = 0; i < n; i++) {
      const rgb = Uint8Array.from({ length: 3 * area }, (_, k) => data[(i * 3 + (k % 3)) * area + Math.floor(k / 3)]!);
      const file = path.join(at(name), `${String(i).padStart(2, '0')}.png`);
      await sharp(rgb, { raw: { width, height, channels: 3 } }).png().toFile(file); // biome-ignore format: one line
    }
  }
});
const rows = (name: string): Float64Array[] => {
  const { data, shape } = need(tensors, name);
  const [n, d] = shape as [number, number];
  return Array.from({ length: n }, (_, i) => data.subarray(i * d, (i + 1) * d));
};

describe('from features to scores', () => {
  test('are those of torch-fidelity and prdc, the floor too', () => {
    const set = (name: string): PictureSet => ({ name, features: rows(`features_${name}`), grey: [] });
    // no pictures: diversity is left out by giving it none
    const grey = Array.from({ length: 80 }, () => ({ width: 4, height: 4, channels: 1, data: new Uint8Array(16) }));
    const sets = { real: { ...set('real'), grey }, fake: { ...set('fake'), grey }, key: hostKey(1) };
    const { results, cautions } = evaluateSets(sets, { comparable: true });
    const found = new Map(results.flatMap((r) => r.readings).map((r) => [r.label, r]));
    const near = (got: number, want: number, by: number) => expect(Math.abs(got - want)).toBeLessThanOrEqual(by);
    near(found.get('FID of 64 features')!.value, scores.fid64!, 1e-10);
    // fewer pictures than dimensions: the reference takes roots of rounded eigenvalues
    near(found.get('FID of 64 features')!.floors![0]!.value, scores.fid64_halves_of_real!, 1e-8);
    near(found.get('KID')!.value, scores.kid_unbiased_all_samples!, 1e-13);
    const [low, high] = found.get('KID')!.interval!;
    expect([low < found.get('KID')!.value, found.get('KID')!.value < high]).toEqual([true, true]);
    for (const key of ['precision', 'recall', 'density', 'coverage'])
      near(found.get(key)!.value, scores[`k5_${key}`]!, 1e-12);
    expect(cautions.join(' ')).toContain('sides of 4 pixels are below its window of 11');
  });
  test('of a set with itself: FID 0, KID’s interval holds 0', () => {
    const grey = Array.from({ length: 80 }, () => ({ width: 4, height: 4, channels: 1, data: new Uint8Array(16) }));
    const real = { name: 'real', features: rows('features_real'), grey };
    const { results, cautions } = evaluateSets({ real, fake: { ...real, name: 'fake' }, key: hostKey(1) }, { comparable: true }); // biome-ignore format: one line
    const found = new Map(results.flatMap((r) => r.readings).map((r) => [r.label, r.value]));
    expect(Math.abs(found.get('FID of 64 features')!)).toBeLessThan(1e-12);
    expect(found.get('KID')!).toBeLessThan(0);
    expect(cautions.join(' ')).toContain('The interval of KID holds 0');
  });
  test('too few pictures for the dimensions are told', () => {
    const few = (name: string): PictureSet => ({ name, features: rows(`features_${name}`).slice(0, 20), grey: [] });
    const grey = Array.from({ length: 20 }, () => ({ width: 4, height: 4, channels: 1, data: new Uint8Array(16) }));
    const { cautions } = evaluateSets({ real: { ...few('real'), grey }, fake: { ...few('fake'), grey }, key: hostKey(1) }, { comparable: true }); // biome-ignore format: one line
    expect(cautions.join(' ')).toContain('FID of 64 features from 20 pictures');
  });
});

describe('Inception from a file', () => {
  test('gives the reference’s features, and keeps them by content', async () => {
    const file = at('inception.safetensors');
    const shapes = [...specShapes(inceptionSpecUpTo(64))];
    const named = new Map(shapes.map(([name, shape]) => [name, { dtype: 'F32' as const, shape, data: weightByFormula(name, shape) }])); // biome-ignore format: one line
    // what a published file has beside them
    named.set('Conv2d_1a_3x3.bn.num_batches_tracked', { dtype: 'F32', shape: [], data: Float32Array.of(0) });
    await writeSafetensors(file, named, new Map(), {});
    const backend = await openBackend('wasm');
    try {
      const extractor = await inceptionExtractor(file, 64, backend);
      const { files } = await setFiles(at('real'), 4);
      const pictures = await Promise.all(files.slice(0, 4).map(loadPicture));
      let asked = 0;
      const counting: Extractor = { ...extractor, features: (p) => { asked += p.length; return extractor.features(p); } }; // biome-ignore format: one line
      const lines: string[] = [];
      const how = { folder: at('cache'), say: (line: string) => void lines.push(line) };
      const got = await featuresOf(pictures, counting, how);
      for (const [i, want] of rows('features_real').slice(0, 4).entries())
        for (let j = 0; j < 64; j++) expect(Math.abs(got[i]![j]! - want[j]!)).toBeLessThanOrEqual(3e-6 * Math.max(...want)); // biome-ignore format: one line
      expect(await featuresOf([pictures[2]!, pictures[0]!], counting, how)).toEqual([got[2], got[0]]);
      expect(asked).toBe(4);
      expect(lines.at(-1)).toMatch(/^features of 4 of 4 pictures in /);
    } finally {
      await backend.close();
    }
  });
  test('a file without its layers is refused by name', async () => {
    const file = at('empty.safetensors');
    await writeSafetensors(file, new Map([['x', { dtype: 'F32', shape: [1], data: Float32Array.of(1) }]]), new Map(), {}); // biome-ignore format: one line
    const r = await runCommand(main, ['--real', at('real'), '--fake', at('fake'), '--inception', file, '--backend', 'cpu', '--out', at('none.html')]); // biome-ignore format: one line
    expect([r.code, r.stderr]).toEqual([1, expect.stringMatching(/empty\.safetensors.*Conv2d_1a_3x3\.conv\.weight/)]);
  });
});

describe('10,000 pictures', () => {
  test('the time that is left is told all along, and nothing is computed twice or lost when it is stopped', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    try {
      const pictures = Array.from({ length: 10_000 }, (_, i) => ({ hash: `${i}` }));
      let asked = 0;
      const stop = new AbortController();
      const slow = { items: 'pictures', id: 'slow', batch: 100, features: async (some: readonly { readonly hash: string }[]) => { vi.advanceTimersByTime(10_000); asked += some.length; if (asked === 4000) stop.abort(); return some.map(({ hash }) => Float32Array.of(Number(hash))); } }; // biome-ignore format: one line
      const lines: string[] = [];
      const how = { folder: at('slow'), say: (line: string) => void lines.push(line) };
      await expect(featuresOf(pictures, slow, { ...how, signal: stop.signal })).rejects.toThrow();
      expect([lines.length, lines[0], lines.at(-1)]).toEqual([40, `features of 100 of 10000 pictures, ${duration(990)} left`, `features of 4000 of 10000 pictures, ${duration(600)} left`]); // biome-ignore format: one line
      const all = await featuresOf(pictures, slow, how);
      expect([asked, all.length, all[0]![0], all[9999]![0]]).toEqual([10_000, 10_000, 0, 9999]);
      expect(lines.at(-1)).toBe(`features of 6000 of 6000 pictures in ${duration(600)}`);
    } finally {
      vi.useRealTimers();
    }
  });
});

describe('the command', () => {
  test('two folders become one page with numbers, intervals, pictures and what may not be concluded', async () => {
    const out = at('page.html');
    const r = await runCommand(main, ['--real', at('real'), '--fake', at('fake'), '--out', out]);
    expect([r.code, r.code === 0 ? '' : r.stderr]).toEqual([0, '']);
    const page = await readFile(out, 'utf8');
    for (const text of ['KID', 'FID of 64 features', 'precision', 'MS-SSIM among fake pictures', 'real against real', 'What may not be concluded', 'None of the numbers compares with a publication', 'FID of 64 features from 24 pictures', 'Closest pairs']) expect(page).toContain(text); // biome-ignore format: one line
    expect(page.match(/<img /g)!.length).toBe(12 + 12 + 8);
    expect(r.stdout).toContain('24 fake pictures, 24 real pictures');
  });
  test('a set against itself: every share 1, all of them copies', async () => {
    const r = await runCommand(main, ['--real', at('real'), '--fake', at('real'), '--out', at('same.html')]);
    const value = (label: string) => Number(r.stdout.match(new RegExp(`^${label} +(\\S+)`, 'm'))![1]);
    for (const label of ['precision', 'recall', 'coverage']) expect(value(label)).toBe(1);
    expect(value('fakes closer than real pictures come to each other')).toBe(1);
  });
  test.each([
    ['no folder', ['--real', at('nowhere'), '--fake', at('fake')], 'nowhere: no such file'],
    ['too few', ['--real', at('few'), '--fake', at('fake')], 'few: 1 pictures, expected 4 or more'],
    ['broken', ['--real', at('broken'), '--fake', at('fake')], '3.png: image: is no PNG, JPEG'],
  ])('%s: one line, no page', async (_name, args, message) => {
    await mkdir(at('few'), { recursive: true });
    await writeFile(path.join(at('few'), 'a.png'), 'x');
    await mkdir(at('broken'), { recursive: true });
    for (let i = 0; i < 4; i++) await writeFile(path.join(at('broken'), `${i}.png`), i < 3 ? await readFile(path.join(at('real'), '00.png')) : 'x'); // biome-ignore format: one line
    const r = await runCommand(main, [...args, '--out', at('no.html')]);
    expect(r.code).toBe(1);
    expect(r.stderr).toContain(message);
    expect(r.stderr.trim().split('\n')).toHaveLength(1);
    await expect(readFile(at('no.html'))).rejects.toThrow('ENOENT');
  });
});
