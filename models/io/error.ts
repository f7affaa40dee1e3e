/**
 * The one error class for files that people give to the program, and the words for the system's error codes.
 * Every message is one printable line: file, field, what was found, what was expected.
 */

/** A file that cannot be used. `message` is a single line that names the file and, where there is one, the field. */
export class FileError extends Error {
  /** The file that cannot be used. */
  readonly file: string;
  /** Its field, '' where it is the whole file. */
  readonly field: string;

  /** @example new FileError('unet/config.json', 'layers_per_block', 'is -1, expected an integer from 1 to 16') */
  constructor(file: string, field: string, problem: string, options: ErrorOptions = {}) {
    super(printable(`${file}: ${field === '' ? '' : `${field}: `}${problem}`, 4000), options);
    this.name = 'FileError';
    this.file = file;
    this.field = field;
  }
}

// Whatever could move a terminal's cursor, fake a second line, turn a name round or hide in it: control characters, line
// and paragraph separators, soft hyphen, zero-width space, bidi marks, embeddings and isolates, byte-order mark,
// noncharacters (XML forbids some), tag characters, lone surrogates.
const UNPRINTABLE =
  /[\p{Cc}\p{Zl}\p{Zp}\p{Cs}\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\p{Noncharacter_Code_Point}\u{e0000}-\u{e007f}]/gu;

/** `'\x1b'` → `'\\u{1b}'`: the reader sees that something was there, the terminal does not act on it. */
const visible = (c: string): string => `\\u{${c.codePointAt(0)!.toString(16)}}`;

/**
 * Text from outside as one harmless line: unprintable characters become `\u{…}`, the rest is cut after `limit`.
 * @example printable('a\u001b[2Jb') // 'a\\u{1b}[2Jb'
 */
export function printable(text: string, limit = 300): string {
  const cut = text.length > limit ? `${text.slice(0, limit)}…` : text;
  return cut.replace(UNPRINTABLE, visible);
}

/** As {@link printable}, whole and with its line breaks and tabs: for reports and commands that are shown as paragraphs. */
export function printableLines(text: string): string {
  return text.replace(/\r\n?/g, '\n').replace(UNPRINTABLE, (c) => (c === '\n' || c === '\t' ? c : visible(c)));
}

/** Applies {@link printableLines} to every string inside a plain value, keys included; typed arrays and numbers pass unchanged. */
export function printableDeep<T>(value: T): T;
export function printableDeep(value: unknown): unknown {
  if (typeof value === 'string') return printableLines(value);
  if (Array.isArray(value)) return value.map((v) => printableDeep(v));
  if (value === null || typeof value !== 'object' || ArrayBuffer.isView(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [printableLines(k), printableDeep(v)]));
}

/** A name from a file in quotes, made printable. */
export function quoted(name: string, limit = 200): string {
  return `"${printable(name, limit)}"`;
}

/** The first `limit` of many names on one line: `a, b, c and 9 more`. */
export function listed(names: readonly string[], limit = 6): string {
  const shown = names.slice(0, limit).join(', ');
  return names.length > limit ? `${shown} and ${names.length - limit} more` : shown;
}

const CAUSES: ReadonlyMap<string, string> = new Map([
  ['ENOENT', 'no such file'],
  ['ENOTDIR', 'a part of the path is not a folder'],
  ['EISDIR', 'is a directory, a file was expected'],
  ['EACCES', 'permission denied'],
  ['EPERM', 'operation not permitted'],
  ['EROFS', 'the file system is read-only'],
  ['ENOSPC', 'no space left on the device'],
  ['EDQUOT', 'the disk quota is used up'],
  ['EFBIG', 'the file grew beyond the allowed size'],
  ['EIO', 'the device reported an input/output error'],
  ['EMFILE', 'too many open files'],
  ['ENFILE', 'too many open files in the system'],
  ['ELOOP', 'too many symbolic links'],
  ['ENAMETOOLONG', 'the name is too long'],
  ['EEXIST', 'exists already'],
  ['ENOTEMPTY', 'the folder is not empty'],
  ['EXDEV', 'lies on another file system'],
]);

/** The system's error code of a failed call, or undefined if `error` did not come from the system. */
export function systemCode(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : undefined;
}

/** Turns a failed system call into a FileError whose cause it is; every other error passes through unchanged. */
export function asFileError(error: unknown, file: string, doing = ''): Error {
  if (error instanceof FileError) return error;
  const code = systemCode(error);
  if (code !== undefined)
    return new FileError(file, doing, CAUSES.get(code) ?? `failed with ${code}`, { cause: error });
  return error instanceof Error ? error : new Error(String(error));
}
