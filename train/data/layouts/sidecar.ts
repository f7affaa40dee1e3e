/**
 * Captions beside the pictures, as kohya's scripts and caption tools write them: `film.png` with `film.txt` or
 * `film.caption`, in the folder itself or in folders below (`10_chest`: kohya's number of repeats and a name).
 */
import path from 'node:path';
import { FileError, listed } from '../../../models/io/error.ts';
import { decodeText, readBytes } from '../../../models/io/json.ts';
import { isPictureName } from '../pictures/kinds.ts';
import {
  checkText,
  type DataRecord,
  namesIn,
  oneLine,
  problemList,
  type RecordSet,
  resolveInside,
} from '../records.ts';
import type { Layout } from './layout.ts';

const ENDINGS = ['.txt', '.caption'] as const;
const MAX_CAPTION_BYTES = 4 * 2 ** 20;

const stemOf = (name: string): string => name.replace(/\.[^.]+$/, '');

/** Each picture with its captions, and the captions that belong to none. */
function pairsIn(names: readonly string[]) {
  const pictures = names.filter(isPictureName);
  const captions = new Map<string, string[]>();
  for (const name of names) {
    if (ENDINGS.some((ending) => name.toLowerCase().endsWith(ending)))
      captions.set(stemOf(name), [...(captions.get(stemOf(name)) ?? []), name]);
  }
  // film.png.txt is written by some tools
  const of = (picture: string) => captions.get(stemOf(picture)) ?? captions.get(picture) ?? [];
  const used = new Set(pictures.flatMap(of));
  const alone = [...captions.values()].flat().filter((name) => !used.has(name));
  return { pairs: pictures.map((picture) => ({ picture, captions: of(picture) })), alone };
}

/** The folder and those below it that hold a picture with a caption beside it, by their names. */
async function foldersOf(dir: string, names: readonly string[]): Promise<ReadonlyMap<string, readonly string[]>> {
  const below = await Promise.all(
    names.map(async (name) => [name, await namesIn(path.join(dir, name)).catch(() => undefined)] as const),
  );
  const all = [['.', names] as const, ...below.flatMap(([name, inside]) => (inside ? [[name, inside] as const] : []))];
  return new Map(all.filter(([, inside]) => pairsIn(inside).pairs.some(({ captions }) => captions.length > 0)));
}

async function read(dir: string, names: readonly string[]): Promise<RecordSet> {
  const folders = await foldersOf(dir, names);
  const records: DataRecord[] = [];
  const skipped: { readonly file: string; readonly reason: string }[] = [];
  const { problems, attempt } = problemList();
  for (const [folder, inside] of folders) {
    const place = (name: string) => path.posix.normalize(`${folder}/${name}`);
    const { pairs, alone } = pairsIn(inside);
    for (const name of alone) skipped.push({ file: place(name), reason: 'has no picture' });
    for (const { picture, captions } of pairs) {
      const [first, ...others] = captions;
      if (first === undefined) {
        skipped.push({ file: place(picture), reason: `has no ${ENDINGS.join(' or ')} beside it` });
        continue;
      }
      const file = path.join(dir, place(first));
      const record = await attempt(place(picture), async () => {
        if (others.length > 0) throw new FileError(file, 'caption', `${listed(others)} is there too, keep one of them`);
        const real = await resolveInside(dir, place(first), { file, field: 'caption' });
        const text = oneLine(decodeText(await readBytes(real, MAX_CAPTION_BYTES), file));
        return {
          id: place(picture),
          file: place(picture),
          image: await resolveInside(dir, place(picture), { file, field: 'picture' }),
          text: checkText(text, { file, field: 'caption' }),
        };
      });
      if (record) records.push(record);
    }
  }
  const repeats = [...folders.keys()].filter((name) => /^\d+_/.test(name));
  const warnings =
    repeats.length > 0
      ? [`${listed(repeats)}: a number of repeats is not read, every pair counts once; see --epochs`]
      : [];
  return { layout: sidecar.name, dir, records, skipped, warnings, problems };
}

export const sidecar: Layout = {
  name: 'sidecar',
  doc: 'a .txt or .caption beside each picture, also in folders such as 10_chest',
  // a folder with a table or the folders of a known set is that, whatever lies beside
  detect: async (dir, names) =>
    !names.some((name) => /^(metadata\.(csv|jsonl)|captions\.csv|ClinicalReadings|ecgen-radiology)$/.test(name)) &&
    (await foldersOf(dir, names)).size > 0,
  read,
  says: 'the text beside each picture, on one line',
};
