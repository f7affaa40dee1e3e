/**
 * JSON with one spelling per value: keys sorted, every number exact (-0 included), nothing silently dropped.
 * Equal values give equal bytes, which is what makes files comparable and hashes meaningful.
 */
import { type Json, MAX_DEPTH } from '../../models/io/json.ts';

/** What may be written: JSON values and plain objects of them; properties that are undefined are left out. */
export type Plain = Json | Readonly<Record<string, unknown>>;

/**
 * @param indent blanks per level; 0 gives one line
 * @throws RangeError naming the path of a value that JSON cannot hold (NaN, ±Infinity, a function, depth above 64)
 * @example canonicalJson({ b: -0, a: [1] }) // '{"a":[1],"b":-0}'
 */
export function canonicalJson(value: Plain, indent = 0): string {
  return encode(value, [], indent);
}

function encode(value: unknown, path: readonly (string | number)[], indent: number): string {
  const fail = (problem: string) => new RangeError(`${path.join('.') || 'value'}: ${problem}`);
  if (value === null || typeof value === 'boolean') return String(value);
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw fail(`${value} cannot be written as JSON`);
    return Object.is(value, -0) ? '-0' : String(value);
  }
  if (typeof value !== 'object' || ArrayBuffer.isView(value)) throw fail(`a ${typeof value} cannot be written as JSON`);
  if (path.length >= MAX_DEPTH) throw fail(`JSON depth is above ${MAX_DEPTH}`);
  const inner = Array.isArray(value)
    ? value.map((item, i) => encode(item, [...path, i], indent))
    : Object.entries(value)
        .filter(([, item]) => item !== undefined)
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([key, item]) => `${JSON.stringify(key)}:${indent > 0 ? ' ' : ''}${encode(item, [...path, key], indent)}`);
  const [open, close] = Array.isArray(value) ? '[]' : '{}';
  if (inner.length === 0 || indent === 0) return `${open}${inner.join(',')}${close}`;
  const pad = ' '.repeat(indent * path.length);
  return `${open}\n${inner.map((line) => `${pad}${' '.repeat(indent)}${line}`).join(',\n')}\n${pad}${close}`;
}

/**
 * Where two values differ, as `path: 1 → 2`; for telling someone which setting changed between stop and resume.
 * @example differences({ lambda: 1.1 }, { lambda: 1.3 }) // ['lambda: 1.1 → 1.3']
 */
export function differences(before: Plain | undefined, after: Plain | undefined, at = ''): readonly string[] {
  if (isObject(before) && isObject(after)) {
    const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])].sort();
    return keys.flatMap((key) => differences(own(before, key), own(after, key), at === '' ? key : `${at}.${key}`));
  }
  const show = (value: Plain | undefined) => (value === undefined ? 'not set' : canonicalJson(value));
  const [a, b] = [show(before), show(after)];
  return a === b ? [] : [`${at === '' ? 'value' : at}: ${a} → ${b}`];
}

function isObject(value: unknown): value is { readonly [key: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function own(value: { readonly [key: string]: Json }, key: string): Json | undefined {
  return Object.hasOwn(value, key) ? value[key] : undefined;
}
