import { describe, expect, it } from 'vitest';
import { randomOf, seedKey } from '../../../core/index.ts';
import { ribCourse } from '../../../train/data/made/anatomy.ts';
import { centres } from '../../../train/data/made/drawing.ts';
import { phantomAt } from '../../../train/data/made/phantoms.ts';
import { toModelPixels } from '../../../train/data/pictures/grey.ts';
import { bandEnergy, psnr, ribScore } from '../../../train/metrics/films/sharpness.ts';
import type { Material } from '../../../train/metrics/metric.ts';
import { sharpness } from '../../../train/metrics/sharpness.ts';

const SIZE = 128;
const at = centres(SIZE);
const picture = (value: (u: number, v: number) => number) =>
  Float64Array.from({ length: SIZE * SIZE }, (_, i) => value(at[i % SIZE]!, at[Math.floor(i / SIZE)]!));
const wave = (x: number) => Math.cos((2 * Math.PI * x) / 0.185);

describe('rib score', () => {
  it('is the root mean square of a wave along the ribs, in thousandths', () => {
    // less the mirrored course, along which such a wave all but vanishes
    const score = ribScore(
      picture((u, v) => 0.3 + 0.02 * wave(v - ribCourse(Math.abs(u)))),
      SIZE,
    );
    expect(score / (20 / Math.SQRT2)).toBeGreaterThan(0.75);
    expect(score / (20 / Math.SQRT2)).toBeLessThan(1.02);
  });

  it('is 0 for level bands, slopes and flat pictures, and negative for mirrored ribs', () => {
    expect(
      Math.abs(
        ribScore(
          picture(() => 0.4),
          SIZE,
        ),
      ),
    ).toBeLessThan(1e-9);
    expect(
      Math.abs(
        ribScore(
          picture((u, v) => 0.4 + 0.1 * u + 0.2 * v),
          SIZE,
        ),
      ),
    ).toBeLessThan(0.5);
    const steep = (sign: number) => picture((u, v) => 0.3 + 0.02 * wave(v - sign * ribCourse(Math.abs(u))));
    expect(ribScore(steep(-1), SIZE)).toBeCloseTo(-ribScore(steep(1), SIZE), 0);
  });

  it('finds the ribs of phantoms, on either side alike', () => {
    for (let index = 0; index < 8; index++) {
      const { pixels: film, findings } = phantomAt(3, 'ribs', index);
      // fluid and free air cover ribs or stand across them
      expect(ribScore(film, SIZE)).toBeGreaterThan(findings.some((f) => f.kind !== 'opacity') ? 8 : 25);
      const mirrored = film.map((_, i) => film[i - (i % SIZE) + SIZE - 1 - (i % SIZE)]!);
      expect(ribScore(mirrored, SIZE)).toBeCloseTo(ribScore(film, SIZE), 6);
      const upsideDown = film.map((_, i) => film[(SIZE - 1 - Math.floor(i / SIZE)) * SIZE + (i % SIZE)]!);
      expect(ribScore(upsideDown, SIZE)).toBeLessThan(0);
    }
  });
});

describe('band energy', () => {
  it("is a cosine's, A²/2 · (3/8)² per pixel of a Hann window, in its band and nowhere else", () => {
    for (const [k, l] of [
      [20, 0],
      [0, 20],
      [12, 16],
    ] as const) {
      const x = picture((u, v) => 0.5 + 0.1 * Math.cos(Math.PI * (k * u + l * v) + 0.3));
      expect(bandEnergy(x, SIZE, 0.1, 0.25) / ((0.1 ** 2 / 2) * (3 / 8) ** 2)).toBeCloseTo(1, 6);
      expect(bandEnergy(x, SIZE, 0.2, 0.25)).toBeLessThan(1e-12);
    }
  });
});

describe('psnr', () => {
  it('is −20 log₁₀ of a constant difference', () => {
    expect(psnr(new Float32Array(9).fill(0.5), new Float32Array(9).fill(0.75))).toBeCloseTo(-20 * Math.log10(0.25), 10);
  });
});

describe('sharpness of a run', () => {
  it('is that of films, less of what has blurred them, none of noise', async () => {
    const films = Array.from({ length: 8 }, (_, i) => phantomAt(5, 'sharp', i));
    const random = randomOf(seedKey(2));
    const shown = (f: (grey: ArrayLike<number>) => ArrayLike<number>) =>
      films.map(({ pixels }) => toModelPixels(Float32Array.from(f(pixels))));
    const real = shown((x) => x);
    // 7 pixels down: more than half a rib's distance
    const blurred = shown((x) =>
      Float64Array.from(x, (_, i) => {
        const column = Array.from(
          { length: 7 },
          (_, k) => x[Math.min(x.length - SIZE, Math.max(0, i - (i % SIZE) + (k - 3) * SIZE)) + (i % SIZE)]!,
        );
        return column.reduce((a, b) => a + b, 0) / 7;
      }),
    );
    const noise = shown((x) => Float64Array.from(x, () => random.uniform(0, 1)));
    const side = SIZE;
    const material = { side, real, autoencoder: real, base: noise, adapted: blurred, method: 'lora' } as const;
    const { n, rows } = (await sharpness.compute(material as unknown as Material)) as {
      n: number;
      rows: { picture: string; ribs: number; fine: number; likeness: number }[];
    };
    expect(n).toBe(8);
    expect(rows.map((r) => r.picture)).toEqual(['real films', 'autoencoder only', 'base', 'lora']);
    const [films0, decoded, base, adapted] = rows as [
      (typeof rows)[0],
      (typeof rows)[0],
      (typeof rows)[0],
      (typeof rows)[0],
    ];
    expect(films0.ribs).toBeGreaterThan(20);
    expect([films0.fine, films0.likeness].map((x) => x.toFixed(9))).toEqual(['1.000000000', '1.000000000']);
    expect(decoded).toEqual({ ...films0, picture: 'autoencoder only' });
    expect(Math.abs(base.ribs)).toBeLessThan(0.3 * films0.ribs);
    expect(Math.abs(base.likeness)).toBeLessThan(0.1);
    expect(adapted.ribs).toBeLessThan(0.8 * films0.ribs);
    expect(adapted.fine).toBeLessThan(0.7);
    expect(adapted.likeness).toBeGreaterThan(0.9);
    expect(adapted.likeness).toBeLessThan(0.999);
  });
});
