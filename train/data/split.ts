/**
 * Seeded splits into training, validation and test. Pairs of one patient, and pairs with the same picture, stay
 * together: a split that shares a patient measures memory, not learning.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { randomOf, seedKey, subkey } from '../../core/index.ts';
import { FileError, listed, quoted } from '../../models/io/error.ts';
import { readJson } from '../../models/io/json.ts';
import { writeRunFile } from '../run/atomic.ts';

export const SPLITS = ['train', 'validation', 'test'] as const;
export type SplitName = (typeof SPLITS)[number];
export type Ratios = Readonly<Record<SplitName, number>>;
export type Parts<T> = Readonly<Record<SplitName, readonly T[]>>;

/** What a split has to know of a pair. */
export type Splittable = {
  readonly id: string;
  readonly text: string;
  readonly patient?: string;
  readonly picture: { readonly hash: string };
};

/**
 * Reads "80/16/4" (training/validation/test) or "80/20" (training/test) as fractions.
 * @throws RangeError unless there are two or three numbers ≥ 0 with a sum of 100 and something to train on.
 */
export function parseRatios(text: string): Ratios {
  const numbers = text.split('/').map((part) => (/^\d+(\.\d+)?$/.test(part.trim()) ? Number(part) : Number.NaN));
  const [train = Number.NaN, ...rest] = numbers;
  const [validation, test] = rest.length === 1 ? [0, rest[0]!] : [rest[0] ?? Number.NaN, rest[1] ?? Number.NaN];
  const sum = numbers.reduce((total, part) => total + part, 0);
  if (numbers.length > 3 || !(Math.abs(sum - 100) < 1e-9) || !(train > 0) || Number.isNaN(validation + test)) {
    throw new RangeError(
      `split ${quoted(text, 40)}: expected parts with a sum of 100, the first above 0, such as 80/16/4 or 80/20`,
    );
  }
  return { train: train / 100, validation: validation / 100, test: test / 100 };
}

/** Pairs that must stay together: same patient or same picture, directly or through others (union-find). */
export function groupsOf<T extends Splittable>(records: readonly T[]): readonly (readonly T[])[] {
  const parent = records.map((_, at) => at);
  const root = (at: number): number => {
    let top = at;
    while (parent[top] !== top) {
      parent[top] = parent[parent[top]!]!;
      top = parent[top]!;
    }
    return top;
  };
  const first = new Map<string, number>();
  records.forEach(({ patient, picture }, at) => {
    for (const name of [...(patient === undefined ? [] : [`patient ${patient}`]), `picture ${picture.hash}`]) {
      const other = first.get(name);
      if (other === undefined) first.set(name, at);
      else parent[root(at)] = root(other);
    }
  });
  const groups = new Map<number, T[]>();
  records.forEach((record, at) => {
    const top = root(at);
    const group = groups.get(top);
    if (group) group.push(record);
    else groups.set(top, [record]);
  });
  return [...groups.values()];
}

const byId = (a: { readonly id: string }, b: { readonly id: string }) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);

/**
 * Splits pairs by group; depends on ids, patients, pictures, ratios and seed, not on the order of the list. Every
 * part with a ratio above 0 gets at least one group. Sizes miss the ratios by less than the largest group.
 * @throws RangeError when there are fewer groups than parts.
 * @example splitRecords(records, parseRatios('80/16/4'), 1).test.length
 */
export function splitRecords<T extends Splittable>(records: readonly T[], ratios: Ratios, seed: number): Parts<T> {
  const wanted = SPLITS.filter((name) => ratios[name] > 0);
  const groups = groupsOf([...records].sort(byId));
  if (groups.length < wanted.length) {
    throw new RangeError(
      `split: ${groups.length} patients or pictures, expected at least ${wanted.length}, one per part`,
    );
  }
  const parts = { train: [] as T[], validation: [] as T[], test: [] as T[] };
  const missing = (name: SplitName) => Math.max(ratios[name] * records.length, 1) - parts[name].length;
  const shuffled = randomOf(subkey(seedKey(seed), 'split')).shuffle(groups);
  shuffled.forEach((group, at) => {
    const empty = wanted.filter((name) => parts[name].length === 0);
    // The last groups go to parts that would stay empty, all others to the part that lacks most.
    const open = empty.length >= shuffled.length - at ? empty : wanted;
    const target = open.reduce((most, name) => (missing(name) > missing(most) ? name : most));
    parts[target].push(...group);
  });
  return { train: parts.train.sort(byId), validation: parts.validation.sort(byId), test: parts.test.sort(byId) };
}

