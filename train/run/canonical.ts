/**
 * JSON with one spelling per value: every number exact (-0 included), nothing silently dropped, keys sorted.
 * Equal values give equal bytes, which is what makes files comparable and hashes meaningful.
 */
import { createHash } from 'node:crypto';
import { FileError } from '../../models/io/error.ts';
import { type Json, MAX_DEPTH } from '../../models/io/json.ts';

/** What may be written: JSON values and plain objects of them; properties that are undefined are left out. */
export type Plain = Json | Readonly<Record<string, unknown>>;

type Style = { readonly indent: number; readonly sorted: boolean; readonly infinite: boolean };

/**
 * @param indent blanks per level; 0 gives one line
 * @throws RangeError naming the path of a value that JSON cannot hold (NaN, ±Infinity, a function, depth above 64)
 * @example canonicalJson({ b: -0, a: [1] }) // '{"a":[1],"b":-0}'
 */
export function canonicalJson(value: Plain, indent = 0): string {
  return encode(value, [], { indent, sorted: true, infinite: false });
}

/**
 * One line for a log: keys in their own order, ±Infinity as ±1e999, which every JSON parser reads as infinite again.
 * @throws RangeError naming the path of NaN or whatever else JSON cannot hold
 */
export function lineJson(value: Plain): string {
  return encode(value, [], { indent: 0, sorted: false, infinite: true });
}

function encode(value: unknown, path: readonly (string | number)[], style: Style): string {
  if (value === null || typeof value === 'boolean') return String(value);
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'number') return number(value, path, style);
  if (typeof value !== 'object' || ArrayBuffer.isView(value)) throw unfit(path, `a ${typeof value}`);
  if (path.length >= MAX_DEPTH) throw unfit(path, `depth above ${MAX_DEPTH}`);
  const colon = style.indent > 0 ? ': ' : ':';
  const inner = Array.isArray(value)
    ? value.map((item, i) => encode(item, [...path, i], style))
    : members(value, style.sorted).map(
        ([key, item]) => `${JSON.stringify(key)}${colon}${encode(item, [...path, key], style)}`,
      );
  const [open, close] = Array.isArray(value) ? '[]' : '{}';
  if (inner.length === 0 || style.indent === 0) return `${open}${inner.join(',')}${close}`;
  const pad = `\n${' '.repeat(style.indent * path.length)}`;
  const deeper = pad + ' '.repeat(style.indent);
  return `${open}${deeper}${inner.join(`,${deeper}`)}${pad}${close}`;
}

function number(value: number, path: readonly (string | number)[], style: Style): string {
  if (Number.isFinite(value)) return Object.is(value, -0) ? '-0' : String(value);
  if (style.infinite && !Number.isNaN(value)) return value > 0 ? '1e999' : '-1e999';
  throw unfit(path, String(value));
}

function members(value: object, sorted: boolean): readonly (readonly [string, unknown])[] {
  const entries = Object.entries(value).filter(([, item]) => item !== undefined);
  return sorted ? entries.sort(([a], [b]) => (a < b ? -1 : 1)) : entries;
}

function unfit(path: readonly (string | number)[], what: string): RangeError {
  return new RangeError(`${path.join('.') || 'value'}: ${what} cannot be written as JSON`);
}

/**
 * Where two values differ, as path, value before and value after in JSON (`not set` where there is none).
 * @example differences({ lambda: 1.1 }, { lambda: 1.3 }) // [['lambda', '1.1', '1.3']]
 */
export function differences(
  before: unknown,
  after: unknown,
  at = '',
): readonly (readonly [path: string, before: string, after: string])[] {
  if (isObject(before) && isObject(after)) {
    const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])].sort();
    return keys.flatMap((key) => differences(own(before, key), own(after, key), at === '' ? key : `${at}.${key}`));
  }
  const show = (value: unknown) =>
    value === undefined ? 'not set' : encode(value, [], { indent: 0, sorted: true, infinite: true });
  const [a, b] = [show(before), show(after)];
  return a === b ? [] : [[at, a, b]];
}

const HIDDEN = 'sha256:';

/**
 * The same value with every text replaced by a hash of it: enough to notice a change, without the paths and names of a
 * person's machine.
 * @example concealed({ lambda: 1.1, data: '/home/ann/films' }) // { lambda: 1.1, data: 'sha256:…' }
 */
export function concealed(value: Json): Json {
  if (typeof value === 'string') return HIDDEN + createHash('sha256').update(value).digest('hex').slice(0, 32);
  if (Array.isArray(value)) return value.map(concealed);
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value as Readonly<Record<string, Json>>).map(([k, v]) => [k, concealed(v)]));
}

/**
 * Refuses to go on with a run under other conditions than it was begun with. Values may be concealed.
 * @param file where the person can look
 * @throws FileError naming what changed, from what to what
 * @example refuseChanges('runs/first', { data: 'aa' }, { data: 'bb' }) // runs/first: data: was "aa" when …, is "bb" now
 */
export function refuseChanges(file: string, before: unknown, after: unknown): void {
  const changed = differences(before, after);
  if (changed.length === 0) return;
  const [[field, was, is], ...others] = changed;
  const more = others.length > 0 ? ` (changed as well: ${others.map(([name]) => name).join(', ')})` : '';
  const hidden = was.startsWith(`"${HIDDEN}`);
  const change = hidden ? 'was another text when the run was saved' : `was ${was} when the run was saved, is ${is} now`;
  throw new FileError(file, field, `${change}${more}`);
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function own(value: Readonly<Record<string, unknown>>, key: string): unknown {
  return Object.hasOwn(value, key) ? value[key] : undefined;
}
