/**
 * npm run generate: pictures from texts, by a base model with or without an adapter. The trainer draws its samples by
 * the same function: same seed, same settings, same PNG.
 */
import { readdir, rmdir } from 'node:fs/promises';
import path from 'node:path';
import { Option } from 'commander';
import type { Backend } from '../core/index.ts';
import { capacityOf } from '../models/clip/tokenizer.ts';
import { runOf } from '../models/io/adapter-run.ts';
import { FileError, printable, quoted, systemCode } from '../models/io/error.ts';
import { decodeText, readBytes } from '../models/io/json.ts';
import { SAMPLER_NAMES, type SamplerName } from '../models/schedulers/index.ts';
import {
  type BackendOptions,
  type BaseOptions,
  command,
  decimal,
  type Io,
  openChosen,
  parseArgs,
  print,
  repeatable,
  runMain,
  UsageError,
  wholeNumber,
  withBackend,
  withBase,
} from './cli/command.ts';
import { writePng } from './data/pictures/image-write.ts';
import { type LoadedModel, loadPipeline } from './model/model.ts';
import { vaeFactor } from './model/programs.ts';
import { createGenerator, type SampleOptions, seedsFrom } from './model/sample.ts';
import { makeRunFolder, writeRunFile } from './run/atomic.ts';
import { startProgress } from './words/progress.ts';

/** What `generate` and the trainer take where nothing else is asked for. */
export const SAMPLE_DEFAULTS = { sampler: 'ddim', steps: 20, guidance: 3, seed: 0 } as const;

type Options = BackendOptions &
  BaseOptions & {
    readonly adapter?: readonly string[];
    readonly adapterStrength: number;
    readonly negativePrompt?: string;
    readonly prompt?: readonly string[];
    readonly prompts?: string;
    readonly sampler: SamplerName;
    readonly steps: number;
    readonly guidance: number;
    readonly seed: number;
    readonly n: number;
    readonly batch: number;
    readonly resolution?: string;
    readonly captionChunks?: number;
    readonly out?: string;
    readonly overwrite?: boolean;
  };

/** a prompt of 64 chunks has 4,802 ids */
const MAX_CHUNKS = 64;

const program = (io: Io) =>
  withBackend(
    withBase(
      command(
        'generate',
        'Draws pictures for texts, by a base model with or without an adapter.',
        [
          '--prompt "a large white circle, upper left"',
          '--adapter runs/first/adapter.safetensors --prompt "Right pleural effusion." --n 4',
          '--adapter first.safetensors=0.7 --negative-prompt "blurry" --prompt "Normal chest."',
          '--base DIR --prompts reports.txt --sampler dpm-solver++ --steps 15 --seed 7 --out pictures',
        ],
        io,
      ),
    )
      .addOption(
        repeatable(
          '--adapter <path>',
          'LoRA or SeLoRA adapter: file or folder; FILE=0.7 at that strength; several add up',
        ),
      )
      .option('--adapter-strength <s>', 'strength of adapters named without one', decimal(-100, 100), 1)
      .addOption(repeatable('--prompt <text>', 'what to draw; may be given several times'))
      .option('--negative-prompt <text>', 'what guidance leads away from (default: the empty text)')
      .option('--prompts <file>', 'text file with one prompt per line')
      .addOption(
        new Option('--sampler <name>', 'how noise is removed')
          .choices(SAMPLER_NAMES)
          .default(SAMPLE_DEFAULTS.sampler as SamplerName),
      )
      .option('--steps <n>', 'model calls per picture', wholeNumber(1, 1000), SAMPLE_DEFAULTS.steps)
      .option(
        '--guidance <g>',
        'how strongly the text guides; 1: without guidance',
        decimal(0, 100),
        SAMPLE_DEFAULTS.guidance,
      )
      .option(
        '--seed <n>',
        'noise of the first picture of each prompt; the next ones count up',
        wholeNumber(0, Number.MAX_SAFE_INTEGER - 1),
        SAMPLE_DEFAULTS.seed,
      )
      .option('--n <n>', 'pictures per prompt', wholeNumber(1, 1000), 1)
      .option('--batch <n>', 'pictures at once: changes memory and speed, not the pictures', wholeNumber(1, 64), 8)
      .option('--resolution <px>', "side or WIDTHxHEIGHT in pixels (default: the model's own)")
      .option(
        '--caption-chunks <n>',
        `pieces of 77 ids that a prompt may take (default: the adapter's, else 1)`,
        wholeNumber(1, MAX_CHUNKS),
      )
      .option('--out <dir>', 'folder for PNGs and settings.json (default: generated/DATE-TIME)')
      .option('--overwrite', 'write into --out although other settings are there'),
  );

