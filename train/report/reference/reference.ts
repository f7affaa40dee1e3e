/**
 * Reference runs: what runs with settings that are often compared with gave, shipped with the program, so that a first
 * report has something to stand beside. On the wasm backend a run gives the same figures on every machine.
 */
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { readJson } from '../../../models/io/json.ts';
import { methodSettings } from '../../../selora/methods/registry.ts';
import { configSchema } from '../../config/config.ts';
import { aboutOf, defaultOf } from '../../config/setting.ts';
import { type Compared, count, type RunRecord, validationRow } from '../../run/record.ts';

const json = z.json();
export const referenceSchema = z.strictObject({
  /** the command that the run was started with, the software and the day */
  command: z.string(),
  version: z.string(),
  date: z.iso.date(),
  /** hashes of what it was made from */
  base: z.string().regex(/^[0-9a-f]{64}$/),
  data: z.string(),
  settings: z.record(z.string(), json),
  label: z.string(),
  method: z.string(),
  parameters: count,
  validations: z.array(validationRow),
  results: z.record(z.string(), json),
});
export type Reference = z.output<typeof referenceSchema>;

/** What a method is best at, its own: a reference that differs from a run in these says so, in these words. */
const OWN_WORDS: Readonly<Record<'targets' | 'lr' | 'textLr', (value: string) => string>> = {
  targets: (value) =>
    ({ 'all-linear': ' on linear layers', all: ' on linear layers and convolutions' })[value] ?? ` on ${value}`,
  lr: (value) => `, rate ${value}`,
  textLr: (value) => `, text encoder’s rate ${value}`,
};
const OWN = Object.keys(OWN_WORDS) as readonly (keyof typeof OWN_WORDS)[];
/**
 * Settings by which two runs are two methods, each at its own places and rate, are measured at other steps, asked for other
 * pictures, or run elsewhere: all others must agree.
 */
const FREE: ReadonlySet<string> = new Set([
  ...Object.keys(methodSettings()),
  ...OWN,
  ...['method', 'data', 'base', 'layout', 'skipUnreadable', 'captionColumn'],
  ...['saveEvery', 'validateEvery', 'samples', 'sampleEvery', 'merged', 'public', 'compare'],
]);

const fields: Readonly<Record<string, z.ZodType>> = configSchema.shape;
const settingOf = (settings: Readonly<Record<string, unknown>>, key: string): string =>
  JSON.stringify(settings[key] ?? defaultOf(fields[key]!) ?? null);
const agree = (a: Reference['settings'], b: RunRecord['settings'], keys: readonly string[]): boolean =>
  keys.every((key) => settingOf(a, key) === settingOf(b, key));

/** Whether a run can be compared with a reference: the same base, data and settings, and another method. */
export function comparable(run: RunRecord, reference: Reference): boolean {
  const keys = Object.keys(fields);
  const data = run.data?.splits.find((s) => s.name === 'train')?.hash;
  if (run.base !== reference.base || data !== reference.data) return false;
  const asked = keys.filter((key) => !FREE.has(key) && aboutOf(fields[key]!).group !== 'Memory and machine');
  const same =
    run.method === reference.method && agree(reference.settings, run.settings, Object.keys(methodSettings()));
  return agree(reference.settings, run.settings, asked) && !same;
}

/** All that ship, by their names. */
export async function references(folder = import.meta.dirname): Promise<ReadonlyMap<string, Reference>> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.json')).sort();
  const read = async (name: string) =>
    [path.basename(name, '.json'), referenceSchema.parse(await readJson(path.join(folder, name)))] as const;
  return new Map(await Promise.all(names.map(read)));
}

/** A run with the reference runs that it can be compared with, behind those it was asked to be. */
export async function withReferences(run: RunRecord): Promise<RunRecord> {
  // nothing but a run of the built-in pairs is known everywhere
  if (run.base === undefined || run.data === undefined) return run;
  const known = new Set(run.compared.map((c) => c.label));
  const found = [...(await references()).values()].filter((r) => comparable(run, r) && !known.has(r.label));
  const compared = found.map((r): Compared => {
    const { method, parameters, validations, results } = r;
    const own = OWN.filter((key) => settingOf(r.settings, key) !== settingOf(run.settings, key)).map((key) =>
      OWN_WORDS[key](String(r.settings[key] ?? defaultOf(fields[key]!))),
    );
    return { label: `${r.label}${own.join('')} (reference run)`, method, parameters, validations, results };
  });
  return { ...run, compared: [...run.compared, ...compared] };
}
