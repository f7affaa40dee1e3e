/** A data folder with every picture decoded once, before anything is trained on. */
import { createHash } from 'node:crypto';
import { FileError } from '../../models/io/error.ts';
import { type RecordOptions, readFolder } from './layouts/index.ts';
import { decodeNamed, readImage } from './pictures/images.ts';
import type { Picture } from './pictures/training-pixels.ts';
import { type DataRecord, type RecordSet, settled } from './records.ts';

/** Facts about a decoded image; `hash` is the SHA-256 of size and pixels, equal for equal pictures in any format. */
export type ImageFacts = {
  readonly width: number;
  readonly height: number;
  readonly channels: 1 | 3;
  readonly depth: 8 | 16;
  /** The brightest value; white is 2^depth - 1. */
  readonly brightest: number;
  /** It lay on its side or was mirrored, with a mark that says so, and was turned. */
  readonly turned: boolean;
  readonly hash: string;
};

export type CheckedRecord = DataRecord & { readonly picture: ImageFacts };

/** A data folder whose every image has been decoded. */
export type Dataset = Omit<RecordSet, 'records'> & { readonly records: readonly CheckedRecord[] };

export type LoadOptions = RecordOptions & {
  /** Called after each image of `total`. */
  readonly onProgress?: (done: number, total: number) => void;
};

/** Size and hash of a decoded picture. */
export function factsOf({ width, height, channels, depth, data, turned }: Picture): ImageFacts {
  const hash = createHash('sha256')
    .update(`${width} ${height} ${channels} ${depth} `)
    .update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    .digest('hex');
  let brightest = 0;
  for (const value of data) if (value > brightest) brightest = value;
  return { width, height, channels, depth, brightest, turned: turned === true, hash };
}

const MOST_BITS = 14;

/**
 * How many bits the numbers of all pictures of 16 bits use, where that is 14 or fewer: films of 10 to 14 bits, which are
 * dark when 65,535 is taken for white. Undefined where there is no such picture or they use them all.
 * @example usedBits(set.records) // 12 for films of 12 bits in files of 16
 */
export function usedBits(records: readonly { readonly picture: ImageFacts }[]): number | undefined {
  const wide = records.filter(({ picture }) => picture.depth === 16);
  if (wide.length === 0) return undefined;
  const brightest = wide.reduce((most, { picture }) => Math.max(most, picture.brightest), 1);
  const bits = Math.ceil(Math.log2(brightest + 1));
  return bits <= MOST_BITS ? bits : undefined;
}

/** The picture of a pair. @throws FileError as `readImage` */
export const pictureOf = async ({ image, encoded, file }: DataRecord): Promise<Picture> =>
  encoded === undefined ? readImage(image) : decodeNamed(await encoded(), file);

// Two at once: a film of 20 million pixels takes 60 MB while it is decoded.
const AT_ONCE = 2;

/**
 * The pairs of a data folder with every image decoded, so that no broken film turns up in the middle of a run.
 * Cost: some ms per small image, 0.2 s per film of 4020 × 4892.
 * @throws FileError as `loadRecords` and `readImage`, naming up to twenty problems in order.
 * @example (await loadDataset('data/montgomery')).records[0].text
 */
export async function loadDataset(dir: string, options: LoadOptions = {}): Promise<Dataset> {
  const set = await readFolder(dir, options);
  const checked: CheckedRecord[] = [];
  const problems = [...set.problems];
  for (let from = 0; from < set.records.length; from += AT_ONCE) {
    const batch = set.records.slice(from, from + AT_ONCE);
    const results = await Promise.allSettled(batch.map(async (record) => factsOf(await pictureOf(record))));
    results.forEach((result, at) => {
      if (result.status === 'fulfilled') checked.push({ ...batch[at]!, picture: result.value });
      else if (result.reason instanceof FileError) problems.push({ file: batch[at]!.file, error: result.reason });
      else throw result.reason;
    });
    options.onProgress?.(Math.min(from + AT_ONCE, set.records.length), set.records.length);
  }
  return settled({ ...set, records: checked, problems }, options.skipUnreadable);
}
