/**
 * npm run trace: records one training step of a run, or of a base, into a file that the lab's page “One step” opens: losses,
 * the gradient of every module, every kernel with its time, and values and cotangents of chosen modules.
 */
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { Argument } from 'commander';
import type { z } from 'zod';
import { asFileError, FileError } from '../models/io/error.ts';
import { writeSafetensors } from '../models/io/safetensors-write.ts';
import { command, type Io, parseArgs, print, runMain, UsageError, wholeNumber } from './cli/command.ts';
import { optionFor } from './cli/flags.ts';
import { configSchema, type RunConfig } from './config/config.ts';
import { optionOf } from './config/setting.ts';
import { FORMAT, TRACE_FIELD, traceFile, traceSchema } from './trace/format.ts';
import { recordStep } from './trace/record.ts';
import { openSource } from './trace/source.ts';
import { bytes, counted } from './words/format.ts';

/** Settings of a run that begins with a base, in words of `npm run train`. */
const OF_BASE = [
  ...([
    'base',
    'baseConfig',
    'data',
    'layout',
    'captionColumn',
    'pairs',
    'resolution',
    'method',
    'targets',
    'rank',
  ] as const),
  ...(['lambda', 'trainTextEncoder', 'batch', 'accumulate', 'seed'] as const),
] satisfies readonly (keyof RunConfig)[];
/** What may be another than the run's own. */
const OF_MACHINE = [
  'backend',
  'threads',
  'weights',
  'checkpointBlocks',
] as const satisfies readonly (keyof RunConfig)[];

type Options = Readonly<Record<string, unknown>> & {
  readonly step?: number;
  readonly sample: number;
  readonly modules?: string;
  readonly out?: string;
};

function program(io: Io) {
  const made = command(
    'trace',
    'Records one training step into a file that the page “One step” of npm run lab opens.',
    [
      'runs/first',
      "runs/first --step 41 --modules '**.attn2.*'",
      '--base models/small-base --out step.safetensors',
      "--base sd15/ --data films/ --batch 1 --targets attn --modules 'unet.mid_block.**' --checkpoint-blocks on",
    ],
    io,
  )
    .usage('[options] [run]')
    .addArgument(new Argument('[run]', 'folder of a run: the step after one of its checkpoints'))
    .option(
      '--step <n>',
      'which one; a checkpoint must stand before it (default: the last there is)',
      wholeNumber(1, 1e12),
    )
    .option('--sample <n>', 'whose values are kept, of the samples of its batch', wholeNumber(1, 4096), 1)
    .option('--modules <globs>', 'whose values are kept beside those of the blocks: unet.mid_block.**,**.attn2')
    .option('--out <file>', 'the file (default: trace-step-N.safetensors, in the folder of the run)');
  for (const key of [...OF_BASE, ...OF_MACHINE]) {
    const field: z.ZodType = configSchema.shape[key];
    // what a run does not say is as it is for `train`
    made.addOption(optionFor(key, field).helpGroup(OF_MACHINE.includes(key as never) ? 'Machine:' : 'Without a run:'));
  }
  return made;
}

/** @throws UsageError for settings that a run has for itself */
function refuseOwn(run: string, given: Options, isGiven: (key: string) => boolean): void {
  const own = OF_BASE.find((key) => given[key] !== undefined && isGiven(key));
  if (own !== undefined) throw new UsageError(`${optionOf(own)}: ${run} has its own; it is for a step without a run`);
}

/** Where the file goes; a folder that is not there is told before anything is computed. */
async function placeFor(file: string): Promise<string> {
  const info = await stat(path.dirname(file)).catch((error) => {
    throw asFileError(error, path.dirname(file));
  });
  if (!info.isDirectory()) throw new FileError(path.dirname(file), '', 'is no folder');
  return file;
}

export async function main(args: readonly string[], io: Io): Promise<void> {
  const made = program(io);
  const { step, sample, modules, out, ...given } = parseArgs<Options>(made, args);
  const run = made.args[0];
  if (run === undefined && given.base === undefined)
    throw new UsageError('which step? a run folder, or --base with a model: npm run trace -- runs/first');
  if (run === undefined && step !== undefined) throw new UsageError('--step: of a run; with --base it is the first');
  if (run !== undefined) refuseOwn(run, given as Options, (key) => made.getOptionValueSource(key) === 'cli');
  const asked = Object.fromEntries(Object.entries(given).filter(([key]) => made.getOptionValueSource(key) === 'cli'));
  if (out !== undefined) await placeFor(out);
  const source = await openSource(run, asked, step === undefined ? {} : { step }, io);
  const { recording, told } = source;
  try {
    const file = out ?? path.join(run ?? '.', traceFile(told.step));
    const how = { sample: sample - 1, ...(modules === undefined ? {} : { modules }) };
    const { trace, tensors } = await recordStep(recording, told, how);
    const text = JSON.stringify(traceSchema.parse(trace));
    await writeSafetensors(file, tensors, new Map(Object.entries({ format: FORMAT, [TRACE_FIELD]: text })));
    const { size } = await stat(file);
    print(
      io,
      `${file}: step ${trace.step}, loss ${trace.loss ?? 'not finite'}, gradient norm ${trace.norm ?? 'not finite'}, ${counted(trace.values.length, 'module')} with values, ${counted(trace.kernels.length, 'kind')} of kernels, ${bytes(size)}`,
    );
    print(
      io,
      `open it on page “One step” of npm run lab${run === undefined || out !== undefined ? '' : ', or there among the runs'}`,
    );
  } finally {
    await recording.backend.close();
  }
}

await runMain(import.meta, main);
