/** An adapter: ranks, scales and how much it changes each module, with the paper's rank maps, from the file alone. */
import path from 'node:path';
import { checkAdapter } from '../../models/io/adapter-check.ts';
import { type AdapterFile, type AdapterModule, readAdapter } from '../../models/io/adapter-file.ts';
import { type RunFacts, runOf } from '../../models/io/adapter-run.ts';
import { frobenius, sizeOfAdapter } from '../../models/io/adapter-size.ts';
import { makeFolders, writeFileAtomic } from '../../models/io/atomic.ts';
import { type Base, openBase } from '../../models/io/base.ts';
import { asFileError, FileError, printable } from '../../models/io/error.ts';
import type { Part } from '../../models/names.ts';
import { bars, commas, histogram, printFacts, table } from '../cli/columns.ts';
import { type Io, print } from '../cli/command.ts';
import { SMALL_BASE } from '../model/paths.ts';
import { layout } from '../report/charts/modules.ts';
import { number } from '../words/format.ts';
import { textRankMaps } from '../words/progress.ts';

export type AdapterView = {
  /** The model it belongs to, for ‖ΔW‖/‖W‖. */
  readonly base?: string | undefined;
  /** The base is the one that a run names: where it is another by now, the adapter is shown alone. */
  readonly named?: boolean;
  /** Folder for the maps as SVG. */
  readonly svg?: string;
  /** All modules instead of the most changed ones. */
  readonly all?: boolean;
};

/** One line of the module table. `change` = ‖ΔW‖/‖W‖, where the base is known. */
type Row = {
  readonly path: string;
  readonly module: AdapterModule;
  readonly norm: number;
  readonly usedRanks: number;
  readonly change?: number;
};

const SHOWN = 20;

/** The shipped base, where the header's hash says that it is the adapter's. */
async function shippedBase(run: RunFacts | undefined): Promise<Base | undefined> {
  if (run === undefined) return undefined;
  const shipped = await openBase(SMALL_BASE).catch(() => undefined);
  return shipped !== undefined && (await shipped.hash()) === run.baseHash ? shipped : undefined;
}

async function rowsOf({ modules }: AdapterFile, base: Base | undefined): Promise<readonly Row[]> {
  const rows: Row[] = [];
  for (const [name, module] of modules) {
    const row = { path: name, module, ...sizeOfAdapter(module) };
    if (base === undefined) {
      rows.push(row);
      continue;
    }
    const dot = name.indexOf('.');
    const weight = base.parts[name.slice(0, dot) as Part].get(`${name.slice(dot + 1)}.weight`);
    rows.push({ ...row, change: row.norm / frobenius(await weight.read()) });
  }
  return rows;
}

const spread = (values: readonly number[]): string => {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return low === high ? number(low) : `${number(low)} … ${number(high)}`;
};

function adapterFacts(rows: readonly Row[]): readonly (readonly [string, string | undefined])[] {
  const ranks = rows.map(({ module }) => module.rank);
  const total = ranks.reduce((a, b) => a + b, 0);
  const parameters = rows.reduce((sum, { module: m }) => sum + m.rank * (m.dIn + m.dOut), 0);
  const inPart = (part: Part) => rows.filter((row) => row.path.startsWith(`${part}.`)).length;
  const zero = rows.filter(({ norm }) => norm === 0).length;
  const changes = rows.flatMap(({ change }) => (change === undefined ? [] : [change]));
  const whole = Math.sqrt(rows.reduce((sum, { norm }) => sum + norm ** 2, 0));
  return [
    ['modules', `${commas(rows.length)}: ${inPart('unet')} U-Net, ${inPart('text_encoder')} text encoder`],
    ['rank', `total ${commas(total)}, mean ${(total / rows.length).toFixed(2)}, ${spread(ranks)}`],
    ['parameters', commas(parameters)],
    ['scale', spread(rows.map(({ module }) => module.scale))],
    ['alpha', spread(rows.map(({ module }) => module.scale * module.rank))],
    ['‖ΔW‖', `${number(whole)} in all, ${spread(rows.map(({ norm }) => norm))} by module`],
    ['‖ΔW‖/‖W‖', changes.length > 0 ? spread(changes) : 'unknown: name the model with --base'],
    ['unchanged', zero > 0 ? `${zero} of ${rows.length} modules have ΔW = 0` : undefined],
  ];
}

function runFactsOf(run: RunFacts): readonly (readonly [string, string | undefined])[] {
  const { lambda, testEvery } = run;
  return [
    ['method', `${run.method}, ${commas(run.steps)} steps, s = ${run.scale}, Kaiming a = ${number(run.initA)}`],
    ['test', lambda === null ? undefined : `ratio > ${lambda} every ${testEvery ?? '?'} steps`],
    ['base', `SHA-256 ${run.baseHash}`],
  ];
}