const MAX_PROMPTS = 10_000;
const MAX_PROMPT_BYTES = 32 << 20;

/** The prompts of a call in order. @throws UsageError or FileError when there are none */
async function readPrompts({ prompt = [], prompts }: Options): Promise<readonly string[]> {
  const lines =
    prompts === undefined ? [] : decodeText(await readBytes(prompts, MAX_PROMPT_BYTES), prompts).split(/\r\n|\r|\n/);
  const foreign = lines.findIndex((line) => /(^|\s)--[nwhdlsg]\s/.test(line));
  if (foreign >= 0)
    throw new FileError(
      prompts!,
      `line ${foreign + 1}`,
      "has options of kohya's prompt files, which would be drawn as words: take them out and give --negative-prompt, --resolution, --seed, --guidance, --steps",
    );
  const all = [...prompt, ...lines.filter((line) => line.trim() !== '')];
  if (all.length === 0 && prompts !== undefined) throw new FileError(prompts, '', 'holds no prompt: one per line');
  if (all.length === 0) throw new UsageError('nothing to draw: give --prompt "text" or --prompts FILE');
  if (all.length > MAX_PROMPTS) throw new UsageError(`${all.length} prompts, at most ${MAX_PROMPTS}`);
  return all;
}

type Size = { readonly width: number; readonly height: number };
const MAX_SIDE = 4096;

/** The picture's size: as asked for, else the model's `sample_size` × the VAE's factor. @throws UsageError */
function sizeOf(asked: string | undefined, { pipeline: { configs } }: LoadedModel): Size {
  const factor = vaeFactor(configs.vae);
  const own = configs.unet.sample_size ?? 64;
  const [rows, columns] = typeof own === 'number' ? [own, own] : own;
  const match = asked === undefined ? undefined : /^(\d{1,5})(?:x(\d{1,5}))?$/i.exec(asked);
  if (match === null) throw new UsageError(`--resolution ${quoted(asked!)}: expected a side such as 128 or 160x128`);
  const width = match ? Number(match[1]) : columns * factor;
  const height = match ? Number(match[2] ?? match[1]) : rows * factor;
  for (const side of [width, height])
    if (side < factor || side > MAX_SIDE || side % factor !== 0)
      throw new UsageError(`--resolution ${width}x${height}: sides must be multiples of ${factor}, up to ${MAX_SIDE}`);
  return { width, height };
}

/** `Left pleural effusion, small.` → `left-pleural-effusion-small`. */
const slug = (text: string): string =>
  text
    .normalize('NFKD')
    .replace(/\p{M}/gu, '')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 48)
    .replace(/-+$/, '') || 'picture';

/** One picture to draw: all prompts once, then all again from the next seed. */
type Order = { readonly prompt: string; readonly file: string; readonly index: number; readonly seed: number };

/**
 * Picture j of a prompt is the first one at seed + j, whatever stands beside it. File names sort in the order of drawing
 * and tell prompt and seed.
 */
export function ordersOf(prompts: readonly string[], n: number, seed: number): readonly Order[] {
  const total = prompts.length * n;
  const digits = Math.max(3, String(total - 1).length);
  const seeds = seedsFrom(seed, n);
  return Array.from({ length: total }, (_, index) => {
    const prompt = prompts[index % prompts.length];
    const own = seeds[Math.floor(index / prompts.length)];
    return { prompt, index, seed: own, file: `${String(index).padStart(digits, '0')}-${slug(prompt)}-seed${own}.png` };
  });
}

const SETTINGS = 'settings.json';

/** Refuses a folder with other pictures in it. @throws FileError */
async function refuseOther(out: string, settings: string): Promise<void> {
  const names: readonly string[] = await readdir(out).catch((error: unknown) => {
    if (systemCode(error) === 'ENOENT') return [];
    throw new FileError(out, '', 'is not a folder that can be read');
  });
  if (names.length === 0) return;
  const before = names.includes(SETTINGS)
    ? decodeText(await readBytes(path.join(out, SETTINGS), MAX_PROMPT_BYTES), SETTINGS)
    : undefined;
  if (before !== settings)
    throw new FileError(out, '', 'holds other files: choose another --out, or add --overwrite to write into it');
}

/** Chunks of a prompt: as asked for, else as the adapter was trained with. */
const chunksOf = (o: Options, { adapter }: LoadedModel): number =>
  o.captionChunks ?? (adapter && o.adapter ? runOf(adapter.file, o.adapter[0])?.captionChunks : undefined) ?? 1;

