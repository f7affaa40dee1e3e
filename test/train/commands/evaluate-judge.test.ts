/** `npm run evaluate --judge`: what a judge is asked, that it learns what can be seen and nothing else, and the numbers it is told by. */
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import sharp from 'sharp';
import { describe, expect, test, vi } from 'vitest';
import { openBackend } from '../../../core/index.ts';
import { hostKey } from '../../../selora/adapter.ts';
import { judges, type Told, wordsToAsk } from '../../../train/evaluate/judge.ts';
import { main } from '../../../train/evaluate.ts';
import { auc } from '../../../train/metrics/measures/auc.ts';
import { judged, meanAuc } from '../../../train/metrics/sets/judged.ts';
import type { Judged } from '../../../train/metrics/sets/metric.ts';
import { runCommand } from '../../support/commands.ts';
import { scratch } from '../../support/data-fixtures.ts';
import { rng } from '../../support/gradcheck.ts';
import { longTest } from '../../support/long.ts';

vi.setConfig({ testTimeout: 120_000 });
const at = (name: string) => path.join(scratch, name);

describe('area under the curve', () => {
  test('is the share of pairs in the right order, ties by half', () => {
    const random = rng(3);
    for (let k = 0; k < 50; k++) {
      const scores = Array.from({ length: 12 }, () => Math.floor(random() * 6));
      const positive = scores.map((_, i) => i === 0 || (i !== 1 && random() < 0.5));
      const pairs = scores.flatMap((a, i) => scores.flatMap((b, j) => (positive[i] && !positive[j] ? [a > b ? 1 : a === b ? 0.5 : 0] : []))); // biome-ignore format: one line
      expect(auc(scores, positive)).toBeCloseTo(pairs.reduce<number>((a, b) => a + b, 0) / pairs.length, 12);
    }
  });
  test('of one kind alone there is none; the mean leaves such words out', () => {
    expect(auc([1, 2], [true, true])).toBeUndefined();
    expect(
      meanAuc(
        [
          [1, 5],
          [2, 6],
        ],
        [
          [false, true],
          [true, true],
        ],
      ),
    ).toBe(1);
    expect(meanAuc([[1], [2]], [[true], [true]])).toBeNaN();
  });
});

describe('words to ask for', () => {
  test('stand in some reports and not in others; of words that go together one', () => {
    const texts = ['clear lungs today', 'clear lungs today', 'left effusion today', 'left opacity today'];
    expect(wordsToAsk(texts)).toEqual(['clear', 'left', 'effusion', 'opacity']);
    expect(wordsToAsk(['the same', 'the same'])).toEqual([]);
  });
});

/** a bright square on one side of a noisy film; the report names a side, the true one or another */
function films(n: number, seed: number, told: (side: string, i: number) => string): Told[] {
  const random = rng(seed);
  return Array.from({ length: n }, (_, i) => {
    const left = random() < 0.5;
    const [width, height, y0] = [40, 40, 8 + Math.floor(random() * 12)];
    const data = new Uint8Array(width * height * 3).map((_, k) => {
      const [x, y] = [Math.floor(k / 3) % width, Math.floor(k / 3 / width)];
      const inside = y >= y0 && y < y0 + 10 && (left ? x >= 5 && x < 15 : x >= 25 && x < 35);
      return 60 + Math.floor(random() * 60) + (inside ? 90 : 0);
    });
    return { picture: { file: `${i}.png`, width, height, data, hash: String(i) }, text: told(left ? 'left' : 'right', i) }; // biome-ignore format: one line
  });
}
const honest = (side: string) => `opacity on the ${side} lung`;
const any = (_: string, i: number) => `opacity on the ${i % 2 ? 'left' : 'right'} lung`;
async function read(real: readonly Told[], fake: readonly Told[]) {
  const backend = await openBackend('wasm', { threads: 1 });
  try {
    const found = await judges(real, fake, { backend, key: hostKey(1), say: () => undefined });
    const set = { name: 's', features: [], grey: [] };
    const { readings } = judged.compute({ real: set, fake: set, judged: found, key: hostKey(1) });
    return { found, values: readings.map((r) => r.value), floors: readings.map((r) => r.floors![0]!.value), readings };
  } finally {
    await backend.close();
  }
}

