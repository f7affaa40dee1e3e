/** What an experiment compares: methods and seeds on common settings, read from YAML and checked before anything runs. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { parseDocument } from 'yaml';
import { z } from 'zod';
import { asFileError, FileError } from '../../models/io/error.ts';
import type { RunConfig, Settings } from '../config/config.ts';
import { configSchema } from '../config/config.ts';
import { type Given, resolveConfig } from '../config/resolve.ts';
import { type ScoresSpec, scoresSchema } from './scores.ts';

const single = z.union([z.string().max(10_000), z.number(), z.boolean(), z.null()]);
const value = z.union([single, z.array(z.string().max(1000))]);
const given = z.record(z.string(), value).default({});
const name = z
  .string()
  .regex(
    /^[\p{L}\p{N}][\p{L}\p{N} ._=+,:()-]{0,59}$/u,
    'expected up to 60 letters, digits, blanks and . _ = + , : ( ) -',
  );

const experimentSchema = z.strictObject({
  /** also the name of its folder */
  name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$/, 'expected letters, digits, dots, dashes, underscores'),
  /** settings of `npm run train` that all runs share, by the names of `config.json` or of the command line */
  settings: given,
  methods: z
    .array(
      z.strictObject({
        name,
        settings: given,
        /** settings with several values each: the method becomes one for every combination, with a table of its own */
        grid: z.record(z.string(), z.array(single).min(1).max(20)).default({}),
      }),
    )
    .min(1)
    .max(100),
  seeds: z.array(z.int().min(0).max(Number.MAX_SAFE_INTEGER)).min(1).max(1000),
  /** the method that the others are compared with; the first unless told */
  against: z.string().optional(),
  /** pairs of the training part, for a plan where the data are not on this machine */
  trainingPairs: z.int().min(1).max(1e9).optional(),
  /** networks that judge the pictures which runs drew for held-out reports (`samples` of them), as `npm run evaluate` does */
  scores: scoresSchema.optional(),
});

/** One method of an experiment and its settings, complete but for the seed. */
export type Arm = {
  readonly name: string;
  readonly given: Given;
  readonly config: RunConfig;
  /** of a grid: the method it varies, and its own values by the names of the file */
  readonly cell?: { readonly of: string; readonly at: Readonly<Record<string, string>> };
};
/** An experiment as it will be run. */
export type Experiment = {
  readonly name: string;
  readonly arms: readonly Arm[];
  readonly seeds: readonly number[];
  readonly against: string;
  readonly trainingPairs?: number;
  readonly scores?: ScoresSpec;
};

