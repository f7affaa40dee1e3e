/**
 * npm run resize: an adapter written again, at one rank for all its modules, or in another program's form: which program
 * reads which form with mixed ranks (what SeLoRA grows) is measured in models/io/README.md.
 */
import { access } from 'node:fs/promises';
import { Option } from 'commander';
import { type AdapterFile, readAdapter } from '../models/io/adapter-file.ts';
import { largestRank, padRank } from '../models/io/adapter-pad.ts';
import { READERS, readerNotes } from '../models/io/adapter-readers.ts';
import { resizeRank } from '../models/io/adapter-resize.ts';
import { runOf, withRun } from '../models/io/adapter-run.ts';
import { type AdapterForm, isFolderForm, writeAdapter } from '../models/io/adapter-write.ts';
import { FileError, printable } from '../models/io/error.ts';
import { command, type Io, parseArgs, print, publicOption, runMain, UsageError, wholeNumber } from './cli/command.ts';

type Options = {
  readonly adapter: string;
  readonly out: string;
  readonly rank?: number;
  readonly padRank?: number | true;
  readonly form: AdapterForm;
  readonly public?: true;
};

const MAX_RANK = 4096;

const program = (io: Io) =>
  command(
    'resize',
    "Writes an adapter again: at one rank for all modules, or in another program's form.",
    [
      '--adapter runs/first/adapter.safetensors --rank 4 --out small.safetensors',
      '--adapter runs/first/adapter.safetensors --pad-rank --form kohya --out first-kohya.safetensors',
      '--adapter downloaded.safetensors --form peft --out peft-folder',
    ],
    io,
  )
    .requiredOption('--adapter <path>', 'LoRA or SeLoRA adapter: file or folder')
    .requiredOption('--out <path>', 'file to write; for PEFT a folder that is empty or not there')
    .addOption(publicOption())
    .option(
      '--rank <n>',
      'the closest adapter with this rank in every module (SVD of each ΔW)',
      wholeNumber(1, MAX_RANK),
    )
    .option(
      '--pad-rank [n]',
      'one rank for all by zeros: ΔW stays as it is (default: the largest rank there is)',
      wholeNumber(1, MAX_RANK),
    )
    .addOption(
      new Option('--form <name>', 'names and layout of the file: of diffusers, of kohya, or a PEFT folder')
        .choices(Object.keys(READERS))
        .default('diffusers' satisfies AdapterForm),
    )
    .addHelpText(
      'after',
      `\nWho reads which form right:\n${Object.entries(READERS)
        .map(([form, who]) => `  ${form.padEnd(10)} ${who}`)
        .join('\n')}`,
    );

const spread = ({ modules }: AdapterFile): string => {
  const ranks = [...modules.values()].map(({ rank }) => rank);
  const [low, high] = [Math.min(...ranks), Math.max(...ranks)];
  return low === high ? `rank ${low}` : `ranks ${low} to ${high}`;
};

/** The adapter at another rank, and what it lost in words. */
function resized(adapter: AdapterFile, o: Options): { readonly adapter: AdapterFile; readonly loss: string } {
  if (o.rank !== undefined) {
    const { adapter: smaller, kept } = resizeRank(adapter, o.rank);
    const [module, least] = [...kept].reduce((a, b) => (b[1] < a[1] ? b : a));
    const lost = (share: number) => `${(100 * Math.sqrt(Math.max(0, 1 - share))).toPrecision(3)}%`;
    return {
      adapter: smaller,
      loss: least > 1 - 1e-12 ? 'no module changes' : `most is lost in ${module}: ‖ΔW − ΔW'‖ = ${lost(least)} of ‖ΔW‖`,
    };
  }
  if (o.padRank === undefined) return { adapter, loss: 'ΔW stays as it is' };
  const largest = largestRank(adapter);
  const rank = o.padRank === true ? largest : o.padRank;
  if (rank < largest)
    throw new UsageError(`--pad-rank ${rank}: a module has rank ${largest}; --rank ${rank} approximates`);
  return { adapter: padRank(adapter, rank), loss: 'ΔW stays as it is' };
}

export async function main(args: readonly string[], io: Io): Promise<void> {
  const o = parseArgs<Options>(program(io), args);
  if (o.rank !== undefined && o.padRank !== undefined)
    throw new UsageError('--rank and --pad-rank exclude each other: truncate, or pad with zeros');
  const taken =
    !isFolderForm(o.form) &&
    (await access(o.out).then(
      () => true,
      () => false,
    ));
  if (taken) throw new FileError(o.out, '', 'exists already');
  const before = await readAdapter(o.adapter);
  if (before.modules.size === 0) throw new UsageError(`--adapter ${printable(o.adapter)}: adapts nothing`);
  const run = runOf(before, o.adapter);
  const { adapter, loss } = resized(before, o);
  const changed = o.rank ?? o.padRank;
  // the history of ranks in the header is that of the run, so the file says that it is not the run's own any more
  const after = run && changed !== undefined ? withRun(adapter, { ...run, resized: largestRank(adapter) }) : adapter;
  await writeAdapter(o.out, after, o.form, { signal: io.signal, public: o.public === true });
  print(io, `${before.modules.size} modules, ${spread(before)} → ${spread(after)}; ${loss}`);
  for (const note of before.notes ?? []) print(io, note);
  print(io, `written to ${printable(o.out)} (${o.form})`);
  for (const note of readerNotes(after, o.form)) print(io, note);
}

await runMain(import.meta, main);
