/**
 * JSON from untrusted files: size, depth and duplicate keys are checked before `JSON.parse` builds anything.
 * `JSON.parse` alone keeps the last of two equal keys and takes 20,000 nested arrays.
 */
import { open, stat } from 'node:fs/promises';
import { asFileError, FileError, quoted } from './error.ts';

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

export type JsonRules = {
  /** Deepest nesting allowed. */
  readonly depth?: number;
  /** What the text is called in messages when it is only part of a file, for example `header`. */
  readonly field?: string;
  /** Paths whose numbers must be written as plain digits (JSON's `2.0`, `2e0` and `-0` would all read as integers). */
  readonly digitsOnly?: (path: readonly string[]) => boolean;
};

export const MAX_DEPTH = 64;

type Frame = { readonly keys: Set<string> | undefined; expectKey: boolean; key: string };

/**
 * Parses JSON strictly. Cost: one linear scan, then `JSON.parse`.
 * @throws FileError naming the key for depth, duplicates and digits, or line and column where it is not JSON (as far as the engine says where)
 * @example parseJson('{"a":1,"a":2}', 'x.json') // FileError: x.json: a: duplicate key
 */
export function parseJson(text: string, file: string, rules: JsonRules = {}): Json {
  const field = rules.field ?? '';
  scan(text, file, rules);
  try {
    return JSON.parse(text);
  } catch (error) {
    const position = /position (\d+)/.exec(String(error));
    throw new FileError(file, field, `not valid JSON${position ? at(text, Number(position[1])) : ''}`);
  }
}

/** ` (line 3, column 7)` of an index. */
function at(text: string, index: number): string {
  const before = text.slice(0, index).split('\n');
  return ` (line ${before.length}, column ${before[before.length - 1].length + 1})`;
}

const [QUOTE, COMMA, BACKSLASH] = [0x22, 0x2c, 0x5c];
const [OPEN_OBJECT, CLOSE_OBJECT, OPEN_ARRAY, CLOSE_ARRAY] = [0x7b, 0x7d, 0x5b, 0x5d];

/** Checks what `JSON.parse` does not. Text that is not JSON may pass: `JSON.parse` refuses it afterwards. */
function scan(text: string, file: string, rules: JsonRules): void {
  const limit = rules.depth ?? MAX_DEPTH;
  const stack: Frame[] = [];
  const path = () => stack.map((frame) => frame.key).filter((key) => key !== '');
  const label = (keys: readonly string[]) => keys.join('.') || rules.field || '';
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case QUOTE: {
        const top = stack[stack.length - 1];
        const end = endOfString(text, i);
        if (top?.keys !== undefined && top.expectKey) {
          top.key = keyOf(text.slice(i, end + 1));
          top.expectKey = false;
          if (top.keys.has(top.key)) throw new FileError(file, label(path()), `duplicate key ${quoted(top.key)}`);
          top.keys.add(top.key);
        }
        i = end;
        break;
      }
      case OPEN_OBJECT:
      case OPEN_ARRAY:
        if (stack.length >= limit) {
          throw new FileError(file, label(path().slice(0, 4)), `JSON depth is above ${limit}`);
        }
        stack.push({ keys: text[i] === '{' ? new Set() : undefined, expectKey: text[i] === '{', key: '' });
        break;
      case CLOSE_OBJECT:
      case CLOSE_ARRAY:
        stack.pop();
        break;
      case COMMA:
        if (stack.length > 0) stack[stack.length - 1].expectKey = true;
        break;
      default:
        if (rules.digitsOnly !== undefined && /[-\d]/.test(text[i])) {
          const number = /^[-+.\deE]*/.exec(text.slice(i, i + 64))![0];
          if (!/^(0|[1-9]\d*)$/.test(number) && rules.digitsOnly(path())) {
            throw new FileError(file, label(path()), `${number} is not a plain non-negative integer`);
          }
          i += number.length - 1;
        }
    }
  }
}

/** Index of the quote that closes the string opened at `start`, or the text's length. */
function endOfString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let before = end - 1;
    while (text.charCodeAt(before) === BACKSLASH) before--;
    if ((end - before) % 2 === 1) return end;
  }
  return text.length;
}

/** The key behind its JSON spelling, so that "\u0061" and "a" are found to be the same. */
function keyOf(literal: string): string {
  if (!literal.includes('\\')) return literal.slice(1, -1);
  try {
    return String(JSON.parse(literal));
  } catch {
    return literal;
  }
}

/**
 * The bytes of a small regular file, its size checked before anything is allocated.
 * @throws FileError if it is missing, not a regular file (a pipe would block for ever) or above `limit` bytes
 */
export async function readBytes(file: string, limit: number): Promise<Uint8Array> {
  const info = await stat(file).catch((error) => {
    throw asFileError(error, file);
  });
  if (info.isDirectory()) throw new FileError(file, '', 'is a directory, a file was expected');
  if (!info.isFile()) throw new FileError(file, '', 'is not a regular file');
  if (info.size > limit) throw new FileError(file, '', `has ${info.size} bytes, at most ${limit} are read`);
  let handle: Awaited<ReturnType<typeof open>> | undefined;
  try {
    handle = await open(file, 'r');
    const bytes = new Uint8Array(info.size);
    let done = 0;
    while (done < bytes.length) {
      const { bytesRead } = await handle.read(bytes, done, bytes.length - done, done);
      if (bytesRead === 0) throw new FileError(file, '', 'became shorter while it was read');
      done += bytesRead;
    }
    return bytes;
  } catch (error) {
    throw asFileError(error, file);
  } finally {
    // Nothing was written: an error of close would only hide the answer.
    await handle?.close().catch(() => undefined);
  }
}

/** UTF-8 decoded strictly; a byte-order mark is taken off. @throws FileError where the bytes are not UTF-8 */
export function decodeText(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new FileError(file, '', 'is not UTF-8 text');
  }
}

/** Reads a JSON file of at most `limit` bytes. @throws FileError as readBytes, decodeText and parseJson */
export async function readJson(file: string, limit = 1 << 20): Promise<Json> {
  return parseJson(decodeText(await readBytes(file, limit), file), file);
}
