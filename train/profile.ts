/**
 * Where a training step's time goes, by operation and by module:
 *
 *   npm run profile -- --base DIR --batch 8
 *   npm run profile -- --unet-config unet.json --targets '**.attn1.*' --svg step.svg
 */
import { Option } from 'commander';
import type { KernelReport } from '../core/index.ts';
import { writeFileAtomic } from '../models/io/atomic.ts';
import { printable } from '../models/io/error.ts';
import { loadWarning } from './bench/clock.ts';
import { flameOf, flameSvg } from './bench/flame.ts';
import { setUpStep } from './bench/step.ts';
import {
  type BackendOptions,
  command,
  type Io,
  type Main,
  openChosen,
  parseArgs,
  print,
  runMain,
  wholeNumber,
  withBackend,
} from './cli/command.ts';
import { SMALL_BASE } from './model/paths.ts';

type Options = BackendOptions & {
  readonly base?: string;
  readonly unetConfig?: string;
  readonly batch: number;
  readonly resolution: number;
  readonly rank: number;
  readonly targets: string;
  readonly adapter?: string;
  readonly checkpoint: boolean;
  readonly tested: boolean;
  readonly runs: number;
  readonly rows: number;
  readonly svg?: string;
  readonly json: boolean;
};

/** Kernels that belong together, with their times added. */
export type Group = {
  readonly name: string;
  readonly count: number;
  readonly ms: number;
  readonly flops: number;
  readonly bytes: number;
};

/** Adds up kernels by a key; longest first. */
export function grouped(kernels: readonly KernelReport[], key: (k: KernelReport) => string): Group[] {
  const groups = new Map<string, Group>();
  for (const k of kernels) {
    const name = key(k);
    const g = groups.get(name) ?? { name, count: 0, ms: 0, flops: 0, bytes: 0 };
    groups.set(name, {
      name,
      count: g.count + 1,
      ms: g.ms + (k.ms ?? 0),
      flops: g.flops + k.flops,
      bytes: g.bytes + k.bytes,
    });
  }
  return [...groups.values()].sort((a, b) => b.ms - a.ms);
}

/** Of several profiles of one program, each kernel's shortest time. */
function fastest(profiles: readonly (readonly KernelReport[])[]): KernelReport[] {
  return profiles[0]!.map((k, i) => ({ ...k, ms: Math.min(...profiles.map((p) => p[i]!.ms ?? 0)) }));
}

/** Rows of the module table: a resolution's resnet or attention, not its every linear layer. */
const MODULE_DEPTH = 4;
/** The parts of a kernel's module path. Adapters' paths begin with their network, the base's do not. */
const modulePath = (k: KernelReport): string[] => k.label?.replace(/^(unet|text)\./, '').split('.') ?? ['no module'];

function table(io: Io, title: string, groups: readonly Group[], total: number, rows: number): void {
  const width = Math.max(20, ...groups.slice(0, rows).map((g) => Math.min(g.name.length, 72)));
  print(
    io,
    `${title.padEnd(width)}${'count'.padStart(7)}${'ms'.padStart(10)}${'share'.padStart(8)}${'GFLOP/s'.padStart(9)}${'GB/s'.padStart(7)}`,
  );
  for (const g of groups.slice(0, rows)) {
    const name = printable(g.name.length > width ? `${g.name.slice(0, width - 1)}…` : g.name);
    const rate = (n: number) => (g.ms > 0 && n > 0 ? (n / g.ms / 1e6).toFixed(1) : '');
    print(
      io,
      `${name.padEnd(width)}${String(g.count).padStart(7)}${g.ms.toFixed(2).padStart(10)}${`${((100 * g.ms) / total).toFixed(1)} %`.padStart(8)}${rate(g.flops).padStart(9)}${rate(g.bytes).padStart(7)}`,
    );
  }
  if (groups.length > rows) print(io, `… and ${groups.length - rows} more`);
  print(io);
}

