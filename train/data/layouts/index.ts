/** Opens a data folder of any known layout, and decodes every image once before anything is trained on. */
import { createHash } from 'node:crypto';
import { FileError } from '../../../models/io/error.ts';
import { type Picture, readImage } from '../pictures/images.ts';
import { type DataRecord, type Layout, namesIn, type RecordSet } from '../records.ts';
import { isImageFolder, loadImageFolder } from './imagefolder.ts';
import { isIuXray, loadIuXray } from './iu-xray.ts';
import { isMontgomery, loadMontgomery } from './montgomery.ts';
import { isPatchGastric, loadPatchGastric, type PatchGastricOptions } from './patchgastric.ts';

/** Facts about a decoded image; `hash` is the SHA-256 of size and pixels, equal for equal pictures in any format. */
export type ImageFacts = {
  readonly width: number;
  readonly height: number;
  readonly channels: 1 | 3;
  readonly depth: 8 | 16;
  readonly hash: string;
};

export type CheckedRecord = DataRecord & { readonly picture: ImageFacts };

/** A data folder whose every image has been decoded. */
export type Dataset = Omit<RecordSet, 'records'> & { readonly records: readonly CheckedRecord[] };

export type LoadOptions = PatchGastricOptions & {
  /** Settles the layout where a folder looks like two. */
  readonly layout?: Layout;
  /** Called after each image of `total`. */
  readonly onProgress?: (done: number, total: number) => void;
};

type LayoutRule = {
  readonly layout: Layout;
  readonly needs: string;
  readonly test: (names: readonly string[]) => boolean;
  readonly load: (dir: string, names: readonly string[], options: LoadOptions) => Promise<RecordSet>;
};

const RULES: readonly LayoutRule[] = [
  {
    layout: 'imagefolder',
    needs: 'metadata.csv or metadata.jsonl with file_name and text',
    test: isImageFolder,
    load: loadImageFolder,
  },
  {
    layout: 'montgomery',
    needs: 'CXR_png and ClinicalReadings',
    test: isMontgomery,
    load: (dir) => loadMontgomery(dir),
  },
  {
    layout: 'iu-xray',
    needs: 'ecgen-radiology, or indiana_reports.csv and indiana_projections.csv',
    test: isIuXray,
    load: loadIuXray,
  },
  {
    layout: 'patchgastric',
    needs: 'captions.csv and patches_captions',
    test: isPatchGastric,
    load: (dir, _, options) => loadPatchGastric(dir, options),
  },
];

/** The layouts by name, for `--help`. */
export const LAYOUTS: readonly Layout[] = RULES.map(({ layout }) => layout);

/**
 * The pairs of a data folder, paths checked but images not opened. The layout is told by the names in the folder.
 * @throws FileError (one line) naming what was looked for, or file, line and field of what is wrong.
 */
export async function loadRecords(dir: string, options: LoadOptions = {}): Promise<RecordSet> {
  const names = await namesIn(dir);
  if (!names) throw new FileError(dir, 'data', 'no such folder');
  const fitting = RULES.filter(({ layout, test }) => (options.layout ? layout === options.layout : test(names)));
  if (fitting.length > 1) {
    const found = fitting.map(({ layout }) => layout).join(' and ');
    throw new FileError(dir, 'data', `looks like ${found} at once, name one of them as the layout`);
  }
  const [rule] = fitting;
  if (!rule) {
    const looked = RULES.map(({ layout, needs }) => `${layout} (${needs})`).join('; ');
    throw new FileError(dir, 'data', `no known layout here; looked for ${looked}`);
  }
  return rule.load(dir, names, options);
}

/** Size and hash of a decoded picture. */
export function factsOf({ width, height, channels, depth, data }: Picture): ImageFacts {
  const hash = createHash('sha256')
    .update(`${width} ${height} ${channels} ${depth} `)
    .update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    .digest('hex');
  return { width, height, channels, depth, hash };
}

// Two at once: a film of 20 million pixels takes 60 MB while it is decoded.
const AT_ONCE = 2;

/**
 * The pairs of a data folder with every image decoded, so that no broken film turns up in the middle of a run.
 * Cost: some ms per small image, 0.2 s per film of 4020 × 4892.
 * @throws FileError as `loadRecords` and `readImage`; of several broken images the first in order.
 * @example (await loadDataset('data/montgomery')).records[0].text
 */
export async function loadDataset(dir: string, options: LoadOptions = {}): Promise<Dataset> {
  const set = await loadRecords(dir, options);
  const checked: CheckedRecord[] = [];
  for (let from = 0; from < set.records.length; from += AT_ONCE) {
    const batch = set.records.slice(from, from + AT_ONCE);
    const results = await Promise.allSettled(batch.map(async ({ image }) => factsOf(await readImage(image))));
    results.forEach((result, at) => {
      if (result.status === 'rejected') throw result.reason;
      checked.push({ ...batch[at]!, picture: result.value });
    });
    options.onProgress?.(checked.length, set.records.length);
  }
  return { ...set, records: checked };
}
