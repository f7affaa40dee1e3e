import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  centreCrop,
  resize8,
  resizeAndCrop8,
  resizeFloat,
  shortestSide,
} from '../../../train/data/pictures/resample.ts';
import { verifyResize } from '../../../train/verify/resample.ts';
import { goldenDirectories } from '../../support/golden-cases.ts';

const directories = goldenDirectories('resize.json');

describe('against Pillow, torchvision and torch', () => {
  it.each(directories)('%s', async (directory) => {
    const wrong: string[] = [];
    let cases = 0;
    for await (const { case: name, error, tolerance } of verifyResize(directory)) {
      cases++;
      if (!(error <= tolerance)) wrong.push(`${name}: ${error} > ${tolerance}`);
    }
    expect(wrong).toEqual([]);
    expect(cases).toBeGreaterThan(30);
  });
});

describe('properties', () => {
  const sides = fc.integer({ min: 1, max: 40 });
  const filters = fc.constantFrom('box', 'bilinear', 'hamming', 'bicubic', 'lanczos', 'nearest');

  it('keeps a flat picture flat', () => {
    fc.assert(
      fc.property(sides, sides, sides, sides, filters, fc.integer({ min: 0, max: 255 }), (w, h, w2, h2, filter, v) => {
        const image = { width: w, height: h, channels: 2, data: new Uint8Array(w * h * 2).fill(v) };
        const { data, width, height } = resize8(image, w2, h2, filter);
        expect([width, height, data.length]).toEqual([w2, h2, w2 * h2 * 2]);
        expect(data.every((value) => value === v)).toBe(true);
      }),
      { numRuns: 200 },
    );
  });

  it('is the mean of blocks for whole-number shrinking by box', () => {
    const data = Float32Array.from({ length: 6 * 4 }, (_, at) => (at * 37) % 101);
    const out = resizeFloat({ width: 6, height: 4, channels: 1, data }, 3, 2, 'box').data;
    const blocks = [0, 1].flatMap((row) =>
      [0, 1, 2].map((column) => {
        const at = row * 12 + column * 2;
        return (data[at]! + data[at + 1]! + data[at + 6]! + data[at + 7]!) / 4;
      }),
    );
    expect([...out]).toEqual(blocks);
  });

  it('crops while it resizes as it would afterwards', () => {
    fc.assert(
      fc.property(
        sides,
        sides,
        sides,
        fc.constantFrom('box', 'bilinear', 'bicubic', 'lanczos'),
        (w, h, side, filter) => {
          const data = Uint8Array.from({ length: w * h }, (_, at) => (at * 89 + 13) % 256);
          const image = { width: w, height: h, channels: 1, data };
          const size = shortestSide(w, h, side);
          const later = centreCrop(resize8(image, size.width, size.height, filter), side);
          expect(resizeAndCrop8(image, side, filter)).toEqual(later);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('crops the middle, half to even', () => {
    const data = Uint8Array.from({ length: 25 }, (_, at) => at);
    expect([...centreCrop({ width: 5, height: 5, channels: 1, data }, 3).data]).toEqual([
      6, 7, 8, 11, 12, 13, 16, 17, 18,
    ]);
    // (5 - 2) / 2 = 1.5 rounds to 2, (3 - 2) / 2 = 0.5 to 0.
    expect([...centreCrop({ width: 5, height: 3, channels: 1, data: data.slice(0, 15) }, 2).data]).toEqual([
      2, 3, 7, 8,
    ]);
    expect(() => centreCrop({ width: 2, height: 5, channels: 1, data }, 3)).toThrow('only 2 x 5');
  });

  it('never gives a side of zero', () => {
    expect(shortestSide(4020, 4892, 224)).toEqual({ width: 224, height: 272 });
    expect(shortestSide(900, 4, 224)).toEqual({ width: 50400, height: 224 });
    expect(shortestSide(7, 7, 5)).toEqual({ width: 5, height: 5 });
    expect(() => resize8({ width: 1, height: 1, channels: 1, data: Uint8Array.of(1) }, 0, 1, 'box')).toThrow(/> 0/);
  });
});
