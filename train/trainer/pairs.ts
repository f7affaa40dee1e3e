/** The pairs of a run: the built-in phantoms or a folder, split by patient; the split goes into the run folder. */
import path from 'node:path';
import type { RunConfig } from '../config/config.ts';
import { type CheckedRecord, loadDataset } from '../data/dataset.ts';
import { type Phantom, phantomAt } from '../data/made/phantoms.ts';
import type { Pair } from '../data/pair.ts';
import { toModelPixels } from '../data/pictures/image-write.ts';
import { loadTrainingPixels } from '../data/pictures/images.ts';
import {
  dataHash,
  describeSplit,
  duplicatePictures,
  parseRatios,
  SPLITS,
  type SplitName,
  splitRecords,
  writeSplit,
} from '../data/split.ts';

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

/** The built-in pairs: reports outside training use wordings that training never sees. */
function phantoms(c: RunConfig, side: number): RunData {
  const ratios = parseRatios(c.split);
  const part = (name: SplitName): RunPair[] =>
    Array.from({ length: Math.max(ratios[name] > 0 ? 1 : 0, Math.round(c.pairs * ratios[name])) }, (_, i) => {
      const p = phantomAt(c.seed, name, i, side);
      return {
        id: `phantom-${name}-${i}`,
        text: p.report,
        findings: p.findings,
        pixels: async () => toModelPixels(p.pixels),
      };
    });
  const [train, validation, test] = [part('train'), part('validation'), part('test')];
  const count = { train: train.length, validation: validation.length, test: test.length };
  return {
    source: `built-in phantoms, seed ${c.seed}`,
    train,
    validation,
    test,
    hash: `phantoms/${c.seed}/${c.pairs}/${c.split}`,
    patients: count,
    duplicates: 0,
    warnings: [],
  };
}

/** @throws FileError naming file and field of the first broken record; RangeError when there are too few patients to split */
export async function loadPairs(c: RunConfig, side: number, folder: string): Promise<RunData> {
  if (c.data === 'phantoms') return phantoms(c, side);
  const set = await loadDataset(c.data, {
    seed: c.seed,
    skipUnreadable: c.skipUnreadable,
    ...(c.layout === null ? {} : { layout: c.layout }),
    ...(c.captionColumn === null ? {} : { captionColumn: c.captionColumn }),
  });
  const ratios = parseRatios(c.split);
  const parts = splitRecords(set.records, ratios, c.seed);
  await writeSplit(path.join(folder, 'split.json'), describeSplit(parts, ratios, c.seed));
  const pair = (r: CheckedRecord): RunPair => ({
    id: r.id,
    text: r.text,
    pixels: () => loadTrainingPixels(r.image, side),
  });
  const patients = Object.fromEntries(
    SPLITS.map((s) => [s, new Set(parts[s].map((r) => r.patient ?? r.id)).size]),
  ) as Record<SplitName, number>;
  return {
    source: `${set.layout} in ${path.basename(c.data)}`,
    train: parts.train.map(pair),
    validation: parts.validation.map(pair),
    test: parts.test.map(pair),
    hash: dataHash(set.records),
    patients,
    duplicates: duplicatePictures(set.records).length,
    warnings: [
      ...set.warnings,
      ...set.skipped.slice(0, 20).map((s) => `left out ${s.file}: ${s.reason}`),
      ...(set.skipped.length > 20 ? [`left out ${set.skipped.length - 20} more`] : []),
    ],
  };
}
