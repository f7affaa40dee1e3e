/**
 * Checks this implementation against directories of golden numbers (see train/verify/README.md for their form):
 *
 *   npm run verify -- ../shared/golden --backend all
 *   npm run verify -- my-numbers --only ops,selora --backend wasm --all
 *
 * A backend with f64 (cpu) is held to f64's tolerances, the others to those of f32. Exit code 1 when a case fails.
 */
import { statSync } from 'node:fs';
import { Argument, Option } from 'commander';
import { type Backend, backendNames, CoreError } from '../core/index.ts';
import { FileError, printable } from '../models/io/error.ts';
import { command, type Io, type Main, openChosen, print, runMain, UsageError, wholeNumber } from './cli/command.ts';
import type { GoldenCase } from './verify/golden.ts';
import {
  baseFor,
  CHECK_NAMES,
  type CheckName,
  checksFor,
  type GoldenCheck,
  missingIn,
  uncheckedIn,
} from './verify/index.ts';

const CHOICES = ['auto', 'all', ...backendNames] as const;
type Options = {
  readonly backend: (typeof CHOICES)[number];
  readonly only?: readonly CheckName[];
  readonly base?: string;
  readonly all: boolean;
  readonly threads?: number;
};

/** `ops,models` → check names. @throws UsageError */
function parseOnly(text: string): CheckName[] {
  return text.split(',').map((part) => {
    const name = CHECK_NAMES.find((n) => n === part.trim());
    if (!name) throw new UsageError(`--only ${part.trim()}: no such check, expected some of ${CHECK_NAMES.join(', ')}`);
    return name;
  });
}

/** What came of one check on one backend. */
type Outcome = { readonly cases: readonly GoldenCase[]; readonly failure?: string };

/** How much of its tolerance an error uses up; an error where none is allowed counts as ∞. */
const share = ({ error, tolerance }: GoldenCase): number => (error === 0 ? 0 : error / tolerance);
const passes = (c: GoldenCase): boolean => c.error <= c.tolerance;

async function collect(cases: AsyncIterable<GoldenCase>): Promise<Outcome> {
  const done: GoldenCase[] = [];
  try {
    for await (const c of cases) done.push(c);
    return { cases: done };
  } catch (error) {
    if (error instanceof Error) return { cases: done, failure: error.message };
    throw error;
  }
}

const COLUMNS = [12, 8, 7, 9, 9] as const;
const row = (cells: readonly (string | number)[], rest: string): string =>
  `${cells.map((cell, i) => (i < 2 ? String(cell).padEnd(COLUMNS[i]!) : String(cell).padStart(COLUMNS[i]!))).join(' ')}  ${printable(rest, Number.POSITIVE_INFINITY)}`;
const figure = (x: number): string => (x === 0 ? '0' : Number.isFinite(x) ? x.toExponential(1) : '∞');

/** Prints a check's worst case (all with --all, every failure always) and returns the number of failures. */
function report(io: Io, check: GoldenCheck, place: string, { cases, failure }: Outcome, all: boolean): number {
  const failed = cases.filter((c) => !passes(c));
  const worst = cases.reduce<GoldenCase | undefined>((a, b) => (a && share(a) >= share(b) ? a : b), undefined);
  const line = (c: GoldenCase, count: string | number) =>
    print(
      io,
      row(
        [check.name, place, count, figure(c.error), figure(c.tolerance)],
        `${passes(c) ? 'ok  ' : 'FAIL'}  ${c.case} (${c.why})`,
      ),
    );
  if (all) for (const c of cases) line(c, '');
  else for (const c of failed) line(c, '');
  if (worst && failed.length === 0) line(worst, cases.length);
  if (failed.length > 0)
    print(io, row([check.name, place, cases.length, '', ''], `FAIL  ${failed.length} of ${cases.length} cases`));
  if (failure !== undefined) print(io, row([check.name, place, cases.length, '', ''], `FAIL  ${failure}`));
  return failed.length + (failure === undefined ? 0 : 1);
}