/** `--test-every`, `test-every` and `testEvery` are one setting. */
const keyOf = (key: string): string =>
  key.replace(/^--/, '').replace(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
const PER_RUN = ['seed', 'compare'];

function settingsOf(given: Settings, at: string): Given {
  return Object.fromEntries(
    Object.entries(given).map(([typed, setting]) => {
      const key = keyOf(typed);
      const wrong = (message: string) => new RangeError(`${at}.${typed}: ${message}`);
      if (PER_RUN.includes(key)) throw wrong('the experiment gives it to each run');
      if (!Object.hasOwn(configSchema.shape, key)) throw wrong('no setting of npm run train has this name');
      return [key, setting];
    }),
  );
}

type Method = z.output<typeof experimentSchema>['methods'][number];
type Variant = { readonly name: string; readonly settings: Settings; readonly cell?: Arm['cell'] };
/** Most methods after all grids are laid out. */
const MOST = 100;

/** Every combination of a grid's values, the last setting varying first; the method itself where it has none. */
function variantsOf({ name: of, settings, grid }: Method): readonly Variant[] {
  const keys = Object.keys(grid);
  if (keys.length === 0) return [{ name: of, settings: settings as Settings }];
  const twice = keys.find((key) => Object.keys(settings).some((other) => keyOf(other) === keyOf(key)));
  if (twice !== undefined) throw new RangeError(`methods (${of}): ${twice} stands in settings and in grid`);
  const count = keys.reduce((n, key) => n * grid[key]!.length, 1);
  if (count > MOST) throw new RangeError(`methods (${of}): grid: ${count} combinations, expected at most ${MOST}`);
  const all = keys.reduce<readonly Readonly<Record<string, z.output<typeof single>>>[]>(
    (rows, key) => rows.flatMap((row) => grid[key]!.map((v) => ({ ...row, [key]: v }))),
    [{}],
  );
  return all.map((values) => {
    const at = Object.fromEntries(Object.entries(values).map(([key, v]) => [key, String(v)]));
    const words = Object.entries(at).map(([key, v]) => `${key}=${v}`);
    return { name: `${of}: ${words.join(', ')}`, settings: { ...settings, ...values } as Settings, cell: { of, at } };
  });
}

/**
 * An experiment from the text of its file.
 * @throws RangeError in one line: the field, what it is, what was expected
 */
export function parseExperiment(text: string): Experiment {
  const document = parseDocument(text, { uniqueKeys: true });
  const [error] = document.errors;
  if (error) throw new RangeError(`line ${error.linePos?.[0].line ?? '?'}: ${error.message.split('\n')[0]!}`);
  const found = experimentSchema.safeParse(document.toJS({ maxAliasCount: 100 }));
  if (!found.success) {
    const { path: where, message } = found.error.issues[0]!;
    throw new RangeError(`${where.map(String).join('.') || 'the file'}: ${message}`);
  }
  const { methods: given, seeds, ...e } = found.data;
  const methods = given.flatMap((m, i) => variantsOf(m).map((variant) => ({ ...variant, i })));
  if (methods.length > MOST)
    throw new RangeError(`methods: ${methods.length} with their grids, expected at most ${MOST}`);
  const repeated = <T>(all: readonly T[]) => all.find((x, i) => all.indexOf(x) !== i);
  const twice = repeated(methods.map((m) => slugOf(m.name))) ?? repeated(seeds);
  if (twice !== undefined)
    throw new RangeError(`${typeof twice === 'number' ? 'seeds' : 'methods'}: ${twice} stands twice`);
  const against = e.against ?? methods[0]!.name;
  if (!methods.some((m) => m.name === against)) throw new RangeError(`against: there is no method ${against}`);
  const shared = settingsOf(e.settings, 'settings');
  const arms = methods.map(({ i, ...m }): Arm => {
    const all = { ...shared, ...settingsOf(m.settings, `methods.${i}.settings`) };
    try {
      return { name: m.name, given: all, config: resolveConfig(all), ...(m.cell ? { cell: m.cell } : {}) };
    } catch (error) {
      if (error instanceof RangeError) throw new RangeError(`methods.${i} (${m.name}): ${error.message}`);
      throw error;
    }
  });
  const { trainingPairs, scores } = e;
  return {
    name: e.name,
    arms,
    seeds,
    against,
    ...(trainingPairs === undefined ? {} : { trainingPairs }),
    ...(scores === undefined ? {} : { scores }),
  };
}

/** Most bytes of an experiment's file. */
const LIMIT = 1e6;
/** @throws FileError naming the file and what is wrong with it */
export async function readExperiment(file: string): Promise<Experiment> {
  const text = await readFile(file, 'utf8').catch((error) => {
    throw asFileError(error, file);
  });
  if (text.length > LIMIT) throw new FileError(file, 'file', 'is longer than 1 MB, and no experiment is');
  try {
    return parseExperiment(text);
  } catch (error) {
    if (error instanceof RangeError) throw new FileError(file, 'experiment', error.message);
    throw error;
  }
}

/** A name as a folder: lower case, dashes for what is no letter or digit. */
export const slugOf = (text: string): string =>
  text
    .toLowerCase()
    .normalize('NFKD')
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '') || 'method';

/** One run of an experiment; its number is its place in the array of runs. */
export type Run = { readonly arm: Arm; readonly seed: number; readonly folder: string; readonly number: number };
/** All of them: seed by seed, so that a first comparison is there early. */
export const runsOf = (e: Experiment, folder: string): readonly Run[] =>
  e.seeds
    .flatMap((seed) => e.arms.map((arm) => ({ arm, seed })))
    .map(({ arm, seed }, number) => ({
      arm,
      seed,
      number,
      folder: path.join(folder, 'runs', `${slugOf(arm.name)}-seed-${seed}`),
    }));
