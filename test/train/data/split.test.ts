import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import {
  dataHash,
  describeSplit,
  duplicatePictures,
  findLeaks,
  parseRatios,
  readSplit,
  SPLITS,
  type Splittable,
  splitRecords,
  writeSplit,
} from '../../../train/data/split.ts';

const dir = mkdtempSync(join(tmpdir(), 'selora-split-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const hashOf = (name: string) => createHash('sha256').update(name).digest('hex');
const record = (id: string, patient?: string, picture = id): Splittable => ({
  id,
  text: `report of ${id}`,
  picture: { hash: hashOf(picture) },
  ...(patient === undefined ? {} : { patient }),
});
const singles = (n: number) => Array.from({ length: n }, (_, at) => record(`r${String(at).padStart(4, '0')}`));

describe('ratios', () => {
  it('reads two or three parts', () => {
    expect(parseRatios('80/16/4')).toEqual({ train: 0.8, validation: 0.16, test: 0.04 });
    expect(parseRatios('80/20')).toEqual({ train: 0.8, validation: 0, test: 0.2 });
    expect(parseRatios('70/10/20')).toEqual({ train: 0.7, validation: 0.1, test: 0.2 });
  });
  it.each(['', '100', '80/10', '80/10/5/5', '80/-10/30', '0/50/50', '80/x/20', '1e2/0'])('refuses %j', (text) => {
    expect(() => parseRatios(text)).toThrow(/sum of 100/);
  });
});

describe('splits', () => {
  it('has the sizes of the ratios where nobody comes twice', () => {
    const sizes = (n: number, ratios: string) => {
      const parts = splitRecords(singles(n), parseRatios(ratios), 3);
      return SPLITS.map((name) => parts[name].length);
    };
    expect(sizes(100, '80/16/4')).toEqual([80, 16, 4]);
    expect(sizes(138, '80/20')).toEqual([110, 0, 28]);
    expect(sizes(5000, '70/10/20')).toEqual([3500, 500, 1000]);
    // 4% of 9 is nobody; the test part still gets one.
    expect(sizes(9, '80/16/4')[2]).toBe(1);
    expect(() => splitRecords(singles(2), parseRatios('80/16/4'), 1)).toThrow(/2 patients or pictures/);
  });

  it('holds each pair once and never parts a patient or a picture', () => {
    const name = (prefix: string, n: number) => fc.integer({ min: 0, max: n }).map((at) => `${prefix}${at}`);
    const records = fc
      .array(fc.tuple(fc.option(name('p', 20), { nil: undefined }), name('i', 60)), { minLength: 1, maxLength: 80 })
      .map((pairs) => pairs.map(([patient, picture], at) => record(`r${at}`, patient, picture)));
    fc.assert(
      fc.property(records, fc.integer({ min: 0, max: 1000 }), (all, seed) => {
        try {
          const parts = splitRecords(all, parseRatios('80/10/10'), seed);
          const ids = SPLITS.flatMap((split) => parts[split].map(({ id }) => id));
          expect(ids.toSorted()).toEqual(all.map(({ id }) => id).toSorted());
          expect(findLeaks(parts)).toEqual([]);
          for (const split of SPLITS) expect(parts[split].length).toBeGreaterThan(0);
        } catch (error) {
          if (!(error instanceof RangeError)) throw error;
        }
      }),
      { numRuns: 200 },
    );
  });

  it('depends on the seed, not on the order of the list', () => {
    const all = singles(60);
    const train = (records: readonly Splittable[], seed: number) =>
      splitRecords(records, parseRatios('80/10/10'), seed).train.map(({ id }) => id);
    expect(train(all, 1)).toEqual(train(all.toReversed(), 1));
    expect(train(all, 1)).not.toEqual(train(all, 2));
  });

  it('finds the same patient or picture in two parts, and pictures there twice', () => {
    const parts = {
      train: [record('a', 'p1'), record('b', 'p2')],
      validation: [record('c', 'p3', 'b')],
      test: [record('d', 'p1'), record('e', 'p4', 'b')],
    };
    expect(findLeaks(parts)).toEqual([
      { kind: 'patient', splits: ['train', 'test'], ids: ['a', 'd'] },
      { kind: 'picture', splits: ['train', 'validation', 'test'], ids: ['b', 'c', 'e'] },
    ]);
    const all = SPLITS.flatMap((name) => parts[name]);
    expect(duplicatePictures(all).map((group) => group.map(({ id }) => id))).toEqual([['b', 'c', 'e']]);
  });
});

describe('split files', () => {
  const all = [...singles(20), record('x1', 'anna'), record('x2', 'anna')];
  const ratios = parseRatios('80/10/10');
  const parts = splitRecords(all, ratios, 7);
  const file = join(dir, 'split.json');

  it('come back the same, private, without texts and patients', async () => {
    await writeSplit(file, describeSplit(parts, ratios, 7));
    const split = await readSplit(file);
    expect(split).toEqual(describeSplit(parts, ratios, 7));
    for (const name of SPLITS) expect(split[name].map(({ id }) => id)).toEqual(parts[name].map(({ id }) => id));
    const source = readFileSync(file, 'utf8');
    expect(source).not.toContain('report of');
    expect(source).not.toContain('anna');
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  it('tell the data set by its content', () => {
    expect(dataHash(all)).toBe(dataHash(all.toReversed()));
    expect(dataHash(all)).not.toBe(dataHash(all.slice(1)));
    expect(dataHash(all)).not.toBe(dataHash(all.map((one, at) => (at === 0 ? { ...one, text: 'other' } : one))));
  });

  it('that are broken are refused by field', async () => {
    const split = describeSplit(parts, ratios, 7);
    const broken = join(dir, 'broken.json');
    writeFileSync(broken, JSON.stringify({ ...split, seed: -1 }));
    await expect(readSplit(broken)).rejects.toThrow(/broken\.json: seed: /);
    writeFileSync(broken, '{');
    await expect(readSplit(broken)).rejects.toThrow(/broken\.json: .*JSON/);
  });
});
