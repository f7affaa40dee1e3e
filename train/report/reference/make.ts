/**
 * npx tsx train/report/reference/make.ts RUN NAME
 *
 * Writes NAME.json beside this file from the finished run in the folder RUN: what `reference.ts` reads.
 */
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { readAdapter } from '../../../models/io/adapter-file.ts';
import { runOf } from '../../../models/io/adapter-run.ts';
import { writeFileAtomic } from '../../../models/io/atomic.ts';
import { FileError } from '../../../models/io/error.ts';
import { labelOf } from '../../../selora/methods/registry.ts';
import { print, runMain, UsageError } from '../../cli/command.ts';
import { readRun } from '../../run/read.ts';
import { trainedParameters } from '../../run/record.ts';
import { methodName } from '../../words/format.ts';
import { type Reference, referenceSchema } from './reference.ts';

/** Settings that tell where a run lay and on what it ran. */
const ELSEWHERE: ReadonlySet<string> = new Set(['base', 'threads', 'backend', 'compare']);

/**
 * A finished run of the built-in pairs as a reference.
 * @throws FileError where it is none
 */
export async function referenceOf(folder: string): Promise<Reference> {
  const run = await readRun(folder, false);
  const file = path.join(folder, 'adapter.safetensors');
  const made = runOf(await readAdapter(file), file);
  const data = run.data?.splits.find((s) => s.name === 'train')?.hash;
  const parameters = trainedParameters(run);
  if (run.settings.data !== 'phantoms' || run.unfinished || made === undefined || parameters === undefined || !data)
    throw new FileError(folder, '', 'is no finished run of the built-in pairs');
  const obedience = run.results.obedience as { what: string; rows: { method: string }[] } | undefined;
  const own = obedience?.rows.filter((r) => r.method === run.method);
  return referenceSchema.parse({
    command: run.command.replace(/ --(?:out|threads|backend) \S+/g, '').replace(/ --$/, ''),
    version: run.environment.find((f) => f.label === 'selora-ts')?.value ?? '',
    date: (await stat(file)).mtime.toISOString().slice(0, 10),
    base: made.baseHash,
    data,
    settings: Object.fromEntries(Object.entries(run.settings).filter(([key]) => !ELSEWHERE.has(key))),
    label: labelOf(run.method, run.settings as never) ?? methodName(run.method),
    method: run.method,
    parameters,
    validations: run.validations,
    results: own && own.length > 0 ? { obedience: { what: obedience!.what, rows: own } } : {},
  });
}

await runMain(import.meta, async ([folder, name, ...rest], io) => {
  if (folder === undefined || name === undefined || rest.length > 0 || !/^[a-z0-9-]+$/.test(name))
    throw new UsageError('expected the folder of a run and a name: make.ts runs/lora lora');
  const file = path.join(import.meta.dirname, `${name}.json`);
  await writeFileAtomic(file, `${JSON.stringify(await referenceOf(folder), null, 1)}\n`, { public: true });
  print(io, file);
});