async function settingsOf(
  o: Options & { readonly captionChunks: number },
  model: LoadedModel,
  size: Size,
  backend: Backend,
  orders: readonly Order[],
) {
  const { tokenizer } = model.pipeline;
  return {
    format: 'selora-pictures/1',
    base: o.base,
    baseHash: await model.base.hash(),
    adapter: o.adapter === undefined ? null : o.adapter.length === 1 ? o.adapter[0] : o.adapter,
    ...(o.adapterStrength === 1 ? {} : { adapterStrength: o.adapterStrength }),
    ...(o.negativePrompt === undefined ? {} : { negativePrompt: o.negativePrompt }),
    sampler: o.sampler,
    steps: o.steps,
    guidance: o.guidance,
    seed: o.seed,
    captionChunks: o.captionChunks,
    ...size,
    backend: backend.name,
    pictures: orders.map((order) => {
      const { length, cut } = tokenizer.encode(order.prompt, o.captionChunks);
      return { ...order, ids: length, cut };
    }),
  };
}

export async function main(args: readonly string[], io: Io): Promise<void> {
  const given = parseArgs<Options>(program(io), args);
  const prompts = await readPrompts(given);
  const started = new Date();
  const out =
    given.out ?? path.join('generated', started.toISOString().slice(0, 19).replace('T', '-').replace(/:/g, ''));
  const backend = await openChosen(given);
  try {
    const model = await loadPipeline(given.base, backend, {
      adapter: given.adapter,
      adapterStrength: given.adapterStrength,
      configFolder: given.config,
    });
    for (const note of model.adapter?.file.notes ?? []) print(io, note);
    if (given.negativePrompt !== undefined && given.guidance === 1)
      print(io, 'note: --negative-prompt does nothing with --guidance 1');
    const o = { ...given, captionChunks: chunksOf(given, model) };
    const size = sizeOf(o.resolution, model);
    const orders = ordersOf(prompts, o.n, o.seed);
    const settings = await settingsOf(o, model, size, backend, orders);
    const json = `${JSON.stringify(settings, null, 2)}\n`;
    if (!o.overwrite) await refuseOther(out, json);
    const limit = capacityOf(model.pipeline.tokenizer.config, o.captionChunks);
    for (const { prompt, cut, ids, index } of settings.pictures)
      if (cut && index < prompts.length) print(io, `cut to ${limit} of ${ids} ids: ${printable(prompt, 60)}`);
    print(io, `${orders.length} pictures of ${size.width}x${size.height}; ${backend.name}: ${backend.device}`);

    // a folder that cannot be made is told before hours of drawing; one that stays empty goes again
    await makeRunFolder(out);
    const pictures = await draw(model, backend, orders, { ...o, ...size, negative: o.negativePrompt }, io).catch(
      async (error) => {
        await rmdir(out).catch(() => undefined);
        throw error;
      },
    );
    for (const [i, { file }] of orders.entries())
      await writePng(path.join(out, file), pictures[i], size.width, size.height);
    await writeRunFile(path.join(out, SETTINGS), json);
    for (const { file } of orders.slice(0, 20)) print(io, path.join(out, file));
    if (orders.length > 20) print(io, `… and ${orders.length - 20} more in ${out}`);
  } finally {
    await backend.close();
  }
}

/** Runs the generator with a progress line; Ctrl-C ends it between two model calls. */
async function draw(
  { pipeline }: LoadedModel,
  backend: Backend,
  orders: readonly Order[],
  options: Omit<SampleOptions, 'seeds'>,
  io: Io,
): Promise<readonly Float32Array[]> {
  const generate = createGenerator(backend, pipeline.configs);
  const { sampler, steps, guidance, height, width, batch, captionChunks, negative } = options;
  const begin = performance.now();
  let progress: ReturnType<typeof startProgress> | undefined;
  const onStep = (done: number, of: number) => {
    io.signal.throwIfAborted();
    progress ??= startProgress(io.stdout, of);
    progress.update({ step: done, steps: of, stepsPerSecond: (done * 1000) / (performance.now() - begin) });
  };
  try {
    const seeds = orders.map(({ seed }) => seed);
    const settings = { sampler, steps, guidance, seeds, height, width, batch, captionChunks, negative, onStep };
    return await generate(
      pipeline,
      orders.map(({ prompt }) => prompt),
      settings,
    );
  } finally {
    progress?.stop();
  }
}

await runMain(import.meta, main);
