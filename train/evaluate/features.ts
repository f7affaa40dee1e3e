/** Feature vectors of pictures: by Inception from weights a person supplies, or by thumbnails where there are none. */
import { type Backend, compile, read, type Tensor, tensor } from '../../core/index.ts';
import {
  type Inception,
  inception,
  inceptionPixels,
  inceptionSpecUpTo,
  SIDE,
  type TapSize,
} from '../../models/inception/index.ts';
import { openSafetensors } from '../../models/io/safetensors.ts';
import { weightOf, weightSource } from '../../models/io/weights.ts';
import { load, specShapes } from '../../models/spec.ts';
import { fileHash, type Loaded } from './pictures.ts';

/** Something with a vector: a picture or a text. */
export interface Item {
  /** SHA-256 of its content: what its vector is kept under */
  readonly hash: string;
}

/** Makes a vector of each item. */
export interface Embedder<T extends Item> {
  /** of what, as progress names it: `pictures` */
  readonly items: string;
  /** what its vectors are kept under, beside an item's hash */
  readonly id: string;
  /** items at a time */
  readonly batch: number;
  readonly features: (items: readonly T[]) => Promise<readonly Float32Array[]>;
}

/** Makes feature vectors of pictures. */
export interface Extractor extends Embedder<Loaded> {
  /** as the page names it */
  readonly name: string;
  /** whether its numbers may stand beside published ones */
  readonly comparable: boolean;
  readonly dims: number;
}

/** Side of a thumbnail. */
const THUMB = 8;

/** Means of grey in side×side cells, in 0 … 1. */
export function cells({ width, height, data }: Loaded, side: number): Float32Array {
  const [sum, count] = [new Float32Array(side * side), new Float32Array(side * side)];
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const cell = Math.floor((y * side) / height) * side + Math.floor((x * side) / width);
      const at = (y * width + x) * 3;
      sum[cell]! += (data[at]! + data[at + 1]! + data[at + 2]!) / 765;
      count[cell]!++;
    }
  return sum.map((s, i) => (count[i] === 0 ? 0 : s / count[i]!));
}

/** 8×8 means of grey, in 0 … 1: layout and brightness, no detail. What serves where no weights are given. */
export const thumbnails: Extractor = {
  name: `thumbnails of ${THUMB}×${THUMB} grey`,
  comparable: false,
  items: 'pictures',
  id: `thumbnails-${THUMB}`,
  dims: THUMB * THUMB,
  batch: 1,
  features: async (pictures) => pictures.map((p) => cells(p, THUMB)),
};

/**
 * Inception's features from a safetensors file with the names of pt_inception-2015-12-05-6726825d.pth; what the tap does not
 * need may be missing or of any kind.
 * @throws FileError naming the file and what is missing or of another shape
 */
export async function inceptionExtractor(file: string, size: TapSize, backend: Backend): Promise<Extractor> {
  const spec = inceptionSpecUpTo(size);
  const opened = await openSafetensors(file);
  const wanted = specShapes(spec);
  const there = [...opened.tensors.keys()].filter((name) => wanted.has(name));
  const source = weightSource(
    opened.file,
    there.map((name) => weightOf(opened, name)),
  );
  const parameters = (await load(spec as never, source, { backend })) as unknown as Inception<Tensor>;
  const run = compile((p: Inception<Tensor>, x: Tensor) => inception(p, x, size), { backend, name: 'inception' });
  const hash = (await fileHash(file)).slice(0, 12);
  return {
    name: `Inception v3 (2015-12-05), ${size} features, weights ${hash}`,
    comparable: true,
    items: 'pictures',
    id: `inception-${size}-${hash}`,
    dims: size,
    batch: 4,
    async features(pictures) {
      // one program: the last batch is filled up
      const pixels = new Float32Array(4 * SIDE * SIDE * 3);
      for (const [i, p] of pictures.entries()) pixels.set(inceptionPixels(p), i * SIDE * SIDE * 3);
      const all = (await read(run(parameters, tensor(pixels, [4, SIDE, SIDE, 3])))) as Float32Array;
      return pictures.map((_, i) => all.slice(i * size, (i + 1) * size));
    },
  };
}
