/** What every data layout becomes: a list of image-text pairs, every path checked to lie inside the data folder. */
import { readdir, realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { asFileError, FileError, printable, quoted, systemCode } from '../../models/io/error.ts';

/** One image-text pair. */
export type DataRecord = {
  /** Unique within the data set. */
  readonly id: string;
  /** Name relative to the data folder, for messages and reports. */
  readonly file: string;
  /** Real path of the image file, checked to be a regular file inside the data folder. */
  readonly image: string;
  /** Reads the encoded picture where `image` is a file of many pairs. @throws FileError */
  readonly encoded?: () => Promise<Uint8Array>;
  readonly text: string;
  /** Who the image is of; pairs of one patient never go into two splits. */
  readonly patient?: string;
  /** A class, where the layout has one. */
  readonly label?: string;
};

/** Something in the folder that was left out, and why. */
export type Skip = { readonly file: string; readonly reason: string };

/** What is wrong with one pair. */
export type Problem = { readonly file: string; readonly error: FileError };

/** The pairs of a data folder. */
export type RecordSet = {
  /** Name of the layout. */
  readonly layout: string;
  readonly dir: string;
  readonly records: readonly DataRecord[];
  readonly skipped: readonly Skip[];
  readonly warnings: readonly string[];
  /** Pairs that cannot be read. */
  readonly problems: readonly Problem[];
};

/** A list of problems, and a way to try what may add one. */
export function problemList(): {
  readonly problems: readonly Problem[];
  /** The result of `read`; undefined where it throws a FileError, which goes into the list under this name. */
  readonly attempt: <T>(file: string, read: () => T | Promise<T>) => Promise<T | undefined>;
} {
  const problems: Problem[] = [];
  return {
    problems,
    attempt: async (file, read) => {
      try {
        return await read();
      } catch (error) {
        if (!(error instanceof FileError)) throw error;
        problems.push({ file, error });
        return undefined;
      }
    },
  };
}

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

/** `; found "Film.png", …` where the folder holds a name that differs in case, blanks or the form of its accents only. */
async function lookAlike(dir: string, name: string): Promise<string> {
  const plain = (text: string) => text.normalize('NFKC').toLowerCase().trim();
  let folder = dir;
  const found: string[] = [];
  for (const part of name.split('/').filter((each) => each !== '' && each !== '.')) {
    const names = (await namesIn(folder).catch(() => undefined)) ?? [];
    const same = names.includes(part) ? part : names.find((each) => plain(each) === plain(part));
    if (same === undefined) return '';
    found.push(same);
    folder = path.join(folder, same);
  }
  const other = found.join('/');
  const accents = other.normalize('NFC') === name.normalize('NFC') ? ', whose accents are stored in another form' : '';
  return `; found ${quoted(other)}${accents}`;
}

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
    if (code === 'ENOENT' || code === 'ENOTDIR') throw fail(`is not there${await lookAlike(dir, name)}`);
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

/** Whether a name is what a system leaves beside a person's files: `._film.png`, `.DS_Store`, `Thumbs.db`, … */
export const isSystemName = (name: string): boolean =>
  name.startsWith('.') || /^(ehthumbs(_vista)?\.db|thumbs\.db|desktop\.ini|__macosx|icon\r|@eadir)$/i.test(name);

/**
 * Names in a folder, sorted, without those that systems leave; undefined when there is no such folder.
 * @throws FileError when it cannot be listed.
 */
export async function namesIn(folder: string): Promise<readonly string[] | undefined> {
  try {
    return (await readdir(folder)).filter((name) => !isSystemName(name)).sort();
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

const SHOWN_PROBLEMS = 20;

/** One line for all problems of a folder; the one there is where it is only one. */
function problemsError(dir: string, problems: readonly Problem[]): FileError {
  const [first] = problems;
  if (problems.length === 1) return first!.error;
  const shown = problems.slice(0, SHOWN_PROBLEMS).map(({ error }) => {
    const { message } = error;
    return printable(message.startsWith(`${dir}/`) ? message.slice(dir.length + 1) : message, 180);
  });
  const more = problems.length > shown.length ? `; and ${problems.length - shown.length} more` : '';
  const way = '--skip-unreadable trains on the rest';
  return new FileError(dir, 'data', `${problems.length} problems (${way}): ${shown.join('; ')}${more}`);
}

/**
 * A set whose every pair can be read: pairs with problems are left out where that is asked for.
 * @throws FileError naming the problems, or when nothing is left to train on.
 */
export function settled<T extends RecordSet>(set: T, skipUnreadable = false): T {
  if (set.problems.length > 0 && !skipUnreadable) throw problemsError(set.dir, set.problems);
  const unread = set.problems.map(({ file, error }) => ({ file, reason: error.message }));
  const skipped = [...set.skipped, ...unread];
  if (set.records.length > 0) return { ...set, skipped, problems: [] };
  const why = skipped.length > 0 ? `; ${skipped.length} left out, first: ${skipped[0]!.reason}` : '';
  throw new FileError(set.dir, 'data', `no image-text pair in this ${set.layout} folder${why}`);
}
