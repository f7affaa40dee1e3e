/** Sizes of buckets, pictures in them, and batches of one size. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { read } from '../../../core/index.ts';
import { makeSchedule, SD15_SCHEDULER } from '../../../models/schedulers/index.ts';
import { configSchema, type RunConfig } from '../../../train/config/config.ts';
import { bucketFor, bucketsOf } from '../../../train/data/buckets.ts';
import { resize8, resizeAndCrop8 } from '../../../train/data/pictures/resample.ts';
import { trainingPixels } from '../../../train/data/pictures/training-pixels.ts';
import type { Encoded } from '../../../train/model/encode.ts';
import { batchSource, VALIDATION_GRID } from '../../../train/step/batches.ts';
import { findData } from '../../../train/trainer/pairs.ts';
import { folder, rows } from '../../support/data-fixtures.ts';

describe('sizes', () => {
  it('at 512 by 64, the square among them', () => {
    expect(bucketsOf(512, 8).map(({ width, height }) => `${width}x${height}`)).toEqual([
      '384x640',
      '448x576',
      '512x512',
      '576x448',
      '640x384',
    ]);
  });
  it('are of no more pixels than the square, of multiples, in both directions, for any side', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 200 }), fc.constantFrom(1, 4, 8), (n, multiple) => {
        const side = n * multiple;
        const sizes = bucketsOf(side, multiple);
        for (const { width, height } of sizes) {
          expect([width % multiple, height % multiple]).toEqual([0, 0]);
          expect(width * height).toBeLessThanOrEqual(side * side);
          expect(Math.max(width, height) / Math.min(width, height)).toBeLessThanOrEqual(2);
        }
        expect(sizes.filter(({ width, height }) => width === side && height === side)).toHaveLength(1);
      }),
    );
  });
  it.each([
    [{ width: 3000, height: 3000 }, '512x512'],
    [{ width: 4020, height: 4892 }, '448x576'],
    [{ width: 1280, height: 720 }, '640x384'],
    [{ width: 90, height: 9000 }, '384x640'],
  ])('a picture of %j goes to %s', (picture, name) => {
    const { width, height } = bucketFor(bucketsOf(512, 8), picture);
    expect(`${width}x${height}`).toBe(name);
  });
});

describe('a picture in a bucket', () => {
  const picture = (width: number, height: number) => ({
    width,
    height,
    channels: 1 as const,
    depth: 8 as const,
    data: Uint8Array.from({ length: width * height }, (_, at) => (at * 37) % 251),
  });
  it.each([
    [30, 20, 12, 8, 12, 8],
    [30, 20, 8, 8, 12, 8],
    [30, 20, 8, 12, 18, 12],
    [20, 31, 12, 8, 12, 18],
  ])('%i x %i in %i x %i: scaled to %i x %i, the middle of it', (w, h, width, height, fullWidth, fullHeight) => {
    const whole = resize8(picture(w, h), fullWidth, fullHeight, 'bilinear');
    const [left, top] = [(fullWidth - width) / 2, (fullHeight - height) / 2];
    const wanted = Array.from({ length: width * height }, (_, at) => {
      const [x, y] = [at % width, Math.floor(at / width)];
      return whole.data[(top + y) * fullWidth + left + x]!;
    });
    expect([...resizeAndCrop8(picture(w, h), { width, height }).data]).toEqual(wanted);
    const pixels = trainingPixels(picture(w, h), { width, height });
    expect(pixels).toHaveLength(width * height * 3);
    expect(pixels[3]).toBeCloseTo(wanted[1]! / 127.5 - 1, 5);
  });
  it('of a run: only on request, the square as it was', async () => {
    const dir = folder({ 'a.png': undefined, 'metadata.csv': rows('a.png,one') });
    const at = async (buckets: boolean) =>
      (await findData(configSchema.parse({ data: dir, split: '100/0', buckets }))).at(16, 2).train[0]!;
    expect((await at(false)).sized).toBeUndefined();
    const { sized, pixels } = await at(true);
    expect([sized!.width, sized!.height]).toEqual([16, 16]);
    expect(await sized!.pixels()).toEqual(await pixels());
  });
});

describe('batches of several sizes', () => {
  const sizes = [
    [2, 2],
    [1, 3],
    [3, 1],
  ] as const;
  const counts = [5, 2, 4];
  const pairs: Encoded[] = sizes.flatMap(([h, w], k) =>
    Array.from({ length: counts[k]! }, (_, i) => ({
      id: `${k}.${i}`,
      text: '',
      ids: Int32Array.of(1, 10 * k + i, 2),
      cut: false,
      mean: new Float32Array(h * w),
      std: new Float32Array(h * w),
      latent: [h, w] as const,
    })),
  );
  const source = (extra: Partial<RunConfig> = {}) =>
    batchSource(
      { ...configSchema.parse({ data: 'x' }), batch: 2, fiBatches: 3, ...extra },
      makeSchedule(SD15_SCHEDULER),
      pairs,
      [2, 2, 1],
      Int32Array.of(0, 0, 0),
      100,
    );
  const seen = async (batch: { ids: unknown; x: { shape: readonly number[] } }) =>
    ({
      ids: [...(await read(batch.ids as never))].filter((_, at) => at % 3 === 1),
      shape: batch.x.shape.slice(1, 3),
    }) as {
      ids: number[];
      shape: number[];
    };
  it('each batch is of one size, an epoch holds every pair, and steps are found again', async () => {
    const perEpoch = counts.reduce((sum, n) => sum + Math.ceil(n / 2), 0);
    const [one, again] = [source(), source()];
    for (const epoch of [0, 1]) {
      const ids = new Set<number>();
      const order: string[] = [];
      for (let k = 0; k < perEpoch; k++) {
        const step = epoch * perEpoch + k;
        const { ids: own, shape } = await seen(one.training(step)[0]!);
        expect(own.map((id) => sizes[Math.floor(id / 10)])).toEqual(own.map(() => shape));
        for (const id of own) ids.add(id);
        order.push(String(shape));
        expect((await seen(again.training(step)[0]!)).ids).toEqual(own);
      }
      expect(ids.size).toBe(pairs.length);
      expect(new Set(order).size).toBe(3);
    }
  });
  it('so are those that only scores see, and the grid takes a picture at a time', async () => {
    for (const step of [0, 1, 2, 3])
      for (const half of source({ accumulate: 2 }).extra(step)) {
        const { ids, shape } = await seen(half);
        expect(ids.map((id) => sizes[Math.floor(id / 10)])).toEqual(ids.map(() => shape));
      }
    const grid = source().validation(pairs, false);
    expect(grid.map(({ x }) => x.shape)).toEqual(pairs.map(({ latent }) => [VALIDATION_GRID.length, ...latent!, 1]));
  });
});
