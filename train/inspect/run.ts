/** A run folder: its settings, how far it came, its split, and its adapter. */
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { openBase } from '../../models/io/base.ts';
import { printable } from '../../models/io/error.ts';
import type { Json } from '../../models/io/json.ts';
import { commas, printFacts } from '../cli/columns.ts';
import { type Io, print } from '../cli/command.ts';
import { readSplit, SPLITS } from '../data/split.ts';
import { readRun } from '../run/read.ts';
import { bestValidation, type RunRecord } from '../run/record.ts';
import { duration, number } from '../words/format.ts';
import { type AdapterView, inspectAdapter } from './adapter.ts';

/** The adapter a run ended with, else the best so far of one that is not over. */
const ADAPTERS = ['adapter.safetensors', 'best.safetensors'];

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

function progressFacts({ metrics, validations }: RunRecord): readonly (readonly [string, string | undefined])[] {
  const last = metrics.at(-1);
  if (last === undefined) return [['steps', 'none yet']];
  const lowest = bestValidation(validations);
  const rank = metrics.findLast((row) => row.totalRank !== undefined)?.totalRank;
  return [
    ['steps', `${commas(last.step)}${last.seconds === undefined ? '' : ` in ${duration(last.seconds)}`}`],
    ['loss', Number.isNaN(last.loss) ? undefined : number(last.loss)],
    [
      'validation',
      lowest && `best ${number(lowest.loss, 4)} after step ${commas(lowest.step)}, of ${validations.length}`,
    ],
    ['total rank', rank === undefined ? undefined : commas(rank)],
  ];
}

/**
 * Prints a run folder, its adapter included.
 * @throws FileError naming file and field of what cannot be read
 */
export async function inspectRun(folder: string, view: AdapterView, io: Io): Promise<void> {
  const names = await readdir(folder);
  const run = await readRun(folder, false);
  const split = names.includes('split.json') ? await readSplit(path.join(folder, 'split.json')) : undefined;
  printFacts(io, `run ${printable(folder)}`, [
    ...progressFacts(run),
    ['pairs', split && SPLITS.map((name) => `${name} ${commas(split[name].length)}`).join(', ')],
    ['report', names.includes('report.html') ? printable(path.join(folder, 'report.html')) : undefined],
    ['settings', printable(settings(run.settings), 2000)],
  ]);
  print(io);
  const adapter = ADAPTERS.find((name) => names.includes(name));
  if (adapter === undefined) print(io, 'no adapter yet: it is written at the first validation and at the end');
  else
    await inspectAdapter(
      path.join(folder, adapter),
      view.base === undefined ? { ...view, base: await baseOf(run.settings), named: true } : view,
      io,
    );
}
