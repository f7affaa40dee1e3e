/** What every data layout becomes: a list of image-text pairs, every path checked to lie inside the data folder. */
import { readdir, realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { asFileError, FileError, quoted, systemCode } from '../../models/io/error.ts';

export type Layout = 'imagefolder' | 'montgomery' | 'iu-xray' | 'patchgastric';

/** One image-text pair. */
export type DataRecord = {
  /** Unique within the data set. */
  readonly id: string;
  /** Name relative to the data folder, for messages and reports. */
  readonly file: string;
  /** Real path of the image file, checked to be a regular file inside the data folder. */
  readonly image: string;
  readonly text: string;
  /** Who the image is of; pairs of one patient never go into two splits. */
  readonly patient?: string;
  /** A class, where the layout has one. */
  readonly label?: string;
};

/** Something in the folder that was left out, and why. */
export type Skip = { readonly file: string; readonly reason: string };

/** The pairs of a data folder. */
export type RecordSet = {
  readonly layout: Layout;
  readonly dir: string;
  readonly records: readonly DataRecord[];
  readonly skipped: readonly Skip[];
  readonly warnings: readonly string[];
};

const MAX_NAME = 4096;
const MAX_TEXT = 1_000_000;

/** What is wrong with a relative name before the file system is asked; undefined when nothing is. */
function nameProblem(name: string): string | undefined {
  if (name === '') return 'is empty';
  if (name.length > MAX_NAME) return `has ${name.length} characters, at most ${MAX_NAME} are read`;
  if (/\p{Cc}/u.test(name)) return 'holds control characters';
  if (/^[a-z][a-z0-9+.-]+:/i.test(name)) return 'is an address, nothing is fetched: expected a file in the data folder';
  if (/^([/\\~]|[a-z]:)/i.test(name)) return 'is an absolute path, expected one inside the data folder';
  if (name.includes('\\')) return 'holds a backslash, expected "/" between folders';
  if (name.split('/').includes('..')) return 'leads outside the data folder';
  return undefined;
}

/** Where a name comes from, for messages. */
export type Origin = { readonly file: string; readonly field: string };

/**
 * The real path of a regular file named relative to a folder. Links are followed, but never out of the folder.
 * @throws FileError at `origin` for absolute paths, addresses, `..`, links to the outside, missing files, directories,
 * pipes and devices.
 */
export async function resolveInside(dir: string, name: string, origin: Origin): Promise<string> {
  const fail = (problem: string) => new FileError(origin.file, origin.field, `${quoted(name)} ${problem}`);
  const problem = nameProblem(name);
  if (problem) throw fail(problem);
  try {
    const root = await realpath(dir);
    const real = await realpath(path.join(root, name));
    if (!real.startsWith(root.endsWith(path.sep) ? root : root + path.sep)) {
      throw fail('is a link to a place outside the data folder');
    }
    const info = await stat(real);
    if (info.isDirectory()) throw fail('is a directory, expected a file');
    if (!info.isFile()) throw fail('is not a regular file');
    return real;
  } catch (error) {
    if (error instanceof FileError) throw error;
    const code = systemCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') throw fail('is not there');
    if (code === 'ELOOP') throw fail('is a link that leads to itself');
    throw asFileError(error, origin.file, origin.field);
  }
}

/**
 * A caption that can be trained on.
 * @throws FileError at `origin` when it is empty, endless, or holds characters no text has.
 */
export function checkText(text: string, origin: Origin): string {
  const problem =
    text.trim() === ''
      ? 'is empty'
      : text.length > MAX_TEXT
        ? `has ${text.length} characters, at most ${MAX_TEXT} are read`
        : text.includes('\0')
          ? 'holds a NUL character'
          : /\p{Cs}/u.test(text)
            ? 'holds half a character (lone surrogate)'
            : undefined;
  if (problem) throw new FileError(origin.file, origin.field, problem);
  return text;
}

/** One line out of many, without blanks at the ends or twice in a row. */
export const oneLine = (text: string): string => text.replace(/\s+/g, ' ').trim();

/** Names in a folder, sorted; undefined when there is no such folder. @throws FileError when it cannot be listed. */
export async function namesIn(folder: string): Promise<readonly string[] | undefined> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw asFileError(error, folder);
  }
}

/** The first of the named subfolders that exists, with its sorted names; '.' is the folder itself. */
export async function firstFolder(
  dir: string,
  candidates: readonly string[],
): Promise<{ readonly folder: string; readonly names: readonly string[] } | undefined> {
  for (const folder of candidates) {
    const names = await namesIn(path.join(dir, folder));
    if (names) return { folder, names };
  }
  return undefined;
}

/** @throws FileError when nothing is left to train on. */
export function nonEmpty(set: RecordSet): RecordSet {
  if (set.records.length > 0) return set;
  const why = set.skipped.length > 0 ? `; ${set.skipped.length} left out, first: ${set.skipped[0]!.reason}` : '';
  throw new FileError(set.dir, 'data', `no image-text pair in this ${set.layout} folder${why}`);
}
