import { describe, expect, it } from 'vitest';
import { ribCourse } from '../../../train/data/made/anatomy.ts';
import { centres } from '../../../train/data/made/drawing.ts';
import { phantomAt } from '../../../train/data/made/phantoms.ts';
import { bandEnergy, psnr, ribScore } from '../../../train/metrics/films/sharpness.ts';

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
    for (let index = 0; index < 6; index++) {
      const film = phantomAt(3, 'ribs', index).pixels;
      expect(ribScore(film, SIZE)).toBeGreaterThan(12);
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
