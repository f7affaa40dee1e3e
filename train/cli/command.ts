/**
 * What all commands share: options, one line for a failure, and an end of the process.
 *
 * A command is `main(args, io)`; `runMain(import.meta, main)` starts it when its file is the program, so that tests (and
 * the trainer) may import any command without running it.
 */
import { realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { z } from 'zod';
import { type Backend, type BackendChoice, backendNames, CoreError, openBackend } from '../../core/index.ts';
import { FileError, printable } from '../../models/io/error.ts';
import { SMALL_BASE } from '../model/paths.ts';
import type { TerminalStream } from '../words/progress.ts';
import { isWatchedByTsx, runUnwatched } from './supervise.ts';

/** Where a command writes and how it hears of Ctrl-C. */
export interface Io {
  readonly stdout: TerminalStream;
  readonly stderr: TerminalStream;
  /** Aborted by the first Ctrl-C. A command that never asks for it is ended by Ctrl-C at once. */
  readonly signal: AbortSignal;
}
export type Main = (args: readonly string[], io: Io) => Promise<void>;

/** Output, line by line: whatever is in a name or text from outside, the terminal sees no control byte of it. */
export const print = (io: Io, text = ''): void => {
  const lines = text.split('\n').map((line) => printable(line, Number.POSITIVE_INFINITY));
  io.stdout.write(`${lines.join('\n')}\n`);
};

/** What a person did wrong on the command line. */
export class UsageError extends Error {
  override name = 'UsageError';
}

/** Ctrl-C, as `io.signal.throwIfAborted()` throws it. */
export class Interrupted extends Error {
  override name = 'Interrupted';
}

/**
 * The one line of a failure: `file: field: what was found, what was expected`, control bytes made visible. What is not
 * a person's mistake is named as such.
 */
export function errorLine(error: unknown): string {
  const oneLine = (text: string) => printable(text.trim().replace(/\s*[\r\n]+\s*/g, '; '), 4000);
  if (error instanceof z.ZodError) {
    const [{ path, message }] = error.issues;
    return oneLine(`${path.length > 0 ? `${path.map(String).join('.')}: ` : ''}${message}`);
  }
  if (error instanceof CommanderError) return oneLine(error.message.replace(/^error: /, '').replace(/\n\(/, ' ('));
  if (error instanceof FileError || error instanceof CoreError || error instanceof UsageError)
    return oneLine(error.message);
  if (error instanceof Interrupted || error instanceof RangeError) return oneLine(error.message);
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return oneLine(`${text} (SELORA_DEBUG=1 shows where)`);
}

/** Runs a command to its exit code: 0, 1 with one line on stderr, 130 after Ctrl-C. */
export async function execute(main: Main, args: readonly string[], io: Io): Promise<number> {
  try {
    await main(args, io);
    return 0;
  } catch (error) {
    // commander ends --help by an error with code 0
    if (error instanceof CommanderError && error.exitCode === 0) return 0;
    io.stderr.write(`${errorLine(error)}\n`);
    if (process.env.SELORA_DEBUG && error instanceof Error) io.stderr.write(`${error.stack}\n`);
    return error instanceof Interrupted ? 130 : 1;
  }
}

/** The process's own streams. The handler of Ctrl-C is there only once somebody asks for the signal. */
function processIo(): Io {
  let abort: AbortController | undefined;
  const listen = (): AbortController => {
    const controller = new AbortController();
    const stop = () => {
      if (controller.signal.aborted) process.exit(130);
      controller.abort(new Interrupted('stopped by Ctrl-C'));
    };
    process.on('SIGINT', stop);
    process.on('SIGTERM', stop);
    return controller;
  };
  return {
    stdout: process.stdout,
    stderr: process.stderr,
    get signal() {
      abort ??= listen();
      return abort.signal;
    },
  };
}

/** Whether the module is the program that was started (and not imported by another). */
export function isProgram(meta: ImportMeta): boolean {
  const started = process.argv[1];
  if (started === undefined) return false;
  try {
    return realpathSync(started) === realpathSync(fileURLToPath(meta.url));
  } catch {
    return false;
  }
}

/**
 * Runs `main` if its module is the program, and ends the process even where a GPU library keeps it alive.
 * @param options longRun: neither a closed terminal or pipe nor an impatient tsx ends the program (training)
 * @example await runMain(import.meta, main); // last line of train/NAME.ts
 */
export async function runMain(
  meta: ImportMeta,
  main: Main,
  options: { readonly longRun?: boolean } = {},
): Promise<void> {
  if (!isProgram(meta)) return;
  if (options.longRun && isWatchedByTsx()) process.exit(await runUnwatched());
  // `npm run inspect | head`: the reader is gone, nobody is left to tell. A long run goes on all the same.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (!options.longRun) process.exit(error.code === 'EPIPE' ? 0 : 1);
  });
  process.stderr.on('error', () => undefined);
  const io = processIo();
  const fatal = (error: unknown) => {
    io.stderr.write(`${errorLine(error)}\n`, () => process.exit(1));
  };
  process.on('uncaughtException', fatal);
  const code = await execute(main, process.argv.slice(2), io);
  await Promise.all([process.stdout, process.stderr].map((s) => new Promise((done) => s.write('', done))));
  // 0 leaves what main set: a run that was stopped and saved ends with 130, 143 or 129
  process.exit(code === 0 ? process.exitCode : code);
}

