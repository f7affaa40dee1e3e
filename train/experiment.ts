/**
 * npm run experiment: methods × seeds on one data set, as ordinary run folders, and one report that compares them.
 *
 *   npm run experiment -- --config train/experiment/quick.yaml
 *   npm run experiment -- --config mine.yaml --dry-run
 *
 * Runs that are finished are left alone, those that were stopped go on, so the command may be given as often as one likes.
 */
import { execFile } from 'node:child_process';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { Option } from 'commander';
import { FileError } from '../models/io/error.ts';
import { command, errorLine, type Io, parseArgs, print, runMain, UsageError, wholeNumber } from './cli/command.ts';
import { commandOf } from './cli/flags.ts';
import { compare, conclusions } from './experiment/compare.ts';
import { type Experiment, type Run, readExperiment, runsOf } from './experiment/config.ts';
import { costTable } from './experiment/costs.ts';
import { costOfExperiment, operationsOf } from './experiment/foresee.ts';
import { kubernetesJob, logOf, type Start, slurmScript, startProcess, trainArguments } from './experiment/launch.ts';
import { MEASURES } from './experiment/measures.ts';
import { checkScores, scoreMeasures, scoresOf } from './experiment/scores.ts';
import { type State, stateOf, statesOf } from './experiment/state.ts';
import { comparisonCsv, gridCsv, gridTables, latex, markdown, runsCsv, tablesOf } from './experiment/tables.ts';
import { makeRunFolder, writeRunFile } from './run/atomic.ts';
import { counted, duration } from './words/format.ts';

type Launcher = 'local' | 'slurm' | 'kubernetes';
type Options = {
  readonly config: readonly string[];
  readonly out?: string;
  readonly dryRun?: true;
  readonly report?: true;
  readonly run?: number;
  readonly atOnce: number;
  readonly launcher: Launcher;
  readonly submit?: true;
};

const program = (io: Io) =>
  command(
    'experiment',
    'Compares methods over seeds: a run for each, resumable one by one, and a report with tables and intervals.',
    [
      '--config train/experiment/quick.yaml',
      '--config mine.yaml --dry-run',
      '--config mine.yaml --at-once 2',
      '--config mine.yaml --report',
      '--config mine.yaml --launcher slurm --submit',
    ],
    io,
  )
    .requiredOption(
      '--config <file...>',
      'the experiment: name, settings, methods, seeds (YAML); of several, one after the other',
    )
    .option('--out <dir>', 'folder of the experiment (default: experiments/<name>)')
    .option('--dry-run', 'list the runs, what each would be started with, what they would cost, and stop')
    .option('--report', 'make the report of what is there, and start nothing')
    .addOption(
      new Option('--run <k>', 'one run of the list alone, as a cluster starts it').argParser(wholeNumber(0, 1e6)),
    )
    .addOption(
      new Option(
        '--at-once <n>',
        'runs beside each other here, each with its share of the cores: the same results sooner, times that say less',
      )
        .argParser(wholeNumber(1, 64))
        .default(1),
    )
    .addOption(
      new Option('--launcher <name>', 'runs here one after the other, or a file for the scheduler of a cluster')
        .choices(['local', 'slurm', 'kubernetes'])
        .default('local'),
    )
    .option('--submit', 'with a cluster: hand the file over (sbatch, kubectl apply)');

const saying = (io: Io) => ({ say: (line: string) => void io.stderr.write(`${line}\n`), signal: io.signal });

/** Every file of the report, from what the folders hold. */
async function report(e: Experiment, states: readonly State[], folder: string, io: Io): Promise<void> {
  await makeRunFolder(folder);
  const scored = e.scores && (await scoresOf(e.scores, states, folder, e.arms[0]!.config.backend, saying(io)));
  // those of pictures stand with what judges, before what counts
  const [judging, counting] = [MEASURES.filter((m) => m.better), MEASURES.filter((m) => !m.better)];
  const measures = [...judging, ...scoreMeasures(e.scores, scored ?? new Map()), ...counting];
  const rows = compare(e, states, measures);
  const flops = await operationsOf(e, folder);
  const grids = gridTables(e, rows);
  const tables = [...tablesOf(e, rows), ...grids, costTable(e, states, flops)];
  const write = (name: string, text: string) => writeRunFile(path.join(folder, name), text);
  await write('runs.csv', runsCsv(states, measures));
  await write('comparison.csv', comparisonCsv(rows));
  await write('tables.md', tables.map(markdown).join('\n'));
  await write('tables.tex', `% \\usepackage{booktabs}\n${tables.map(latex).join('\n')}`);
  const { renderExperiment } = await import('./experiment/page.ts');
  if (grids.length > 0) await write('grid.csv', gridCsv(e, rows));
  await write('report.html', await renderExperiment(e, states, flops, measures));
  for (const line of conclusions(e, rows)) print(io, line);
  const left = states.filter((s) => s.state !== 'done');
  for (const s of left)
    print(io, `missing: ${s.run.arm.name}, seed ${s.run.seed}: ${s.state === 'unfinished' ? s.why : s.state}`);
  print(io, `report ${path.join(folder, 'report.html')}`);
}

/** One run to its end. @returns what is wrong, if it did not get there */
async function finish(run: Run, start: Start, io: Io, threads?: number): Promise<string | undefined> {
  const before = await stateOf(run);
  if (before.state === 'done') return undefined;
  io.signal.throwIfAborted();
  const code = await start(trainArguments(before, threads), logOf(run), io.signal);
  io.signal.throwIfAborted();
  const after = await stateOf(run);
  return after.state === 'done' ? undefined : `ended with ${code}; its words are in ${logOf(run)}`;
}