/** Expansions over the run as bars, and the modules that grew most. */
function printHistory({ rankHistory, steps }: RunFacts, io: Io): void {
  if (rankHistory.length === 0) return;
  const end = Math.max(steps, ...rankHistory.map(({ step }) => step)) + 1;
  const ratios = rankHistory.flatMap(({ ratio }) => (ratio === null ? [] : [ratio]));
  print(io, `  expansions ${commas(rankHistory.length)}${ratios.length > 0 ? `, FI ratio ${spread(ratios)}` : ''}`);
  const parts = histogram(
    rankHistory.map(({ step }) => [step, 1] as const),
    end,
    60,
  );
  print(io, `  step 0 ${bars(parts)} ${end - 1}`);
}

function printModules(rows: readonly Row[], all: boolean, io: Io): void {
  const size = (row: Row) => row.change ?? row.norm;
  const sorted = all ? rows : [...rows].sort((a, b) => size(b) - size(a)).slice(0, SHOWN);
  const head = ['  module', 'rank', 'used', 'scale', 'alpha', '‖ΔW‖', '‖ΔW‖/‖W‖', 'in → out'];
  const lines = sorted.map(({ path: name, module: m, norm, usedRanks, change }) => [
    `  ${printable(name)}`,
    String(m.rank),
    usedRanks.toFixed(1),
    number(m.scale),
    number(m.scale * m.rank),
    number(norm),
    change === undefined ? '–' : number(change),
    `${m.dIn} → ${m.dOut}${m.kernel ? ` (${m.kernel.join('×')})` : ''}`,
  ]);
  for (const line of table([head, ...lines], [1, 2, 3, 4, 5, 6])) print(io, line);
  if (sorted.length < rows.length)
    print(io, `  the ${SHOWN} most changed of ${rows.length} modules; --all shows them all`);
}

async function writeMaps(folder: string, rows: readonly Row[], io: Io): Promise<void> {
  const { drawChangeMaps, rankHeatMaps } = await import('../report/charts/heatmap.ts');
  const { standalone } = await import('../report/charts/svg.ts');
  const ranks = rankHeatMaps(new Map(rows.map(({ path: name, module }) => [name, module.rank])));
  const relative = rows.every(({ change }) => change !== undefined);
  const sizes = drawChangeMaps(
    layout(rows.map(({ path: name, change, norm }) => [name, change ?? norm] as const)),
    relative ? '‖ΔW‖/‖W‖' : '‖ΔW‖',
  );
  const files = [
    ['rank-unet.svg', ranks.unet],
    ['rank-text-encoder.svg', ranks.text],
    ['change-unet.svg', sizes.unet && standalone(sizes.unet)],
    ['change-text-encoder.svg', sizes.text && standalone(sizes.text)],
  ] as const;
  await makeFolders(folder).catch((error) => {
    throw asFileError(error, folder);
  });
  for (const [name, svg] of files) {
    if (svg === undefined) continue;
    await writeFileAtomic(path.join(folder, name), svg);
    print(io, `  written ${path.join(folder, name)}`);
  }
}

/**
 * Prints an adapter's ranks, scales, changes and maps.
 * @throws FileError naming file and module, also where it does not fit the base
 */
export async function inspectAdapter(location: string, view: AdapterView, io: Io): Promise<void> {
  const there = view.base === undefined ? undefined : await openBase(view.base);
  const read = await readAdapter(location, there?.configs);
  const run = runOf(read, location);
  const other = run !== undefined && there !== undefined && run.baseHash !== (await there.hash());
  const told = other && view.named ? undefined : there;
  const base = told ?? (await shippedBase(run));
  const adapter = base === undefined ? read : checkAdapter(location, read, base.parts);
  if (adapter.modules.size === 0) throw new FileError(location, 'modules', 'it adapts nothing');
  const rows = await rowsOf(adapter, base);
  printFacts(io, `adapter ${printable(location)}`, [
    ...adapterFacts(rows),
    ...(run ? runFactsOf(run) : []),
    ['compared with', base && printable(base.path)],
  ]);
  for (const note of read.notes ?? []) print(io, `  ${note}`);
  if (other)
    print(
      io,
      told
        ? '  note: it was trained on another base than the one it is compared with'
        : `  note: it was trained on another base than what lies in ${printable(there!.path)} now: shown alone`,
    );
  if (run) printHistory(run, io);
  print(io);
  print(io, textRankMaps(new Map(rows.map(({ path: name, module }) => [name, module.rank])), io.stdout.columns ?? 100));
  print(io);
  printModules(rows, view.all === true, io);
  if (view.svg !== undefined) await writeMaps(view.svg, rows, io);
}