/** A patient or picture in more than one part. */
export type Leak = {
  readonly kind: 'patient' | 'picture';
  readonly splits: readonly SplitName[];
  readonly ids: readonly string[];
};

/** Every patient and every picture that is in more than one part. */
export function findLeaks<T extends Splittable>(parts: Parts<T>): readonly Leak[] {
  const all = SPLITS.flatMap((split) => parts[split].map((record) => ({ split, record })));
  const leaksBy = (kind: Leak['kind'], value: (record: T) => string | undefined): readonly Leak[] => {
    const places = new Map<string, typeof all>();
    for (const place of all) {
      const key = value(place.record);
      if (key === undefined) continue;
      const found = places.get(key);
      if (found) found.push(place);
      else places.set(key, [place]);
    }
    return [...places.values()]
      .map((found) => ({
        kind,
        splits: SPLITS.filter((name) => found.some(({ split }) => split === name)),
        ids: found.map(({ record }) => record.id),
      }))
      .filter(({ splits }) => splits.length > 1);
  };
  return [...leaksBy('patient', ({ patient }) => patient), ...leaksBy('picture', ({ picture }) => picture.hash)];
}

/** Groups of pairs that show the same picture, for a person who looks at a data folder. */
export function duplicatePictures<T extends Splittable>(records: readonly T[]): readonly (readonly T[])[] {
  const byHash = new Map<string, T[]>();
  for (const record of records) {
    const same = byHash.get(record.picture.hash);
    if (same) same.push(record);
    else byHash.set(record.picture.hash, [record]);
  }
  return [...byHash.values()].filter((group) => group.length > 1);
}

/**
 * What is wrong with pictures that lie in several of the folders people keep parts in (`train/a.png` = `test/b.png`), in
 * words; undefined where there are none.
 */
export function acrossFolders(groups: readonly (readonly { readonly file: string }[])[]): string | undefined {
  const folderOf = (file: string) => (file.includes('/') ? file.slice(0, file.indexOf('/')) : '.');
  const across = groups.filter((group) => new Set(group.map(({ file }) => folderOf(file))).size > 1);
  if (across.length === 0) return undefined;
  const folders = [...new Set(across.flat().map(({ file }) => folderOf(file)))].sort();
  return `${across.length} are in several of ${listed(folders)}: such parts are no test; --split keeps equal pictures together`;
}

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');

/** SHA-256 over the sorted (id, patient, picture, text) of all pairs: the identity of a data set. */
export const dataHash = (records: readonly Splittable[]): string =>
  sha256(
    JSON.stringify(
      [...records].sort(byId).map(({ id, patient, picture, text }) => [id, patient ?? null, picture.hash, text]),
    ),
  );

const HASH = z.string().regex(/^[0-9a-f]{64}$/, 'expected a SHA-256 in hexadecimal');
const ENTRIES = z.array(z.object({ id: z.string(), picture: HASH, text: HASH }));
const FRACTION = z.number().min(0).max(1);
const SPLIT_FILE = z.object({
  format: z.literal('selora-split/1'),
  seed: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER),
  ratios: z.object({ train: FRACTION, validation: FRACTION, test: FRACTION }),
  data: HASH,
  train: ENTRIES,
  validation: ENTRIES,
  test: ENTRIES,
});

/** What a split file holds: ids with hashes of picture and text; neither texts nor patients. */
export type SplitFile = z.infer<typeof SPLIT_FILE>;

/** The content of a split file. */
export function describeSplit<T extends Splittable>(parts: Parts<T>, ratios: Ratios, seed: number): SplitFile {
  const entries = (records: readonly T[]) =>
    records.map(({ id, picture, text }) => ({ id, picture: picture.hash, text: sha256(text) }));
  return {
    format: 'selora-split/1',
    seed,
    ratios,
    data: dataHash(SPLITS.flatMap((name) => parts[name])),
    train: entries(parts.train),
    validation: entries(parts.validation),
    test: entries(parts.test),
  };
}

/** Writes a split into the run folder, atomically. @throws FileError when it cannot be written. */
export const writeSplit = (file: string, split: SplitFile): Promise<void> =>
  writeRunFile(file, `${JSON.stringify(split, undefined, 1)}\n`);

/** Reads a split file. @throws FileError naming file and field. */
export async function readSplit(file: string): Promise<SplitFile> {
  const result = SPLIT_FILE.safeParse(await readJson(file, 256 * 2 ** 20));
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  throw new FileError(file, issue.path.join('.') || 'split', issue.message);
}