const main: Main = async (args, io) => {
  const program = command(
    'verify',
    'Checks this implementation against numbers computed by a reference (PyTorch).',
    [
      '../shared/golden',
      '../shared/golden ../shared/golden2 --backend all',
      'DIR --only ops,selora --backend wasm --all',
    ],
    io,
  )
    .addArgument(new Argument('<directories...>', 'folders of golden numbers'))
    .addOption(
      new Option('--backend <name>', 'where to compute; all: one after the other').choices(CHOICES).default('auto'),
    )
    .addOption(new Option('--only <names>', `some of ${CHECK_NAMES.join(',')}`).argParser(parseOnly))
    .addOption(new Option('--base <folder>', 'the model that interchange/ was made for (default: tiny-sd of a set)'))
    .addOption(new Option('--all', 'print every case, not only the worst of each check').default(false))
    .addOption(new Option('--threads <n>', 'threads of the wasm backend').argParser(wholeNumber(1, 256)));
  const directories = program.parse([...args], { from: 'user' }).args;
  const options = program.opts<Options>();
  for (const directory of directories)
    if (!statSync(directory, { throwIfNoEntry: false })?.isDirectory())
      throw new FileError(directory, '', 'is not a folder of golden numbers');

  print(io, row(['check', 'backend', 'cases', 'error', 'allowed'], '      worst case (why this much is allowed)'));
  let failures = 0;
  let cases = 0;
  const tell = async (
    check: GoldenCheck,
    place: string,
    run: (base: string) => AsyncIterable<GoldenCase>,
    directory: string,
  ) => {
    const base = options.base ?? baseFor(directory, directories);
    if (check.needsBase && base === undefined) {
      print(
        io,
        row([check.name, place, 0, '', ''], 'not checked: give the model interchange/ was made for with --base'),
      );
      return;
    }
    io.signal.throwIfAborted();
    const outcome = await collect(run(base ?? ''));
    failures += report(io, check, place, outcome, options.all);
    cases += outcome.cases.length;
  };
  for (const directory of directories) {
    const checks = checksFor(directory, options.only);
    const missing = missingIn(directory, options.only);
    if (checks.length === 0 && missing.length === 0)
      throw new FileError(directory, '', `holds no files for ${options.only ? options.only.join(', ') : 'any check'}`);
    if (directories.length > 1) print(io, `\n${printable(directory)}`);
    for (const { name, lacks } of missing)
      print(io, row(['', '', 0, '', ''], `FAIL  ${name} cannot be checked without ${lacks}`));
    failures += missing.length;
    for (const check of checks)
      if (check.on === 'host') await tell(check, 'host', (base) => check.run(directory, base), directory);
    for (const name of options.backend === 'all' ? backendNames : [options.backend]) {
      const here = checks.filter((c) => c.on === 'backend');
      if (here.length === 0) continue;
      let backend: Backend;
      try {
        backend = await openChosen({
          backend: name,
          ...(options.threads === undefined ? {} : { threads: options.threads }),
        });
      } catch (error) {
        // with `all`, one backend that cannot run here does not keep the others from being checked
        if (options.backend !== 'all' || !(error instanceof CoreError)) throw error;
        print(io, row(['', name, 0, '', ''], `FAIL  ${error.message}`));
        failures++;
        continue;
      }
      for (const check of here)
        if (check.on === 'backend')
          await tell(check, backend.name, (base) => check.run(directory, backend, base), directory);
      await backend.close();
    }
    const rest = await uncheckedIn(directory);
    if (rest.length > 0 && !options.only)
      print(io, printable(`no check yet for: ${rest.join(', ')}`, Number.POSITIVE_INFINITY));
  }
  if (failures > 0) throw new UsageError(`${failures} of ${cases} comparisons failed`);
  if (cases === 0) throw new UsageError('nothing was compared');
  print(io, `\nall ${cases} comparisons within their tolerance`);
};

await runMain(import.meta, main);

export { main };
