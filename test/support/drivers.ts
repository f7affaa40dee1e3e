/**
 * The drivers behind `npm run soak`: tests that try many faults of one kind. Each has one implementation; `npm test` runs
 * it with the short count, `npm run soak -- NAME` with the long one.
 */

import { LONG } from './long.ts';

export interface Driver {
  /** what is tried, and what the count counts */
  readonly what: string;
  readonly files: readonly string[];
  /** part of the names of its tests, where their files hold others too */
  readonly only?: string;
  /** cases in `npm test` where the long tests run (`long.ts`) */
  readonly short: number;
  /** cases in `npm test` without them */
  readonly brief: number;
  /** cases in `npm run soak` */
  readonly long: number;
}

const driver = (
  what: string,
  [short, long, brief = short]: readonly [number, number, number?],
  files: string,
  only?: string,
): Driver => ({
  what,
  files: files.split(' '),
  ...(only === undefined ? {} : { only }),
  short,
  brief,
  long,
});

/** Cheapest first. */
export const DRIVERS = {
  bits: driver(
    'flipped bits of a checkpoint',
    [300, 20_000],
    'test/train/run/checkpoint.test.ts',
    'damage of any single bit',
  ),
  safetensors: driver(
    'mutants of safetensors files, read or refused',
    [20_000, 1_000_000],
    'test/models/io/fuzz.test.ts',
  ),
  'round-trips': driver(
    'safetensors files written, read, written',
    [150, 10_000],
    'test/models/io/safetensors.test.ts',
    'round trips writes',
  ),
  tables: driver('mutants of each kind of table', [100, 20_000], 'test/train/data/folders.test.ts', 'mutants'),
  pictures: driver('broken JPEG files', [200, 10_000], 'test/train/data/images.test.ts', 'broken JPEG'),
  page: driver(
    'texts of markup and script in every place of a page, its charts and its data; by fives or, in the long form, alone',
    [200, 200],
    'test/train/report/hostile.test.ts',
  ),
  terminal: driver(
    'the same texts, and orders to a terminal, in seven places of commands',
    [2, 200],
    'test/train/commands/terminal.test.ts',
    'reaches the terminal',
  ),
  paths: driver('spellings of paths that lead outside, in four places', [60, 60], 'test/train/data/escapes.test.ts'),
  canaries: driver(
    'marks in texts, names, tables, pictures and the machine, looked for in all that a run writes',
    [40, 40],
    'test/train/commands/canaries.test.ts',
  ),
  network: driver(
    'commands, each with the log of its sockets',
    [1, 10],
    'test/train/commands/network.test.ts',
    'by any command',
  ),
  disk: driver(
    'causes (ENOSPC, EIO, EMFILE, EACCES, EROFS) at every call of a save, once and for good',
    [1, 5],
    'test/train/run/faults.test.ts',
    'a disk that fails',
  ),
  'full-disk': driver('sizes of a disk that runs full', [2, 50], 'test/train/run/kill.test.ts', 'a full disk'),
  races: driver(
    'races of two to eight processes for one run folder',
    [25, 100, 10],
    'test/train/run/folder.test.ts',
    'several processes',
  ),
  signals: driver(
    'SIGINT, SIGTERM and SIGHUP at random moments',
    [3, 300],
    'test/train/run/kill.test.ts',
    'interrupted it saves',
  ),
  kills: driver('SIGKILLs at random moments', [4, 200, 2], 'test/train/run/kill.test.ts', 'killed at random moments'),
  'kill-calls': driver(
    'kills at file-system calls of a save (as many as there are)',
    [3, 200, 1],
    'test/train/run/kill.test.ts test/models/io/atomic.test.ts',
    'system call|every rename|file-system call',
  ),
  'trainer-kills': driver(
    'SIGKILLs and signals of the trainer itself, each going on to the same bits',
    [1, 50],
    'test/train/trainer/kills.test.ts',
    'interrupted, killed',
  ),
  'experiment-kills': driver(
    'SIGKILLs of an experiment, of its trainer or of both, each ending with the same tables',
    [2, 40],
    'test/train/experiment/kills.long.test.ts',
  ),
  device: driver(
    'faults of a WebGPU device, twelve kinds at 25 of its calls',
    [12, 300, 4],
    'test/train/trainer/device-faults.test.ts',
    'is told in one line',
  ),
  nonfinite: driver(
    'NaN, ±∞ and 1e38 in eight places of a run, at three steps, on three backends',
    [3, 288, 1],
    'test/train/trainer/nonfinite.test.ts',
    'ends the run',
  ),
  memory: driver(
    'training steps with live bytes exactly flat, on wasm and webgpu',
    [150, 10_000],
    'test/core/memory.test.ts',
  ),
  battery: driver('samples of every op in every transformation', [8, 200], 'test/core/battery.test.ts'),
} as const satisfies Readonly<Record<string, Driver>>;

export type DriverName = keyof typeof DRIVERS;

/** What `npm run soak` asks of the tests it starts. */
export const ASKED = { name: 'SELORA_SOAK', cases: 'SELORA_CASES', seed: 'SELORA_SEED' } as const;

/** Whether this driver runs its long form. */
export const soaks = (name: DriverName): boolean => process.env[ASKED.name] === name;

/** How many cases a driver tries now. */
export const casesOf = (name: DriverName): number =>
  soaks(name) ? Number(process.env[ASKED.cases] ?? DRIVERS[name].long) : DRIVERS[name][LONG ? 'short' : 'brief'];

/** What a driver draws with: `usual`, unless another seed was asked for. */
export const seedOf = (usual: number): number => Number(process.env[ASKED.seed] ?? usual);

/** The most milliseconds a driver's test may take; in the long form a day. */
export const patience = (name: DriverName, ms: number): number => (soaks(name) ? 86_400_000 : ms);

/** `count` of the items, evenly spread; all of them where there are no more. */
export const spread = <T>(items: readonly T[], count: number): readonly T[] =>
  count >= items.length
    ? items
    : Array.from({ length: count }, (_, i) => items[Math.floor(((i + 0.5) * items.length) / count)]!);

/** `count` of the items, each from another region: the golden ratio leaves no gaps. All of them where there are no more. */
export const scattered = <T>(items: readonly T[], count: number): readonly T[] => {
  if (count >= items.length) return items;
  const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));
  let stride = Math.max(1, Math.round(items.length * 0.618034));
  while (gcd(stride, items.length) !== 1) stride++;
  return Array.from({ length: count }, (_, i) => items[(i * stride) % items.length]!);
};
