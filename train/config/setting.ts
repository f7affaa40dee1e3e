/**
 * A setting is one zod field with its words: what it does, where `--help` shows it, whether a resume may change it. The
 * command line, the repeat command, what may change at `--resume` and SETTINGS.md are derived from that and from nothing else.
 */
import { z } from 'zod';

/** The headings of `--help`, in its order. */
export const GROUPS = [
  'Run',
  'Data',
  'Model and adapters',
  'Growth of ranks',
  'Optimisation',
  'Loss and noise',
  'Measuring and saving',
  'Pictures and report',
  'Memory and machine',
] as const;
export type Group = (typeof GROUPS)[number];

/** What is told of a setting. */
export type About = {
  /** what it does, without its default and its choices: those are read from the field */
  readonly help: string;
  readonly group: Group;
  /** what stands for the value in `--help`; told by the type where nothing is given */
  readonly value?: string;
  /**
   * a run may be gone on with under another value: nothing that was done already depends on it; `moved` where the value
   * is a place, whose content must be what it was
   */
  readonly changeable?: true | 'moved';
  /** `auto` leaves it open until the run is planned (estimate/) */
  readonly auto?: true;
};

/** Marks fields that have their words; nothing is stored under it. */
declare const TOLD: unique symbol;
export type Setting<S extends z.ZodType = z.ZodType> = S & { readonly [TOLD]: true };

/** A field with its words. @example setting(z.int().min(1).default(8), { group: 'Data', help: 'pairs per update' }) */
export const setting = <S extends z.ZodType>(field: S, about: About): Setting<S> => field.meta(about) as Setting<S>;

/** Settings as a schema; a field without words does not type-check. */
export const settings = <const F extends Readonly<Record<string, Setting>>>(fields: F) => z.strictObject(fields);

/** The words of a field. */
export const aboutOf = (field: z.ZodType): About => field.meta() as unknown as About;

/** What the command line has to know of a field's type. */
export type Kind =
  | { readonly type: 'number'; readonly whole: boolean }
  | { readonly type: 'text' | 'list' | 'boolean' }
  | { readonly type: 'choice'; readonly of: readonly string[] };

export function kindOf(field: z.ZodType): Kind {
  if (field instanceof z.ZodDefault || field instanceof z.ZodNullable || field instanceof z.ZodOptional)
    return kindOf(field.unwrap() as z.ZodType);
  if (field instanceof z.ZodNumber) return { type: 'number', whole: field.isInt };
  if (field instanceof z.ZodEnum) return { type: 'choice', of: field.options.map(String) };
  if (field instanceof z.ZodBoolean) return { type: 'boolean' };
  if (field instanceof z.ZodArray) return { type: 'list' };
  if (field instanceof z.ZodString) return { type: 'text' };
  throw new TypeError(`settings: no option can be made of a ${field.def.type}`);
}

/** The value of a field that nobody gave; undefined where there is none. */
export const defaultOf = (field: z.ZodType): unknown => field.safeParse(undefined).data;

/** `testEvery` → `--test-every`. */
export const optionOf = (key: string): string => `--${key.replace(/[A-Z]/g, (l) => `-${l.toLowerCase()}`)}`;

/** Keys of a schema whose words say so. @example keysWhere(configSchema.shape, (about) => about.changeable) */
export const keysWhere = <K extends string>(
  shape: Readonly<Record<K, z.ZodType>>,
  which: (about: About) => unknown,
): readonly K[] => (Object.keys(shape) as K[]).filter((key) => which(aboutOf(shape[key])));
