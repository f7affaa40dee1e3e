/** Finished runs beside this one in the report: their validation curves and what their pictures obeyed. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { FileError } from '../../models/io/error.ts';
import { parseJson, readJson } from '../../models/io/json.ts';
import { labelOf } from '../../selora/methods/registry.ts';

const score = z.object({ question: z.string(), right: z.int(), n: z.int() });
const obedienceSchema = z.object({
  rows: z.array(z.object({ method: z.string(), parameters: z.int().optional(), scores: z.array(score) })),
});
const configSchema = z.object({ method: z.string(), rank: z.int() });
const rowSchema = z.object({
  step: z.int(),
  validation: z.object({ loss: z.number().nullable(), shuffled: z.number().nullable() }).optional(),
});

export interface Comparison {
  readonly method: string;
  readonly parameters?: number;
  readonly validation: readonly { readonly step: number; readonly loss: number; readonly shuffled: number }[];
  /** this method's row of its own obedience table */
  readonly scores?: readonly { readonly question: string; readonly right: number; readonly n: number }[];
}

const MB = 2 ** 20;
function parsed<T>(schema: z.ZodType<T>, value: unknown, file: string): T {
  const r = schema.safeParse(value);
  if (r.success) return r.data;
  throw new FileError(file, r.error.issues[0]!.path.join('.') || 'content', r.error.issues[0]!.message);
}

/** What another run folder says of itself. @throws FileError naming the file that is missing or broken */
export async function readComparison(folder: string): Promise<Comparison> {
  const config = parsed(
    configSchema,
    await readJson(path.join(folder, 'config.json'), MB),
    path.join(folder, 'config.json'),
  );
  const file = path.join(folder, 'metrics.jsonl');
  const lines = await readFile(file, 'utf8').catch(() => {
    throw new FileError(file, 'file', 'cannot be read: is this a run folder?');
  });
  const validation = lines
    .split('\n')
    .filter((l) => l.includes('"validation"'))
    .flatMap((l) => {
      const row = parsed(rowSchema, parseJson(l, file), file);
      return row.validation
        ? [{ step: row.step, loss: row.validation.loss ?? Number.NaN, shuffled: row.validation.shuffled ?? Number.NaN }]
        : [];
    });
  const name = labelOf(config.method, config) ?? `${config.method} (${path.basename(folder)})`;
  const obedience = await readJson(path.join(folder, 'obedience.json'), MB).catch(() => undefined);
  const own =
    obedience === undefined
      ? undefined
      : parsed(obedienceSchema, obedience, path.join(folder, 'obedience.json')).rows.find(
          (r) => r.method === config.method,
        );
  return {
    method: name,
    validation,
    ...(own?.parameters === undefined ? {} : { parameters: own.parameters }),
    ...(own ? { scores: own.scores } : {}),
  };
}
