/**
 * npm run inspect: looks at a file or folder without training: an adapter, a run, a base model, a data folder, a
 * safetensors file. Anything broken is one line and exit code 1.
 */
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { Argument, Option } from 'commander';
import { looksLikeAdapter } from '../models/io/adapter-names.ts';
import { asFileError, FileError } from '../models/io/error.ts';
import { openSafetensors } from '../models/io/safetensors.ts';
import { PARTS } from '../models/names.ts';
import { command, type Io, parseArgs, runMain, wholeNumber } from './cli/command.ts';
import { LAYOUTS } from './data/layouts/index.ts';
import { CONFIG_FILE } from './run/folder.ts';
import { METRICS_FILE } from './run/metrics.ts';

const KINDS = ['adapter', 'run', 'base', 'data', 'tensors'] as const;
type Kind = (typeof KINDS)[number];

type Options = {
  readonly as?: Kind;
  readonly base?: string;
  readonly svg?: string;
  readonly all?: boolean;
  readonly quick?: boolean;
  readonly config?: string;
  readonly layout?: string;
  readonly captionColumn?: string;
  readonly skipUnreadable?: boolean;
  readonly sheet?: string;
  readonly stretch?: boolean;
  readonly split: string;
  readonly seed: number;
};

const program = (io: Io) =>
  command(
    'inspect',
    'Looks at an adapter, a run folder, a base model, a data folder or a safetensors file.',
    [
      'runs/first',
      'runs/first/adapter.safetensors --base models/small-base --svg maps',
      'models/small-base',
      'films --split 80/16/4 --seed 1 --sheet films.png',
      'model.safetensors --quick',
    ],
    io,
  )
    .usage('[options] <path>')
    .addArgument(new Argument('<path>', 'file or folder'))
    .addOption(new Option('--as <kind>', 'what it is, where that cannot be told by its names').choices(KINDS))
    .option('--base <path>', 'adapter: the model it belongs to; data: whose tokenizer counts the ids')
    .option('--svg <dir>', 'adapter: write the rank and change maps there')
    .option('--all', 'adapter: list all modules')
    .option('--config <dir>', "base: configurations of a single file (default: Stable Diffusion 1.5's)")
    .option('--quick', 'base and tensors: read headers only, no values')
    .addOption(new Option('--layout <name>', 'data: settles the layout').choices(LAYOUTS.map(({ name }) => name)))
    .option('--caption-column <name>', 'data: the column that holds the texts')
    .option('--skip-unreadable', 'data: looks at the rest where pairs cannot be read')
    .option('--sheet <file>', 'data: write a PNG of the first 48 pictures as training sees them, scaled and cropped')
    .option('--stretch', 'data: the sheet with films of 10 to 14 bits stretched, as train --stretch takes them')
    .option('--split <parts>', 'data: training/validation/test in percent', '80/10/10')
    .option('--seed <n>', 'data: seed of the split', wholeNumber(0, Number.MAX_SAFE_INTEGER), 1);

const ADAPTER_FILES = ['adapter_config.json', 'adapter_model.safetensors', 'pytorch_lora_weights.safetensors'];
const LDM_KEY = /^(model\.diffusion_model|first_stage_model|cond_stage_model)\./;

/** What a file is, by the names of its tensors. */
async function kindOfFile(file: string): Promise<Kind> {
  if (!/\.safetensors$/i.test(file)) return 'tensors';
  const { tensors } = await openSafetensors(file);
  const names = [...tensors.keys()];
  if (looksLikeAdapter(names)) return 'adapter';
  return names.some((name) => LDM_KEY.test(name)) ? 'base' : 'tensors';
}

/** What a folder is, by the names in it; a data folder where nothing else fits. */
async function kindOfFolder(folder: string): Promise<Kind> {
  const names = await readdir(folder);
  if (names.includes(CONFIG_FILE) && names.includes(METRICS_FILE)) return 'run';
  if (names.some((name) => ADAPTER_FILES.includes(name))) return 'adapter';
  const parts = PARTS.filter((part) => names.includes(part));
  for (const part of parts) {
    const inner = await readdir(path.join(folder, part)).catch(() => []);
    if (inner.some((name) => ADAPTER_FILES.includes(name))) return 'adapter';
  }
  if (names.includes('model_index.json') || parts.length > 0) return 'base';
  if (names.includes(CONFIG_FILE) && names.some((name) => name.endsWith('.safetensors')))
    throw new FileError(folder, '', 'is one part of a model: inspect the folder above it, or its .safetensors file');
  return 'data';
}

export async function main(args: readonly string[], io: Io): Promise<void> {
  const command = program(io);
  const o = parseArgs<Options>(command, args);
  const location = command.args[0];
  const info = await stat(location).catch((error) => {
    throw asFileError(error, location);
  });
  if (!info.isDirectory() && !info.isFile()) throw new FileError(location, '', 'is neither a file nor a folder');
  const kind = o.as ?? (info.isDirectory() ? await kindOfFolder(location) : await kindOfFile(location));
  // Loaded when needed: charts and image libraries take longer to start than most files to read.
  switch (kind) {
    case 'adapter':
      return (await import('./inspect/adapter.ts')).inspectAdapter(location, o, io);
    case 'run':
      return (await import('./inspect/run.ts')).inspectRun(location, o, io);
    case 'base':
      return (await import('./inspect/base.ts')).inspectBase(location, o, io);
    case 'data':
      return (await import('./inspect/data.ts')).inspectData(location, o, io);
    case 'tensors':
      return (await import('./inspect/tensors.ts')).inspectTensors(location, io, o.quick === true);
  }
}

await runMain(import.meta, main);