/** All runs that are not finished, in order, so many at once. @returns how many did not get there */
async function runAll(runs: readonly Run[], start: Start, io: Io, atOnce: number): Promise<number> {
  const open = (await statesOf(runs)).filter((s) => s.state !== 'done');
  print(io, `${counted(runs.length, 'run')}, ${runs.length - open.length} of them finished before`);
  const threads = atOnce > 1 ? Math.max(1, Math.floor(availableParallelism() / atOnce)) : undefined;
  const began = performance.now();
  const queue = open.entries();
  let [ended, failed] = [0, 0];
  const worker = async () => {
    for (const [i, { run }] of queue) {
      const seconds = (performance.now() - began) / 1000;
      const left = ended === 0 ? '' : `, ${duration((seconds * (open.length - ended)) / ended)} left`;
      print(io, `${i + 1} of ${open.length}: ${run.arm.name}, seed ${run.seed}${left}`);
      const problem = await finish(run, start, io, threads);
      ended++;
      if (problem === undefined) continue;
      failed++;
      print(io, `  ${problem}`);
    }
  };
  // one that ends early, by Ctrl-C, leaves none behind
  const workers = await Promise.allSettled(Array.from({ length: atOnce }, worker));
  for (const w of workers) if (w.status === 'rejected') throw w.reason;
  return failed;
}

/** The command; `start` is how a run is started. */
export async function experiment(args: readonly string[], io: Io, start: Start = startProcess): Promise<void> {
  const { config: files, ...o } = parseArgs<Options>(program(io), args);
  const alone = (['out', 'run'] as const).find((key) => o[key] !== undefined);
  if (o.atOnce > 1 && (o.launcher !== 'local' || o.run !== undefined))
    throw new UsageError('--at-once: is for runs that are started here, all of them');
  if (files.length > 1 && alone)
    throw new UsageError(`--${alone}: belongs to one --config, and there are ${files.length}`);
  const failed: string[] = [];
  for (const config of files) {
    if (files.length > 1) print(io, config);
    try {
      await one({ ...o, config }, io, start);
    } catch (error) {
      // the others may be right; Ctrl-C is for all
      if (files.length === 1 || io.signal.aborted || !(error instanceof FileError || error instanceof UsageError))
        throw error;
      print(io, errorLine(error));
      failed.push(config);
    }
  }
  if (failed.length > 0) throw new UsageError(`${failed.join(', ')}: not done, see above`);
}

/** One file's experiment. */
type OneOptions = Omit<Options, 'config'> & { readonly config: string };
async function one(o: OneOptions, io: Io, start: Start): Promise<void> {
  const e = await readExperiment(o.config);
  const folder = o.out ?? path.join('experiments', e.name);
  const runs = runsOf(e, folder);
  // what is wrong with them is told before days of training
  if (e.scores && !o.dryRun && !o.report && o.run === undefined) await checkScores(e.scores, e.arms[0]!.config.backend);
  if (o.dryRun) {
    print(
      io,
      `${counted(e.arms.length, 'method')} × ${counted(e.seeds.length, 'seed')}: ${counted(runs.length, 'run')} under ${folder}`,
    );
    const states = await statesOf(runs);
    for (const { run, state } of states)
      print(
        io,
        `${run.number}: ${run.arm.name}, seed ${run.seed}, ${state}: ${commandOf({ ...run.arm.config, seed: run.seed })}`,
      );
    for (const line of (await costOfExperiment(e, states)).lines) print(io, line);
    return;
  }
  if (o.report) return report(e, await statesOf(runs), folder, io);
  if (o.run !== undefined) {
    const run = runs[o.run];
    if (!run) throw new UsageError(`--run ${o.run}: the experiment has runs 0 to ${runs.length - 1}`);
    const problem = await finish(run, start, io);
    if (problem !== undefined) throw new UsageError(`${run.arm.name}, seed ${run.seed}: ${problem}`);
    return;
  }
  if (o.launcher !== 'local') return hand(e, o, o.launcher, runs, folder, io);
  const failed = await runAll(runs, start, io, o.atOnce);
  await report(e, await statesOf(runs), folder, io);
  if (failed > 0) throw new UsageError(`${counted(failed, 'run')} did not finish; the same command goes on with them`);
}

/** Writes what a cluster's scheduler takes, and hands it over where asked. */
async function hand(
  e: Experiment,
  o: OneOptions,
  launcher: Exclude<Launcher, 'local'>,
  runs: readonly Run[],
  folder: string,
  io: Io,
): Promise<void> {
  const slurm = launcher === 'slurm';
  const file = path.join(folder, slurm ? 'array.sbatch' : 'job.yaml');
  await makeRunFolder(path.join(folder, 'logs'));
  await writeRunFile(file, (slurm ? slurmScript : kubernetesJob)(e, o.config, runs, folder));
  print(io, `${file}: ${counted(runs.length, 'task')}; read it, change what your cluster wants, then`);
  const words = slurm ? ['sbatch', file] : ['kubectl', 'apply', '-f', file];
  const after = `npm run experiment -- --config ${o.config}${o.out === undefined ? '' : ` --out ${o.out}`} --report`;
  if (!o.submit) return print(io, `  ${words.join(' ')}\n  ${after}`);
  const { stdout } = await promisify(execFile)(words[0]!, words.slice(1)).catch(
    (error: NodeJS.ErrnoException & { stderr?: string }) => {
      throw new UsageError(
        error.code === 'ENOENT'
          ? `${words[0]} is not on this machine`
          : `${words.join(' ')}: ${error.stderr?.trim() || error.message}`,
      );
    },
  );
  print(io, `${stdout.trim()}\nwhen it is through: ${after}`);
}

export const main = (args: readonly string[], io: Io): Promise<void> => experiment(args, io);
await runMain(import.meta, main, { longRun: true });
