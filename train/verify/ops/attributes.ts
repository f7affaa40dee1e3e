/** Attributes of a golden operation: JSON from outside, checked where they are read. */
import type { Tensor } from '../../../core/index.ts';

export type Inputs = Readonly<Record<string, Tensor>>;
export type Attributes = Readonly<Record<string, unknown>>;

/** @throws Error naming the attribute */
export function number(a: Attributes, name: string): number {
  const value = a[name];
  if (typeof value !== 'number') throw new Error(`attribute ${name}: ${JSON.stringify(value)}, expected a number`);
  return value;
}
export const isList = (value: unknown): value is readonly number[] =>
  Array.isArray(value) && value.every((x) => typeof x === 'number');
export function numbers(a: Attributes, name: string): readonly number[] {
  const value = a[name];
  if (!isList(value)) throw new Error(`attribute ${name}: ${JSON.stringify(value)}, expected a list of numbers`);
  return value;
}
/** Undefined: all axes. */
export const axes = (a: Attributes): readonly number[] | number | undefined =>
  a.axes === 'all' ? undefined : a.axis === undefined ? numbers(a, 'axes') : number(a, 'axis');
export const keep = (a: Attributes): boolean => a.keepdims === true;
