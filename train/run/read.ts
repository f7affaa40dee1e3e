/** The one reader of run folders: for the report, `--compare`, `inspect`, and whatever looks at runs later. */
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { asFileError, FileError, printable } from '../../models/io/error.ts';
import { type Json, readJson } from '../../models/io/json.ts';
import { labelOf, methodNames, methodOf } from '../../selora/methods/registry.ts';
import { CONFIG_FILE } from './folder.ts';
import { type Compared, type Facts, factsSchema, type RunRecord, sampleSchema, trainedParameters } from './record.ts';
import { rowLog } from './row-log.ts';
import { readRows } from './rows.ts';

export const FACTS_FILE = 'facts.json';
export const SAMPLES_FILE = 'samples/samples.json';
/** A metric's result, beside the settings. */
export const resultFile = (metric: string): string => `${metric}.json`;

const MB = 2 ** 20;
/** What the reader itself needs of the settings; all of them are kept. */
const settingsSchema = z.looseObject({
  method: z.string(),
  rank: z.int().optional(),
  lambda: z.number().optional(),
  testEvery: z.int().optional(),
  compare: z.array(z.string()).optional(),
});

function parsed<T>(schema: z.ZodType<T>, value: unknown, file: string): T {
  const r = schema.safeParse(value);
  if (r.success) return r.data;
  const [issue] = r.error.issues;
  throw new FileError(file, issue!.path.map(String).join('.') || 'content', printable(issue!.message));
}

/** A JSON file of the folder; undefined where there is none. */
async function optional<T>(folder: string, name: string, names: readonly string[], schema: z.ZodType<T>) {
  if (!names.includes(path.dirname(name) === '.' ? name : path.dirname(name))) return undefined;
  const file = path.join(folder, name);
  const value = await readJson(file, 64 * MB).catch((error: FileError) => {
    if (path.dirname(name) !== '.' && (error.cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT')
      return undefined;
    throw error;
  });
  return value === undefined ? undefined : parsed(schema, value, file);
}

/** Not results of metrics. */
const OTHER_FILES: ReadonlySet<string> = new Set([CONFIG_FILE, FACTS_FILE, 'split.json']);

/**
 * Everything a run folder tells, typed; rows of the metrics are read as a stream. Cost: one pass over `metrics.jsonl`.
 * @param compare whether the runs of `--compare` are read, too
 * @param bytes how much of `metrics.jsonl` is read, where a run goes on
 * @throws FileError naming the file that is missing or broken, its line and field
 * @example (await readRun('runs/first')).validations.at(-1)
 */
export async function readRun(folder: string, compare = true, bytes?: number): Promise<RunRecord> {
  const config = await readJson(path.join(folder, CONFIG_FILE), MB);
  const settings = parsed(settingsSchema, config, path.join(folder, CONFIG_FILE));
  const names = await readdir(folder).catch((error) => {
    throw asFileError(error, folder);
  });
  if (!names.includes('metrics.jsonl'))
    throw new FileError(path.join(folder, 'metrics.jsonl'), 'file', 'cannot be read: is this a run folder?');
  const log = rowLog();
  for await (const row of readRows(folder, bytes)) log.add(row);
  const facts: Facts = (await optional(folder, FACTS_FILE, names, factsSchema)) ?? factsSchema.parse({});
  const samples = await optional(folder, SAMPLES_FILE, names, z.array(sampleSchema));
  const results: Record<string, Json> = {};
  for (const name of names)
    if (/^[a-z][a-z0-9-]*\.json$/.test(name) && !OTHER_FILES.has(name))
      results[name.slice(0, -'.json'.length)] = await readJson(path.join(folder, name), 64 * MB);
  return {
    ...facts,
    name: path.basename(path.resolve(folder)),
    folder,
    method: settings.method,
    ...testsOf(settings),
    settings: config as Record<string, Json>,
    ...log.rows(),
    // a run that goes on for longer than it was first meant to has those of its former end
    ...(facts.unfinished ? { samples: [], results: {} } : { samples: samples ?? [], results }),
    compared: compare ? await Promise.all((settings.compare ?? []).map(readComparison)) : [],
  };
}

/** Threshold and distance of a method's tests; nothing where it has none, or is not known here. */
function testsOf({
  method,
  lambda,
  testEvery,
}: z.output<typeof settingsSchema>): Pick<RunRecord, 'lambda' | 'testEvery'> {
  if (lambda === undefined || testEvery === undefined || !methodNames.some((name) => name === method)) return {};
  const tells = methodOf(method).facts({ lambda, testEvery } as never);
  return tells.lambda === null || tells.testEvery === null ? {} : { lambda, testEvery };
}

/** What another run folder says of itself. @throws FileError naming the file that is missing or broken */
export async function readComparison(folder: string): Promise<Compared> {
  const run = await readRun(folder, false);
  if (run.metrics.length === 0) throw new FileError(path.join(folder, 'metrics.jsonl'), '', 'holds no finished row');
  const parameters = trainedParameters(run) ?? ownParameters(run);
  return {
    method: run.method,
    label: labelOf(run.method, run.settings as never) ?? `${run.method} (${run.name})`,
    validations: run.validations,
    results: run.results,
    ...(parameters === undefined ? {} : { parameters }),
  };
}

/** Parameters as an older run's obedience table has them. */
function ownParameters({ method, results }: RunRecord): number | undefined {
  const table = z.object({ rows: z.array(z.object({ method: z.string(), parameters: z.int().optional() })) });
  return table.safeParse(results.obedience).data?.rows.find((r) => r.method === method)?.parameters;
}
