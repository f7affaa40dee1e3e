/** Checks the resampler against a golden `resize.json` with `resize.safetensors` (Pillow, torchvision, torch). */
import { join } from 'node:path';
import { z } from 'zod';
import {
  type Filter,
  type Pixels,
  resize8,
  resizeAndCrop8,
  resizeFloat,
  resizeTorch,
  shortestSide,
} from '../data/pictures/resample.ts';
import { type GoldenCase, type GoldenTensors, need, readGoldenJson, readGoldenTensors } from './golden.ts';

const RESIZE = z.object({
  cases: z.record(
    z.string(),
    z.object({
      short: z.number().int().min(1).max(4096),
      resized: z.tuple([z.number().int().min(1).max(16384), z.number().int().min(1).max(16384)]),
    }),
  ),
});

const EXACT = '8-bit arithmetic is defined to the bit';
const FLOAT = 'sums in double, stored as f32 between the passes: a few f32 roundings of values up to 255';
const DOUBLE = 'the same sums in double, in another order';

const FILTERS: readonly string[] = ['nearest', 'box', 'bilinear', 'hamming', 'bicubic', 'lanczos'] satisfies Filter[];

function imageOf(tensors: GoldenTensors, name: string): Pixels<Float64Array> {
  const { shape, data } = need(tensors, name);
  const [height, width, channels] = shape;
  if (shape.length !== 3)
    throw new Error(`golden tensor ${name}: shape [${shape}], expected [height, width, channels]`);
  return { height: height!, width: width!, channels: channels!, data };
}

const largest = (actual: ArrayLike<number>, expected: ArrayLike<number>): number => {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let worst = 0;
  for (let at = 0; at < actual.length; at++) {
    const difference = Math.abs(actual[at]! - expected[at]!);
    if (!(difference <= worst)) worst = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;
  }
  return worst;
};

type Resized = { readonly actual: ArrayLike<number>; readonly tolerance: number; readonly why: string };

/** What our resampler gives for the golden tensor `<case>.<kind>.<filter>`; undefined for kinds it has no check for. */
function resized(image: Pixels<Float64Array>, kind: string, filter: string, short: number): Resized | undefined {
  const { width, height } = shortestSide(image.width, image.height, short);
  if (!FILTERS.includes(filter)) return undefined;
  const named = filter as Filter;
  const eight = { ...image, data: Uint8Array.from(image.data) };
  switch (kind) {
    case 'pil':
      return { actual: resize8(eight, width, height, named).data, tolerance: 0, why: EXACT };
    case 'crop':
      if (named === 'nearest') return undefined;
      return { actual: resizeAndCrop8(eight, short, named).data, tolerance: 0, why: EXACT };
    case 'pilf': {
      const real = { ...image, data: Float32Array.from(image.data) };
      return { actual: resizeFloat(real, width, height, named).data, tolerance: 1e-4, why: FLOAT };
    }
    case 'torch':
    case 'plain':
      if (named !== 'bilinear' && named !== 'bicubic') return undefined;
      return {
        actual: resizeTorch(image, width, height, named, kind === 'torch').data,
        tolerance: 1e-10,
        why: DOUBLE,
      };
    default:
      return undefined;
  }
}

/**
 * Every case of the directory's resize files.
 * @throws Error one line, where a file or tensor is missing or malformed
 */
export async function* verifyResize(directory: string): AsyncGenerator<GoldenCase> {
  const { cases } = await readGoldenJson(directory, 'resize.json', RESIZE);
  const tensors = await readGoldenTensors(join(directory, 'resize.safetensors'));
  for (const [name, { short, resized: size }] of Object.entries(cases)) {
    const image = imageOf(tensors, `${name}.image`);
    const own = shortestSide(image.width, image.height, short);
    yield {
      case: `resize ${name} size`,
      error: largest([own.height, own.width], size),
      tolerance: 0,
      why: 'the size rule is exact',
    };
    for (const [tensor, { data }] of tensors) {
      const [which, kind, filter] = tensor.split('.');
      if (which !== name || kind === undefined || filter === undefined) continue;
      const result = resized(image, kind, filter, short);
      if (!result) throw new Error(`golden tensor ${tensor}: no check for this kind of resize`);
      const { actual, tolerance, why } = result;
      yield { case: `resize ${tensor}`, error: largest(actual, data), tolerance, why };
    }
  }
}
