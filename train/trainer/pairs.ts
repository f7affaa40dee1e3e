/** The pairs of a run: the built-in phantoms or a folder, split by patient. */
import path from 'node:path';
import type { RunConfig } from '../config/config.ts';
import { bucketFor, bucketsOf, type Size } from '../data/buckets.ts';
import { type CheckedRecord, loadDataset, pictureOf, usedBits } from '../data/dataset.ts';
import { type Phantom, phantomAt } from '../data/made/phantoms.ts';
import type { Pair } from '../data/pair.ts';
import { toModelPixels } from '../data/pictures/grey.ts';
import type { CropSize } from '../data/pictures/resample.ts';
import { trainingPixels } from '../data/pictures/training-pixels.ts';
import {
  acrossFolders,
  dataHash,
  describeSplit,
  duplicatePictures,
  parseRatios,
  SPLITS,
  type SplitFile,
  type SplitName,
  splitRecords,
} from '../data/split.ts';
import { counted } from '../words/format.ts';

export type RunPair = Pair & {
  /** what a phantom's report means, for the detectors */
  readonly findings?: Phantom['findings'];
};
export interface RunData {
  readonly source: string;
  readonly train: readonly RunPair[];
  readonly validation: readonly RunPair[];
  readonly test: readonly RunPair[];
  readonly hash: string;
  readonly patients: Readonly<Record<SplitName, number>>;
  readonly duplicates: number;
  readonly warnings: readonly string[];
}

/** The data of a run as far as they can be told without a base: read and split, no picture at its size yet. */
export interface FoundData {
  readonly hash: string;
  readonly pairs: Readonly<Record<SplitName, number>>;
  /** for split.json; the built-in pairs need none */
  readonly split?: SplitFile;
  /** the pairs with pictures of so many pixels along a side; sides of buckets are multiples of a number */
  readonly at: (side: number, multiple?: number) => RunData;
}

/** The built-in pairs: reports outside training use wordings that training never sees. */
function phantoms(c: RunConfig): FoundData {
  const ratios = parseRatios(c.split);
  const pairs = eachSplit((name) => Math.max(ratios[name] > 0 ? 1 : 0, Math.round(c.pairs * ratios[name])));
  const hash = `phantoms/${c.seed}/${c.pairs}/${c.split}`;
  const part = (name: SplitName, side: number): RunPair[] =>
    Array.from({ length: pairs[name] }, (_, i) => {
      const drawn = (): Phantom => phantomAt(c.seed, name, i, side);
      const { report, findings } = drawn();
      return {
        id: `phantom-${name}-${i}`,
        text: report,
        findings,
        // anew each time: a phantom keeps its film, and ten thousand would fill the memory
        pixels: async () => toModelPixels(drawn().pixels),
      };
    });
  return {
    hash,
    pairs,
    at: (side) => ({
      source: `built-in phantoms, seed ${c.seed}`,
      ...eachSplit((name) => part(name, side)),
      hash,
      patients: pairs,
      duplicates: 0,
      warnings: [],
    }),
  };
}

const eachSplit = <T>(of: (name: SplitName) => T): Record<SplitName, T> =>
  Object.fromEntries(SPLITS.map((name) => [name, of(name)])) as Record<SplitName, T>;

/**
 * Reads and splits the data of a run.
 * @throws FileError naming file and field of the first broken record; RangeError when there are too few patients to split
 */
export const findData = async (c: RunConfig): Promise<FoundData> => (c.data === 'phantoms' ? phantoms(c) : folderOf(c));

/** What is said of films that use few of their bits. */
const darkness = (bits: number, stretched: boolean): string =>
  stretched
    ? `pictures of 16 bits use ${bits}: ${2 ** bits - 1} is taken for white`
    : `pictures of 16 bits use ${bits} and are dark, at most ${((100 * (2 ** bits - 1)) / 65_535).toFixed(1)}% of white; --stretch makes ${2 ** bits - 1} white`;

async function folderOf(c: RunConfig): Promise<FoundData> {
  const set = await loadDataset(c.data, {
    seed: c.seed,
    skipUnreadable: c.skipUnreadable,
    ...(c.layout === null ? {} : { layout: c.layout }),
    ...(c.captionColumn === null ? {} : { captionColumn: c.captionColumn }),
  });
  const ratios = parseRatios(c.split);
  const parts = splitRecords(set.records, ratios, c.seed);
  const hash = dataHash(set.records);
  const bits = usedBits(set.records);
  const turned = set.records.filter(({ picture }) => picture.turned).length;
  const duplicates = duplicatePictures(set.records);
  const shared = acrossFolders(duplicates);
  const pixels = (r: CheckedRecord, size: CropSize) => async () =>
    trainingPixels(await pictureOf(r), size, c.stretch && bits ? { bits } : {});
  const pair = (r: CheckedRecord, side: number, sizes: readonly Size[]): RunPair => {
    const size = c.buckets ? bucketFor(sizes, r.picture) : undefined;
    return {
      id: r.id,
      text: r.text,
      pixels: pixels(r, side),
      ...(size === undefined ? {} : { sized: { ...size, pixels: pixels(r, size) } }),
    };
  };
  return {
    hash,
    pairs: eachSplit((name) => parts[name].length),
    split: describeSplit(parts, ratios, c.seed),
    at: (side, multiple = 8) => ({
      source: `${set.layout} in ${path.basename(c.data)}`,
      ...eachSplit((name) => parts[name].map((r) => pair(r, side, bucketsOf(side, multiple)))),
      hash,
      patients: eachSplit((name) => new Set(parts[name].map((r) => r.patient ?? r.id)).size),
      duplicates: duplicates.length,
      warnings: [
        ...set.warnings,
        ...(bits === undefined ? [] : [darkness(bits, c.stretch)]),
        ...(turned > 0
          ? [
              `${counted(turned, 'picture')} lay on ${turned === 1 ? 'its side or was' : 'their side or were'} mirrored, with a mark that says so, and ${turned === 1 ? 'was' : 'were'} turned: see that it is right`,
            ]
          : []),
        ...(shared === undefined ? [] : [`of the pictures that are there several times ${shared}`]),
        ...set.skipped.slice(0, 20).map((s) => `left out ${s.file}: ${s.reason}`),
        ...(set.skipped.length > 20 ? [`left out ${set.skipped.length - 20} more`] : []),
      ],
    }),
  };
}
