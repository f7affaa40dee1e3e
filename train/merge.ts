/**
 * npm run merge: a base model with an adapter added into its weights, W' = W0 + s·(A·B)ᵀ, as a diffusers folder that
 * needs no adapter any more; `--unmerge` takes it out again.
 */
import { Option } from 'commander';
import { type RunFacts, runOf } from '../models/io/adapter-run.ts';
import { type Base, openBase } from '../models/io/base.ts';
import { writeBase } from '../models/io/base-write.ts';
import { printable } from '../models/io/error.ts';
import {
  type BaseOptions,
  command,
  decimal,
  type Io,
  parseArgs,
  print,
  publicOption,
  repeatable,
  runMain,
  withBase,
} from './cli/command.ts';
import { mergedModel } from './model/merged-weights.ts';
import { checkBase, openBaseAt, readAdapters, tokenizerOf } from './model/model.ts';

type Options = BaseOptions & {
  readonly adapter: readonly string[];
  readonly strength: number;
  readonly out: string;
  readonly unmerge?: boolean;
  readonly public?: true;
  readonly dtype?: 'f32' | 'f16';
};

const program = (io: Io) =>
  withBase(
    command(
      'merge',
      'Adds an adapter into the weights of its base and writes the result as a diffusers folder.',
      [
        '--adapter runs/first/adapter.safetensors --out merged',
        '--base DIR --adapter DIR --out merged --dtype f16',
        '--adapter one.safetensors=0.7 --adapter two.safetensors=0.3 --out merged',
        '--base merged --adapter runs/first/adapter.safetensors --unmerge --out base-again',
      ],
      io,
    ),
  )
    .addOption(
      repeatable(
        '--adapter <path>',
        'LoRA or SeLoRA adapter: file or folder; FILE=0.7 at that strength; several add up',
      ).makeOptionMandatory(),
    )
    .option('--strength <s>', 'strength of adapters named without one', decimal(-100, 100), 1)
    .requiredOption('--out <dir>', 'folder to write; must be empty or not there')
    .addOption(publicOption())
    .option('--unmerge', 'take the adapter out of a base it was merged into')
    .addOption(
      new Option('--dtype <name>', 'number format of all weights (default: as each is stored)').choices(['f32', 'f16']),
    );

/** What a person should know before using a merge, in one line each. */
async function notes(run: RunFacts | undefined, base: Base, unmerge: boolean): Promise<readonly string[]> {
  // A merged base has another hash by nature.
  if (run === undefined || unmerge || run.baseHash === (await base.hash())) return [];
  return ['note: the adapter was trained on another base (its hash differs); it fits in shape'];
}

export async function main(args: readonly string[], io: Io): Promise<void> {
  const o = parseArgs<Options>(program(io), args);
  const base = await openBaseAt(o.base, o.config);
  checkBase(base);
  const { name, adapter } = await readAdapters(base, o.adapter, o.strength);
  for (const note of adapter.notes ?? []) print(io, note);
  for (const note of await notes(runOf(adapter, name), base, o.unmerge === true)) print(io, note);

  const dtype = o.dtype === undefined ? undefined : o.dtype === 'f16' ? 'F16' : 'F32';
  const weights = mergedModel(base, adapter, o.unmerge ? -1 : 1, dtype);
  const tokenizerFiles = (await tokenizerOf(base)).raw;
  await writeBase(
    o.out,
    { configFiles: base.configFiles, configBytes: base.configBytes, tokenizerFiles, weights },
    { signal: io.signal, public: o.public === true },
  );

  checkBase(await openBase(o.out));
  const count = `${adapter.modules.size} module${adapter.modules.size === 1 ? '' : 's'}`;
  print(io, `${o.unmerge ? 'took' : 'added'} ${count} ${o.unmerge ? 'out of' : 'into'} ${printable(o.base)}`);
  print(io, `written to ${printable(o.out)}; npm run inspect -- ${printable(o.out)} shows it`);
}

await runMain(import.meta, main);
