/** The layouts of data that are known: the only list. */
import { FileError } from '../../../models/io/error.ts';
import { namesIn, type RecordSet, settled } from '../records.ts';
import { imageFolder } from './imagefolder.ts';
import { iuXray } from './iu-xray.ts';
import type { Layout, ReadOptions } from './layout.ts';
import { mimicCxr } from './mimic-cxr.ts';
import { montgomery } from './montgomery.ts';
import { parquetTables } from './parquet.ts';
import { patchGastric } from './patchgastric.ts';
import { r2gen } from './r2gen.ts';
import { sidecar } from './sidecar.ts';

export const LAYOUTS: readonly Layout[] = [
  imageFolder,
  parquetTables,
  sidecar,
  montgomery,
  iuXray,
  r2gen,
  mimicCxr,
  patchGastric,
];

export type RecordOptions = ReadOptions & {
  /** Settles the layout where a folder looks like two. */
  readonly layout?: string;
  /** Leaves out pairs that cannot be read instead of refusing the folder. */
  readonly skipUnreadable?: boolean;
  readonly layouts?: readonly Layout[];
};

/**
 * The pairs of a data folder with what is wrong with some; the layout is told by the names in the folder.
 * @throws FileError (one line) naming what was looked for, or why nothing can be read.
 */
export async function readFolder(dir: string, options: RecordOptions = {}): Promise<RecordSet> {
  const names = await namesIn(dir);
  if (!names) throw new FileError(dir, 'data', 'no such folder');
  const layouts = options.layouts ?? LAYOUTS;
  const fits = await Promise.all(
    layouts.map(({ name, detect }) => (options.layout ? name === options.layout : detect(dir, names))),
  );
  const fitting = layouts.filter((_, at) => fits[at]);
  if (fitting.length > 1) {
    const found = fitting.map(({ name }) => name).join(' and ');
    throw new FileError(dir, 'data', `looks like ${found} at once, name one of them as the layout`);
  }
  const [layout] = fitting;
  if (!layout) {
    const looked = layouts.map(({ name, doc }) => `${name} (${doc})`).join('; ');
    throw new FileError(dir, 'data', `no known layout here; looked for ${looked}`);
  }
  return layout.read(dir, names, options);
}

/**
 * The pairs of a data folder, paths checked but pictures not opened.
 * @throws FileError (one line) as `readFolder`, or naming file, line and field of all that is wrong.
 */
export const loadRecords = async (dir: string, options: RecordOptions = {}): Promise<RecordSet> =>
  settled(await readFolder(dir, options), options.skipUnreadable);