export const main: Main = async (args, io) => {
  const program = withBackend(
    command(
      'profile',
      "Shows where a training step's time goes, by operation and by module.",
      ['', '--base DIR --batch 4 --svg step.svg', "--unet-config unet.json --targets '**.attn1.*' --tested"],
      io,
    ),
  )
    .addOption(new Option('--base <path>', 'model (default: the small base)'))
    .addOption(new Option('--unet-config <file>', 'a U-Net configuration instead, with random weights and context'))
    .addOption(new Option('--batch <n>', 'pictures per step').argParser(wholeNumber(1, 4096)).default(8))
    .addOption(new Option('--resolution <n>', 'pixels per side').argParser(wholeNumber(8, 4096)).default(224))
    .addOption(new Option('--rank <n>', 'rank of every adapter').argParser(wholeNumber(1, 1024)).default(4))
    .addOption(new Option('--targets <globs>', 'adapted layers: a preset or globs').default('all-linear'))
    .addOption(new Option('--adapter <path>', 'modules and ranks of this adapter or run, in place of these two'))
    .addOption(new Option('--checkpoint', 'compute blocks again in the backward pass').default(false))
    .addOption(new Option('--tested', 'the step with the expansion test in it').default(false))
    .addOption(
      new Option('--runs <n>', 'profiles taken; the shortest time of each kernel counts')
        .argParser(wholeNumber(1, 100))
        .default(3),
    )
    .addOption(new Option('--rows <n>', 'rows of each table').argParser(wholeNumber(1, 1000)).default(20))
    .addOption(new Option('--svg <file>', 'write a flame-like chart'))
    .addOption(new Option('--json', 'all kernels as JSON').default(false));
  const o = parseArgs<Options>(program, args);
  const backend = await openChosen(o);
  const base = o.unetConfig === undefined ? (o.base ?? SMALL_BASE) : o.base;
  const setup = await setUpStep({ ...o, base, checkpointBlocks: o.checkpoint }, backend);
  const { steps, batch, hyper } = setup;
  let state = setup.state(o.tested ? 1 : 0);
  const candidates = setup.candidates(state);
  const profiles: (readonly KernelReport[])[] = [];
  // the first run builds the program and warms the kernels up
  for (let run = 0; run <= o.runs; run++) {
    const done = o.tested
      ? await steps.tested.profile(state, setup.base, batch, hyper, candidates)
      : await steps.plain.profile(state, setup.base, batch, hyper);
    state = done.state;
    const { kernels } = o.tested
      ? steps.tested.inspect(state, setup.base, batch, hyper, candidates)
      : steps.plain.inspect(state, setup.base, batch, hyper);
    if (run > 0) profiles.push(kernels);
  }
  const kernels = fastest(profiles);
  const total = kernels.reduce((sum, k) => sum + k.ms!, 0);
  if (o.json)
    print(io, JSON.stringify({ backend: backend.name, device: backend.device, total_ms: total, kernels }, null, 1));
  else {
    print(io, `${kernels.length} kernels, ${total.toFixed(1)} ms on ${backend.name} (${printable(backend.device)})\n`);
    table(
      io,
      'operation',
      grouped(kernels, (k) => k.name),
      total,
      o.rows,
    );
    table(
      io,
      'kernel',
      grouped(kernels, (k) => `${k.name} ${k.detail}`),
      total,
      o.rows,
    );
    if (kernels.some((k) => k.label))
      table(
        io,
        'module',
        grouped(kernels, (k) => modulePath(k).slice(0, MODULE_DEPTH).join('.')),
        total,
        o.rows,
      );
    const warning = loadWarning();
    if (warning) print(io, warning);
  }
  if (o.svg !== undefined) {
    const items = kernels.map((k) => ({ path: [...modulePath(k), k.name, k.detail], ms: k.ms! }));
    await writeFileAtomic(
      o.svg,
      flameSvg(flameOf('step', items), `A training step on ${backend.name}: ${total.toFixed(1)} ms`),
    );
  }
  await backend.close();
};

await runMain(import.meta, main);
