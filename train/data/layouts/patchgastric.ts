/**
 * PatchGastricADC22: `captions.csv` (`id,subtype,text`, one row per slide) and patches `{id}_{hash}.jpg` in
 * `patches_captions`. A class-balanced, seeded subset: the same number of patches of each of the named subtypes.
 * Source: github.com/masatsuneki/histopathology-image-caption.
 */
import path from 'node:path';
import { randomOf, seedKey, subkey } from '../../../core/index.ts';
import { FileError, listed, quoted } from '../../../models/io/error.ts';
import {
  checkText,
  type DataRecord,
  firstFolder,
  oneLine,
  problemList,
  type RecordSet,
  resolveInside,
  type Skip,
} from '../records.ts';
import { readCsv } from '../table.ts';
import type { Layout } from './layout.ts';

const TABLE = 'captions.csv';
const IMAGES = ['patches_captions/patches_captions', 'patches_captions', 'patches', 'images'] as const;

/** The five subtypes of the SeLoRA paper's appendix C.2. */
export const PAPER_SUBTYPES = [
  'Moderately differentiated tubular adenocarcinoma',
  'Well differentiated tubular adenocarcinoma',
  'Moderately to poorly differentiated adenocarcinoma',
  'Poorly differentiated adenocarcinoma, solid type',
  'Poorly differentiated adenocarcinoma, non-solid type',
] as const;

export type PatchGastricOptions = {
  /** Subtypes to keep; the paper's five where the table has them all, else every subtype. */
  readonly subtypes?: readonly string[];
  /** Patches per subtype (1,000 in the paper); as many as the rarest subtype has where that is less. */
  readonly perClass?: number;
  readonly seed?: number;
};

/** Spelling without case, hyphens and commas: "Well-differentiated…" and "Well differentiated…" are one subtype. */
const spelling = (subtype: string) => oneLine(subtype.toLowerCase().replace(/[^a-z0-9]+/g, ' '));

type Slide = { readonly id: string; readonly subtype: string; readonly text: string };

async function readSlides(file: string): Promise<ReadonlyMap<string, Slide>> {
  const slides = new Map<string, Slide>();
  for (const { line, cells } of await readCsv(file, ['id', 'subtype', 'text'])) {
    const id = cells.get('id')!;
    if (!/^[\w-]+$/.test(id)) throw new FileError(file, `line ${line}: id`, `${quoted(id, 60)} is no slide id`);
    if (slides.has(id)) throw new FileError(file, `line ${line}: id`, `slide ${id} is there twice`);
    const text = checkText(cells.get('text')!, { file, field: `line ${line}: text` });
    const subtype = checkText(cells.get('subtype')!, { file, field: `line ${line}: subtype` });
    slides.set(id, { id, subtype: oneLine(subtype), text: oneLine(text) });
  }
  return slides;
}

/** The subtypes to keep, in the table's spelling. */
function chosenSubtypes(
  file: string,
  there: readonly string[],
  wanted: readonly string[] | undefined,
): readonly string[] {
  const find = (name: string) => there.find((subtype) => spelling(subtype) === spelling(name));
  if (wanted === undefined) {
    const paper = PAPER_SUBTYPES.map(find);
    return paper.every((subtype) => subtype !== undefined) ? paper : there;
  }
  return wanted.map((name) => {
    const subtype = find(name);
    if (subtype === undefined)
      throw new FileError(
        file,
        'subtype',
        `${quoted(name)} is not there, found ${listed(
          there.map((s) => quoted(s)),
          20,
        )}`,
      );
    return subtype;
  });
}

/**
 * A class-balanced subset of the patches; the same seed gives the same patches.
 * @throws FileError naming table, line and column, or the folder without patches.
 */
export async function readPatchGastric(dir: string, options: PatchGastricOptions = {}): Promise<RecordSet> {
  const file = path.join(dir, TABLE);
  const slides = await readSlides(file);
  const patches = await firstFolder(dir, IMAGES);
  if (!patches) throw new FileError(dir, 'data', `no folder of patches, looked for ${IMAGES.join(', ')}`);
  const skipped: Skip[] = [];
  const bySubtype = new Map<string, { readonly name: string; readonly slide: Slide }[]>();
  for (const name of patches.names) {
    if (!/\.(jpe?g|png)$/i.test(name)) continue;
    const slide = slides.get(name.slice(0, Math.max(0, name.lastIndexOf('_'))));
    if (!slide) skipped.push({ file: name, reason: 'belongs to no slide of captions.csv' });
    else {
      const list = bySubtype.get(slide.subtype) ?? [];
      list.push({ name, slide });
      bySubtype.set(slide.subtype, list);
    }
  }
  const subtypes = chosenSubtypes(file, [...bySubtype.keys()].sort(), options.subtypes);
  const counts = subtypes.map((subtype) => bySubtype.get(subtype)!.length);
  const perClass = Math.min(options.perClass ?? 1000, ...counts);
  const key = subkey(seedKey(options.seed ?? 0), 'patchgastric');
  const chosen = subtypes.flatMap((subtype) =>
    randomOf(subkey(key, subtype)).shuffle(bySubtype.get(subtype)!).slice(0, perClass),
  );
  const records: DataRecord[] = [];
  const { problems, attempt } = problemList();
  for (const { name, slide } of chosen) {
    const relative = `${patches.folder}/${name}`;
    const record = await attempt(relative, async () => ({
      id: name.replace(/\.\w+$/, ''),
      file: relative,
      image: await resolveInside(dir, relative, { file, field: 'patch' }),
      text: slide.text,
      patient: slide.id,
      label: slide.subtype,
    }));
    if (record) records.push(record);
  }
  const warnings =
    perClass < (options.perClass ?? 1000) ? [`only ${perClass} patches per subtype: the rarest has no more`] : [];
  return { layout: patchGastric.name, dir, records, skipped, warnings, problems };
}

export const patchGastric: Layout = {
  name: 'patchgastric',
  doc: 'captions.csv and patches_captions',
  detect: (_, names) => names.includes(TABLE),
  read: (dir, _, options) => readPatchGastric(dir, options),
  says: 'the text of the slide; as many patches of each subtype as the rarest has, at most 1,000, drawn by the seed',
};
