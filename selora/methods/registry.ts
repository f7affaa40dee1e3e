/** Looking methods up, and their settings as one schema. */
import { z } from 'zod';
import { METHODS } from './index.ts';
import type { Method, Settings } from './method.ts';

/** every method, whatever its own trees and settings are */
const all: readonly Method[] = METHODS;

/** What `--method` takes. */
export const methodNames = all.map((m) => m.name) as [string, ...string[]];
/** What a run trains with where nothing is said. */
export const defaultMethod = methodNames[0];

/** A method by its name. @throws RangeError with the names there are */
export function methodOf(name: string): Method {
  const found = all.find((m) => m.name === name);
  if (!found) throw new RangeError(`there is no method ${name}, only ${methodNames.join(', ')}`);
  return found;
}

type Shapes = (typeof METHODS)[number]['settings'];
type Intersection<U> = (U extends unknown ? (x: U) => void : never) extends (x: infer I) => void ? I : never;
/** Zod fields by name: those of all methods. */
export type MethodSettings = { [K in keyof Intersection<Shapes>]: Intersection<Shapes>[K] };

/** The settings of all methods together. @throws TypeError where two methods mean different fields by one name */
export function methodSettings(methods: readonly Method[] = all): z.ZodRawShape {
  const out: Record<string, z.ZodRawShape[string]> = {};
  for (const m of methods)
    for (const [name, field] of Object.entries(m.settings)) {
      if (out[name] !== undefined && out[name] !== field)
        throw new TypeError(`${m.name}: its setting ${name} is another than that of a method before it`);
      out[name] = field;
    }
  return out;
}

/** The settings of one method as its schema completes and checks them. */
export const settingsOf = (m: Method, given: Settings = {}): Settings => z.object(m.settings).parse(given);

/** What is wrong between the settings of a run: the first that any method names. */
export function methodProblem(c: Settings & { readonly batch: number; readonly method: string }) {
  const [own, { rank }] = [methodOf(c.method), c];
  if (typeof rank === 'number' && rank < own.leastRank(c))
    return { path: 'rank', message: `is ${rank}, expected at least ${own.leastRank(c)}` };
  for (const m of all) {
    const problem = m.problem?.(c);
    if (problem) return problem;
  }
  return undefined;
}
/** Settings that follow from those given. */
export const impliedSettings = (given: Settings): Settings =>
  Object.assign({}, ...all.map((m) => m.implied?.(given) ?? {}));

/** How a run is called beside others; undefined where its method has no name for it, or is none of these. */
export const labelOf = (name: string, c: Settings): string | undefined => all.find((m) => m.name === name)?.label?.(c);