/** A command with `--help`, its examples and no exits of its own. */
export function command(name: string, description: string, examples: readonly string[], io: Io): Command {
  return new Command(name)
    .usage('[options]')
    .description(description)
    .helpOption('-h, --help', 'show this help')
    .addHelpText('after', `\nExamples:\n${examples.map((e) => `  npm run ${name} -- ${e}`.trimEnd()).join('\n')}`)
    .configureOutput({ writeOut: (text) => void io.stdout.write(text), writeErr: () => undefined })
    .configureHelp({ helpWidth: Math.min(io.stdout.columns ?? 100, 120) })
    .exitOverride();
}

/** Options of a command line, typed. @throws CommanderError for options that do not exist or lack their value */
export function parseArgs<T extends object>(program: Command, args: readonly string[]): T {
  return program.parse([...args], { from: 'user' }).opts<T>();
}

/** A parser for commander: whole numbers from lo to hi. */
export const wholeNumber =
  (lo: number, hi: number) =>
  (text: string): number => {
    const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= lo && value <= hi)) throw new InvalidArgumentError(`expected a whole number from ${lo} to ${hi}`);
    return value;
  };

/** A parser for commander: finite decimal numbers from lo to hi. */
export const decimal =
  (lo: number, hi: number) =>
  (text: string): number => {
    const value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : Number.NaN;
    if (!(value >= lo && value <= hi)) throw new InvalidArgumentError(`expected a number from ${lo} to ${hi}`);
    return value;
  };

/** An option that may be given several times; its value is the list. */
export const repeatable = (flags: string, description: string): Option =>
  new Option(flags, description).argParser((value: string, before?: readonly string[]) => [...(before ?? []), value]);

/** `--public`, for commands whose files are passed on. */
export const publicOption = (): Option =>
  new Option('--public', 'others may read what is written, as far as the umask lets them (default: you alone)');

export type BaseOptions = { readonly base: string; readonly config?: string };

/** Adds `--base`, the model to work on, and `--config` for single files. */
export function withBase(program: Command): Command {
  return program
    .addOption(
      new Option('--base <path>', 'model: diffusers folder or single .safetensors file').default(
        SMALL_BASE,
        'the small base that ships with the project',
      ),
    )
    .option('--config <dir>', "configurations of a single file (default: Stable Diffusion 1.5's)");
}

export type BackendOptions = {
  readonly backend: BackendChoice;
  readonly threads?: number;
  readonly revectorize?: boolean;
};

/** `--no-revectorize`, for commands of the wasm backend. */
export const revectorizeOption = (): Option =>
  new Option('--no-revectorize', 'wasm on Node 24 or later: no 256-bit registers, which are an experiment of V8');

/** Adds `--backend`, `--threads` and `--no-revectorize`. */
export function withBackend(program: Command): Command {
  return program
    .addOption(
      new Option('--backend <name>', 'where to compute; auto: a GPU where there is one, else wasm')
        .choices(['auto', ...backendNames])
        .default('auto'),
    )
    .addOption(
      new Option('--threads <n>', 'threads of the wasm backend (default: all cores)').argParser(wholeNumber(1, 256)),
    )
    .addOption(revectorizeOption());
}

/** Opens the backend of the common options. @throws CoreError when it cannot run here */
export const openChosen = ({ backend, threads, revectorize }: BackendOptions): Promise<Backend> =>
  openBackend(backend, {
    ...(threads === undefined ? {} : { threads }),
    ...(revectorize === false ? { revectorize } : {}),
  });
