import { describe, expect, it } from 'vitest';
import { randomOf, seedKey } from '../../../core/index.ts';
import { type Finding, lungFinding } from '../../../train/data/made/phantom-report.ts';
import { drawFilm, phantomAt } from '../../../train/data/made/phantoms.ts';
import { sceneAt } from '../../../train/data/made/scenes.ts';
import { isHeldOutCaption, readShape, scoreShapes, shapeAt } from '../../../train/data/made/shapes.ts';
import { textureAt } from '../../../train/data/made/textures.ts';
import { filmReader } from '../../../train/metrics/films/detectors.ts';
import { ALWAYS_NORMAL, type Count, scoreFilms } from '../../../train/metrics/films/score.ts';
import { LONG, longTest } from '../../support/long.ts';

const range = (n: number) => [...Array(n).keys()];
const share = ({ right, of }: Count) => right / of;

describe('captioned shapes', () => {
  it('are read back right by the detector on held-out single shapes', () => {
    const pairs = range(200).map((index) => {
      const { pixels, attributes } = shapeAt(1, 'held-out', index, 128, 'single-on-plain');
      return { told: attributes.shapes[0]!, read: readShape(pixels, 128) };
    });
    const score = scoreShapes(pairs);
    for (const name of ['x', 'y', 'size', 'brightness'] as const) expect(score[name]).toBeGreaterThanOrEqual(0.95);
    // The detector can say no: the same readings against other pictures' captions are right by chance only.
    const shifted = scoreShapes(pairs.map(({ told }, at) => ({ told, read: pairs[(at + 1) % pairs.length]!.read })));
    expect(shifted.x).toBeLessThan(0.5);
    expect(shifted.all).toBeLessThan(0.12);
  });

  it('say what is drawn: words and attributes agree', () => {
    for (const index of range(300)) {
      const { caption, attributes } = shapeAt(2, 'train', index, 4);
      expect(caption.endsWith(', noisy')).toBe(attributes.noisy);
      for (const { shape, size, brightness } of attributes.shapes) {
        for (const word of [shape, size, brightness]) expect(caption).toContain(word);
      }
      if (attributes.shapes.length === 1) {
        const { x, y } = attributes.shapes[0]!;
        const place = caption.replace(/ on (a |vertical|horizontal).*/, '');
        for (const side of ['left', 'right'] as const) expect(place.split(/\W/).includes(side)).toBe(x === side);
        for (const side of ['upper', 'lower'] as const) expect(place.includes(side)).toBe(y === side);
      }
    }
  });

  it('share no caption between training and held-out', () => {
    const captions = (split: 'train' | 'held-out') => range(400).map((index) => shapeAt(3, split, index, 1).caption);
    const heldOut = new Set(captions('held-out'));
    expect(captions('train').filter((caption) => heldOut.has(caption))).toEqual([]);
    expect([...heldOut].every(isHeldOutCaption)).toBe(true);
  });

  it('read as nothing where there is nothing', () => {
    expect(readShape(new Float32Array(64 * 64).fill(0.4), 64)).toBeUndefined();
  });
});

describe('captioned scenes', () => {
  it('are mirrored where they say so and bear no shape, and only there', () => {
    for (const index of range(60)) {
      const { pixels, caption } = sceneAt(4, index, 64);
      if (caption.includes(' over ')) continue;
      const across = range(64 * 64).map((at) => Math.abs(pixels[at]! - pixels[at - (at % 64) + 63 - (at % 64)]!));
      const mean = across.reduce((sum, value) => sum + value, 0) / across.length;
      // two grains of deviation 0.03 at most differ by 0.034 in the mean
      if (caption.endsWith('mirrored')) expect(mean).toBeLessThan(0.035);
      else if (/left|right/.test(caption)) expect(mean).toBeGreaterThan(0.005);
    }
  });

  it('have the same words at every size', () => {
    for (const index of range(20)) expect(sceneAt(5, index, 8).caption).toBe(sceneAt(5, index, 32).caption);
  });
});

describe('pictures', () => {
  it('repeat from their seed and stay inside 0..1', () => {
    for (const make of [
      (seed: number) => phantomAt(seed, 'a', 3, 64).pixels,
      (seed: number) => shapeAt(seed, 'train', 3, 64).pixels,
      (seed: number) => textureAt(seed, 3, 64),
      (seed: number) => sceneAt(seed, 3, 64).pixels,
    ]) {
      const pixels = make(1);
      expect(pixels).toEqual(make(1));
      expect(pixels).not.toEqual(make(2));
      expect(pixels.every((value) => value >= 0 && value <= 1)).toBe(true);
    }
  });
});