describe('a judge', () => {
  let first: Judged | undefined;
  // what it learns of real pictures is in the next test too
  longTest('learns what can be seen: pictures that show their reports are read right, and teach', async () => {
    const { found, values, floors, readings } = await read(films(80, 1, honest), films(40, 2, honest));
    first = found;
    expect(found.words).toEqual(['left', 'right']);
    expect(found.learned).toEqual({ real: 40, fake: 40, few: 40 });
    for (const value of [...values, ...floors]) expect(value).toBeGreaterThan(0.97);
    for (const { value, interval } of readings) expect(interval![0] <= value && value <= interval![1]).toBe(true);
  });
  longTest(
    'pictures that show anything are read by chance and teach nothing, while real ones are still read right',
    async () => {
      const { values, floors, readings, found } = await read(films(80, 1, honest), films(40, 2, any));
      // the same key, the same real pictures: the same judge
      if (first) expect(found.ofReal.real).toEqual(first.ofReal.real);
      for (const value of floors) expect(value).toBeGreaterThan(0.97);
      expect(values[0]).toBeLessThan(0.75);
      expect(readings[0]!.interval![0]).toBeLessThan(0.5);
      expect(values[1]).toBeLessThan(0.85);
    },
  );
  test('is stopped while it learns, not when it has learned', async () => {
    const backend = await openBackend('wasm', { threads: 1 });
    const [stop, said] = [new AbortController(), [] as string[]];
    setTimeout(() => stop.abort(), 0);
    const learning = judges(films(20, 1, honest), films(10, 2, any), { backend, key: hostKey(1), say: (line) => void said.push(line), signal: stop.signal }); // biome-ignore format: one line
    await expect(learning.finally(() => backend.close())).rejects.toThrow();
    expect(said).toEqual([]);
  });
  test('with no word to ask for it says so', async () => {
    const { found, readings } = await read(films(20, 1, () => 'film'), films(10, 2, any)); // biome-ignore format: one line
    expect([found.words, readings]).toEqual([[], []]);
  });
});

describe('the command', () => {
  async function folder(name: string, set: readonly Told[], captions = true) {
    await mkdir(at(name), { recursive: true });
    for (const { picture: p } of set)
      await sharp(p.data, { raw: { width: p.width, height: p.height, channels: 3 } }).png().toFile(path.join(at(name), p.file)); // biome-ignore format: one line
    const lines = set.map(({ picture, text }) => `${picture.file},${text}`);
    if (captions) await writeFile(path.join(at(name), 'metadata.csv'), `file_name,text\n${lines.join('\n')}\n`);
    return at(name);
  }
  longTest('prints both readings with their floors and intervals, and shows them on the page', async () => {
    const [real, fake] = [await folder('seen', films(40, 1, honest)), await folder('drawn', films(20, 2, honest))];
    const r = await runCommand(main, ['--real', real, '--fake', fake, '--judge', '--backend', 'wasm', '--out', at('judge.html')]); // biome-ignore format: one line
    expect(r.code, r.stderr).toBe(0);
    expect(r.stdout).toMatch(/^learned from real pictures, reads fakes +\S+ +\S+ to \S+$/m);
    expect(r.stdout).toMatch(/^ {2}it reads real pictures \(learned from 20, 20 others\) +\S+/m);
    expect(r.stdout).toMatch(/^learned from 20 fakes, reads real pictures +\S+ +\S+ to \S+$/m);
    expect(r.stdout).toContain('asked for the words left, right');
  });
  test('pictures without texts are refused in one line', async () => {
    const [real, fake] = [await folder('bare', films(8, 1, honest), false), await folder('few', films(4, 2, honest))];
    for (const [a, b, line] of [
      [real, fake, 'bare: data: no known layout here'],
      [fake, fake, 'few: texts: 4 pictures have one, expected 8 or more for --judge'],
    ] as const) {
      const r = await runCommand(main, ['--real', a, '--fake', b, '--judge', '--backend', 'wasm', '--out', at('none.html')]); // biome-ignore format: one line
      expect([r.code, r.stderr]).toEqual([1, expect.stringContaining(line)]);
      expect(r.stderr.trim().split('\n')).toHaveLength(1);
    }
  });
});
