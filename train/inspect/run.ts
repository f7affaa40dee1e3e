/** A run folder: its settings, how far it came, its split, and its adapter. */
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { openBase } from '../../models/io/base.ts';
import { FileError, printable } from '../../models/io/error.ts';
import { decodeText, type Json, parseJson, readBytes, readJson } from '../../models/io/json.ts';
import { type Io, print } from '../cli/command.ts';
import { commas, printFacts } from '../cli/table.ts';
import { readSplit, SPLITS } from '../data/split.ts';
import { CONFIG_FILE } from '../run/folder.ts';
import { METRICS_FILE } from '../run/metrics.ts';
import { duration, number } from '../words/format.ts';
import { type AdapterView, inspectAdapter } from './adapter.ts';

/** The adapter a run ended with, else the best so far of one that is not over. */
const ADAPTERS = ['adapter.safetensors', 'best.safetensors'];
const MAX_METRICS = 2 ** 30;

const rowSchema = z.looseObject({
  step: z.int().min(0),
  loss: z.number().optional(),
  seconds: z.number().optional(),
  totalRank: z.int().optional(),
  validation: z.looseObject({ loss: z.number() }).optional(),
});
type Row = z.output<typeof rowSchema>;

/** All finished lines of `metrics.jsonl`. @throws FileError naming line and field */
async function readRows(file: string): Promise<readonly Row[]> {
  const lines = decodeText(await readBytes(file, MAX_METRICS), file).split('\n');
  // What follows the last line break is being written, or was when the run was killed.
  return lines.slice(0, -1).map((line, i) => {
    const result = rowSchema.safeParse(parseJson(line, file, { field: `line ${i + 1}` }));
    if (result.success) return result.data;
    const [issue] = result.error.issues;
    throw new FileError(file, [`line ${i + 1}`, ...issue.path.map(String)].join('.'), printable(issue.message));
  });
}

const settings = (config: Json): string =>
  Object.entries(typeof config === 'object' && config !== null ? config : {})
    .filter(([, value]) => value !== null && typeof value !== 'object')
    .map(([key, value]) => `${key} ${value}`)
    .join(', ');

/** The base a run says it used, if it is still there. */
async function baseOf(config: Json): Promise<string | undefined> {
  const base = typeof config === 'object' && config !== null && 'base' in config ? config.base : undefined;
  if (typeof base !== 'string') return undefined;
  return openBase(base).then(
    () => base,
    () => undefined,
  );
}

function progressFacts(rows: readonly Row[]): readonly (readonly [string, string | undefined])[] {
  const last = rows.at(-1);
  if (last === undefined) return [['steps', 'none yet']];
  const validations = rows.flatMap((row) => (row.validation ? [{ step: row.step, loss: row.validation.loss }] : []));
  const best = validations.reduce<(typeof validations)[number] | undefined>(
    (low, v) => (low === undefined || v.loss < low.loss ? v : low),
    undefined,
  );
  const rank = rows.findLast((row) => row.totalRank !== undefined)?.totalRank;
  return [
    ['steps', `${commas(last.step)}${last.seconds === undefined ? '' : ` in ${duration(last.seconds)}`}`],
    ['loss', last.loss === undefined ? undefined : number(last.loss)],
    ['validation', best && `best ${number(best.loss, 4)} after step ${commas(best.step)}, of ${validations.length}`],
    ['total rank', rank === undefined ? undefined : commas(rank)],
  ];
}

/**
 * Prints a run folder, its adapter included.
 * @throws FileError naming file and field of what cannot be read
 */
export async function inspectRun(folder: string, view: AdapterView, io: Io): Promise<void> {
  const names = await readdir(folder);
  const config = await readJson(path.join(folder, CONFIG_FILE));
  const rows = await readRows(path.join(folder, METRICS_FILE));
  const split = names.includes('split.json') ? await readSplit(path.join(folder, 'split.json')) : undefined;
  printFacts(io, `run ${printable(folder)}`, [
    ...progressFacts(rows),
    ['pairs', split && SPLITS.map((name) => `${name} ${commas(split[name].length)}`).join(', ')],
    ['report', names.includes('report.html') ? printable(path.join(folder, 'report.html')) : undefined],
    ['settings', printable(settings(config), 2000)],
  ]);
  print(io);
  const adapter = ADAPTERS.find((name) => names.includes(name));
  if (adapter === undefined) print(io, 'no adapter yet: it is written at the first validation and at the end');
  else await inspectAdapter(path.join(folder, adapter), { ...view, base: view.base ?? (await baseOf(config)) }, io);
}