describe('phantoms', () => {
  it('follow the stated mixture of findings', () => {
    const all = range(3000).map((index) => phantomAt(5, 'mixture', index, 1).findings);
    const of = (test: (findings: readonly Finding[]) => boolean) => all.filter(test).length / all.length;
    expect(of((findings) => findings.length === 0)).toBeCloseTo(0.16, 1);
    expect(of((findings) => findings.length === 2)).toBeCloseTo(0.3, 1);
    // Never two in one lung, never twice the same kind.
    for (const findings of all) {
      const places = findings.map((finding) => (finding.kind === 'cardiomegaly' ? 'heart' : finding.side));
      expect(new Set(places).size).toBe(places.length);
      expect(new Set(findings.map(({ kind }) => kind)).size).toBe(findings.length);
    }
  });

  it('have reports that say every finding and no other', () => {
    for (const index of range(400)) {
      const { report, findings } = phantomAt(6, 'reports', index, 1);
      const positive = report.replace(/No [^.]*\.|[^.]*normal[^.]*\.|[^.]*clear[^.]*\./gi, '').toLowerCase();
      for (const side of ['right', 'left'] as const) {
        expect(positive.includes(side)).toBe(lungFinding(findings, side) !== undefined);
      }
      const said = (words: RegExp) => words.test(positive);
      const has = (kind: Finding['kind']) => findings.some((finding) => finding.kind === kind);
      expect(said(/opacity|consolidation|infiltrate/)).toBe(has('opacity'));
      expect(said(/effusion/)).toBe(has('effusion'));
      expect(said(/pneumothorax/)).toBe(has('pneumothorax'));
      expect(said(/cardiomegaly|enlarged/)).toBe(has('cardiomegaly'));
      if (has('cardiomegaly')) expect(report.toLowerCase()).not.toMatch(/heart size/);
    }
  });

  it('share no report between training and measuring, in any combination of findings', () => {
    const sets = (set: string) => range(1500).map((index) => phantomAt(8, set, index, 1));
    const train = sets('train');
    const reports = new Set(train.map(({ report }) => report));
    const heldOut = sets('held-out');
    expect(heldOut.filter(({ report }) => reports.has(report))).toEqual([]);
    // Both sets still cover all 33 single findings and none.
    const singles = (all: typeof train) =>
      new Set(all.filter(({ findings }) => findings.length < 2).map(({ findings }) => JSON.stringify(findings)));
    expect([singles(train).size, singles(heldOut).size]).toEqual([34, 34]);
  });

  it('have words before a film is drawn', () => {
    const [one, small] = [2 ** 20, 8].map((side) => phantomAt(1, 'words', 0, side));
    expect([one!.report, one!.findings]).toEqual([small!.report, small!.findings]);
    // no memory holds one of that size
    expect(() => one!.pixels).toThrow(RangeError);
    expect(small!.pixels).toBe(small!.pixels);
  });

  longTest(
    'are read back by the detectors, each finding and each film without it at least 98 times in 100',
    { timeout: 240_000 },
    () => {
      const read = filmReader(128);
      const films = range(500).map((index) => phantomAt(1, 'held-out', index));
      const pairs = films.map(({ findings, pixels }) => ({ told: findings, read: read(pixels) }));
      const score = scoreFilms(pairs);
      for (const kind of ['opacity', 'effusion', 'pneumothorax', 'cardiomegaly'] as const) {
        expect(share(score.hit[kind])).toBeGreaterThanOrEqual(0.98);
        expect(share(score.falseAlarm[kind])).toBeLessThanOrEqual(0.02);
      }
      for (const name of ['zone', 'size', 'density'] as const) {
        expect(share(score.attributes[name])).toBeGreaterThanOrEqual(0.96);
      }
      expect(share(score.side)).toBeGreaterThanOrEqual(0.96);
      expect(share(score.wholeReport)).toBeGreaterThanOrEqual(0.92);
      expect(score.medianCorrelation).toBeGreaterThan(0.9);

      const normal = scoreFilms(pairs.map(({ told }) => ({ told, read: ALWAYS_NORMAL })));
      expect(share(normal.eachLung)).toBeGreaterThan(0.45);
      expect(share(normal.eachLung)).toBeLessThan(0.6);
      expect(normal.side.right).toBe(0);
      // always normal: every clear lung is left clear, and no other lung is right
      expect(normal.clear).toEqual({ right: normal.eachLung.right, of: normal.eachLung.right });
      expect(share(score.clear)).toBeGreaterThanOrEqual(0.98);

      // Films of other reports obey no better than chance, mirrored films are wrong about the side.
      const shuffled = scoreFilms(pairs.map(({ told }, at) => ({ told, read: pairs[(at + 1) % 500]!.read })));
      expect(share(shuffled.wholeReport)).toBeLessThan(0.2);
      expect(share(shuffled.clear)).toBeLessThan(0.7);
      const mirrored = scoreFilms(
        films.map(({ findings, pixels }) => ({
          told: findings,
          read: read(pixels.map((_, at) => pixels[at - (at % 128) + 127 - (at % 128)]!)),
        })),
      );
      expect(share(mirrored.side)).toBeLessThan(0.1);
    },
  );

  it('with and without grain differ in the grain alone', () => {
    const film = (grain: number) => drawFilm(randomOf(seedKey(4)), [{ kind: 'cardiomegaly' }], 64, grain);
    const [clear, grainy] = [film(0), film(0.02)];
    const mean = clear.reduce((sum, value, at) => sum + (grainy[at]! - value), 0) / clear.length;
    const square = clear.reduce((sum, value, at) => sum + (grainy[at]! - value) ** 2, 0) / clear.length;
    expect(Math.abs(mean)).toBeLessThan(0.002);
    expect(Math.sqrt(square) / 0.02).toBeGreaterThan(0.9);
    expect(Math.sqrt(square) / 0.02).toBeLessThan(1.05);
  });

  it('are films; shapes and scenes are not', { timeout: 240_000 }, () => {
    // a reader is fitted on 1,200 films of its size, 48 at least
    const side = LONG ? 128 : 48;
    const read = filmReader(side);
    for (const index of range(20)) {
      expect(read(phantomAt(7, 'film', index, side).pixels).correlation).toBeGreaterThan(0.75);
      expect(read(shapeAt(7, 'train', index, side).pixels).correlation).toBeLessThan(0.75);
      expect(read(sceneAt(7, index, side).pixels).correlation).toBeLessThan(0.75);
    }
    expect(read(new Float32Array(side ** 2)).correlation).toBe(0);
  });

  it('refuse pictures of another size', () => {
    expect(() => filmReader(8)).toThrow(/at least 48/);
  });
});
