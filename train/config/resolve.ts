/** From what was given to complete settings: preset, then the command line on top, then the defaults; checked. */
import type { z } from 'zod';
import { quoted } from '../../models/io/error.ts';
import { impliedSettings } from '../../selora/methods/registry.ts';
import { configSchema, type RunConfig, type Settings } from './config.ts';
import { startSchema } from './invocation.ts';
import { runPresets } from './presets.ts';
import { keysWhere, optionOf } from './setting.ts';

/** Options of a command line as they came. */
export type Given = Readonly<Record<string, unknown>>;

const AUTO = keysWhere(configSchema.shape, (about) => about.auto);

/** Whether a setting is left to the plan of the run. @example isOpen(options, 'accumulate') */
export const isOpen = (given: Given, key: keyof RunConfig): boolean =>
  given[key] === undefined || (given[key] === 'auto' && (AUTO as readonly string[]).includes(key));

/** `on`, `off` and `auto` as the settings hold them. */
const settled = (given: Given): Given =>
  Object.fromEntries(
    Object.entries(given).flatMap(([key, value]) => {
      if (isOpen(given, key as keyof RunConfig)) return [];
      const boolean = (AUTO as readonly string[]).includes(key) && (value === 'on' || value === 'off');
      return [[key, boolean ? value === 'on' : value]];
    }),
  );

/** What is wrong with a setting: `is 0, expected at least 1`. */
function problemOf(issue: z.core.$ZodIssue, value: unknown): string {
  const is = `is ${typeof value === 'string' ? quoted(value, 60) : String(value)}, expected`;
  switch (issue.code) {
    case 'too_small':
      return `${is} ${issue.origin === 'string' ? 'a text' : `${issue.inclusive ? 'at least' : 'more than'} ${issue.minimum}`}`;
    case 'too_big':
      return `${is} at most ${issue.maximum}${issue.origin === 'string' ? ' characters' : ''}`;
    case 'invalid_type':
      return `${is} ${issue.expected === 'int' ? 'a whole number' : `a ${issue.expected}`}`;
    case 'invalid_value':
      return `${is} ${issue.values.join(', ')}`;
    default:
      return issue.message;
  }
}

/** Checked by a schema of settings. @throws RangeError: one line naming the first option that is wrong */
function checked<T>(schema: z.ZodType<T>, given: Given): T {
  const result = schema.safeParse(given);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const key = issue.path.length === 0 && issue.code === 'unrecognized_keys' ? undefined : issue.path[0];
  const value = given[String(key)];
  const problem =
    (AUTO as readonly unknown[]).includes(key) && typeof value === 'string'
      ? `is ${quoted(value, 60)}, expected auto, on, off`
      : problemOf(issue, value);
  throw new RangeError(`${optionOf(String(key ?? 'options'))}: ${problem}`);
}

/** The options of one of the two schemas. */
const partOf = (given: Given, start: boolean): Given =>
  Object.fromEntries(Object.entries(given).filter(([key]) => Object.hasOwn(startSchema.shape, key) === start));

/** How the run is started. @throws RangeError naming the option that is wrong */
export const resolveStart = (given: Given) => checked(startSchema, partOf(given, true));

/** Settings that say how ranks are given out. */
const RANKS = ['method', 'criterion', 'compat', 'fisher', 'rank', 'ranks', 'lambda', 'budget'] as const;

/**
 * Whether a run is one of the built-in pairs of which nothing is said that decides about ranks: it takes the better way
 * to give them out (`RESULTS.md`, "Where ranks belong") in place of the paper's.
 */
export const takesBetter = (options: Given): boolean =>
  (options.data ?? 'phantoms') === 'phantoms' &&
  (options.preset ?? 'phantoms') === 'phantoms' &&
  RANKS.every((key) => options[key] === undefined);

/** The settings of a run. @throws RangeError naming the option that is wrong, what it is and what was expected */
export function resolveConfig(options: Given): RunConfig {
  const { preset } = resolveStart(options);
  const given: Given = { ...(takesBetter(options) ? { criterion: 'gain' } : {}), ...settled(partOf(options, false)) };
  const builtIn = (given.data ?? 'phantoms') === 'phantoms';
  const chosen: Settings = preset ? runPresets[preset] : builtIn ? runPresets.phantoms : {};
  const merged: Record<string, unknown> = {
    ...chosen,
    ...impliedSettings(given),
    ...(given.epochs === undefined || given.steps !== undefined ? {} : { steps: undefined }),
    ...given,
  };
  if (given.steps !== undefined && given.epochs === undefined) delete merged.epochs;
  return checked(configSchema, merged);
}
