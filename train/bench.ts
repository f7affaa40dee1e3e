/**
 * How fast this machine and these kernels are, as ratios taken in one run:
 *
 *   npm run bench                                  single operations per backend, beside the machine's peak
 *   npm run bench -- --peers                       the same beside PyTorch, jax-js and tfjs, where they are installed
 *   npm run bench -- --step --base DIR             one training step of a model
 *   npm run bench -- --step --unet-config train/bench/unet-32-64.json --peers --python venv/bin/python
 *                                                  one beside PyTorch's, which is timed before and after it
 *   npm run bench -- --growth --resolution 128     how a step's time and memory grow with batch, resolution, rank, modules
 *   npm run bench -- --step --unet-config FILE --batch 8 --resolution 224 --rank 4 --targets '**.attn1.*' --json
 *
 * Close other programs first: a busy machine is named in the output, and only ratios within one run count then.
 */
import { InvalidArgumentError, Option } from 'commander';
import { type Backend, backendNames } from '../core/index.ts';
import { printable } from '../models/io/error.ts';
import { loadWarning } from './bench/clock.ts';
import { AXES, type Axis, growthTable, inProcess, measureGrowth } from './bench/growth.ts';
import { benchOps, type OpFigure } from './bench/ops.ts';
import { measurePeak, type Peak } from './bench/peak.ts';
import { benchPeerStep, benchPeers, type PeerFigure, type PeerStep, PYTHON } from './bench/peers.ts';
import { benchStep, type StepFigures } from './bench/step.ts';
import {
  command,
  type Io,
  type Main,
  openChosen,
  parseArgs,
  print,
  revectorizeOption,
  runMain,
  UsageError,
  wholeNumber,
} from './cli/command.ts';
import { SMALL_BASE } from './model/paths.ts';

const CHOICES = ['auto', 'all', ...backendNames] as const;
type Options = {
  readonly backend: (typeof CHOICES)[number];
  readonly threads?: number;
  readonly revectorize: boolean;
  readonly json: boolean;
  readonly peers: boolean;
  readonly peersIn: string;
  readonly python: string;
  readonly only?: string;
  readonly step: boolean;
  readonly plain: boolean;
  readonly growth: boolean;
  readonly against: readonly Axis[];
  readonly base?: string;
  readonly unetConfig?: string;
  readonly batch: number;
  readonly resolution: number;
  readonly rank: number;
  readonly targets: string;
  readonly adapter?: string;
  readonly modules?: number;
  readonly checkpoint: boolean;
  readonly ms: number;
};

/** The backends of a choice, one after the other; each is closed before the next. */
async function onEach(o: Options, run: (backend: Backend) => Promise<void>): Promise<void> {
  const names = o.backend === 'all' ? (['wasm', 'webgpu'] as const) : [o.backend];
  for (const backend of names) {
    const { threads, revectorize } = o;
    const opened = await openChosen({ backend, revectorize, ...(threads === undefined ? {} : { threads }) });
    await run(opened);
    await opened.close();
  }
}

const number = (x: number, digits = 1): string => x.toFixed(digits);

function testRows(f: StepFigures): readonly (readonly [string, string])[] {
  const { fisher_step_ms: tested, fisher_ratio: ratio, replan_ms: replan } = f;
  if (tested === undefined || ratio === undefined || replan === undefined) return [];
  return [
    ['step with expansion test', `${number(tested)} ms, ${number(ratio, 3)} of a plain step with the same room`],
    [
      'new room for ranks',
      `${number(replan, 0)} ms once (trace, compile, commands), ${number(replan / f.step_ms, 2)} of a step`,
    ],
  ];
}

function printStep(io: Io, f: StepFigures, peak: Peak, beside: readonly PeerStep[]): void {
  const mib = (bytes: number) => `${number(bytes / 2 ** 20, 0)} MiB`;
  const rows: readonly (readonly [string, string])[] = [
    ['backend', `${f.backend} (${f.device})`],
    ['adapted modules', String(f.modules)],
    ['trace, compile', `${number(f.trace_ms, 0)} ms, ${number(f.compile_ms, 0)} ms; ${f.kernels} kernels`],
    [
      'step',
      `${number(f.step_ms)} ms at best, ${number(f.step_ms_median)} ms median; ${number(f.images_per_s)} images/s`,
    ],
    [
      'rate',
      `${number(f.gflops)} GFLOP/s (${number(f.gflop, 2)} GFLOP of contractions), ${number((100 * f.gflops) / peak.gflops, 0)} % of this machine's ${number(peak.gflops, 0)}`,
    ],
    ...testRows(f),
    ...beside.map((p): readonly [string, string] => [
      `PyTorch ${p.version}`,
      `${number(p.step_ms)} ms at best, ${number(p.step_ms_median)} ms median, ${p.modules} modules; ours ${number(f.step_ms / p.step_ms, 2)} of it`,
    ]),
    ['memory', `${mib(f.peak_bytes)} on the backend, ${mib(f.rss_bytes)} resident`],
  ];
  for (const [name, text] of rows) print(io, `${name.padEnd(26)}${printable(text, Number.POSITIVE_INFINITY)}`);
}

function printOps(io: Io, figures: readonly OpFigure[], peers: readonly PeerFigure[], peak: Peak): void {
  print(
    io,
    `this machine, ${peak.threads} threads: ${number(peak.gflops, 0)} GFLOP/s of 128-bit multiply-adds, ${number(peak.gbs, 0)} GB/s copied\n`,
  );
  print(
    io,
    `${'operation'.padEnd(34)}${'backend'.padEnd(10)}${'ms'.padStart(9)}${'GFLOP/s'.padStart(9)}${'GB/s'.padStart(7)}  of peak  peers (their time, ours/theirs)`,
  );
  for (const f of figures) {
    const rate = f.gflop > 0 ? (f.gflop / f.ms) * 1000 : 0;
    const bandwidth = (f.bytes / f.ms) * 1e-6;
    const share = f.bound === 'compute' ? rate / peak.gflops : bandwidth / peak.gbs;
    const beside = peers
      .filter((p) => p.name === f.name)
      .map((p) => `${p.peer} ${number(p.ms, 2)} ms, ${number(f.ms / p.ms, 2)}×`)
      .join('  ');
    print(
      io,
      `${f.name.padEnd(34)}${f.backend.padEnd(10)}${number(f.ms, 3).padStart(9)}${(rate > 0 ? number(rate) : '').padStart(9)}${number(bandwidth).padStart(7)}${`${number(100 * share, 0)} %`.padStart(9)}  ${beside}`,
    );
  }
}

/** @throws UsageError on what PyTorch's script cannot do beside us */
function checkPeerStep(o: Options): void {
  if (o.unetConfig === undefined)
    throw new UsageError('--peers with --step: give --unet-config, which PyTorch can build too');
  if (o.targets !== 'all-linear' || o.modules !== undefined || o.adapter !== undefined || o.checkpoint)
    throw new UsageError(
      '--peers with --step: adapts all linear layers and keeps all blocks; leave out what says otherwise',
    );
}

/** A parser for commander: names of axes. */
function axesOf(text: string): readonly Axis[] {
  const names = text.split(',').map((name) => name.trim());
  for (const name of names)
    if (!Object.hasOwn(AXES, name))
      throw new InvalidArgumentError(`expected some of ${Object.keys(AXES).join(', ')}, not ${name || 'nothing'}`);
  return names as Axis[];
}

/** `--growth`: one step in a process of its own for every point. */
async function growth(o: Options, io: Io): Promise<void> {
  if (o.step || o.peers || o.modules !== undefined || o.adapter !== undefined)
    throw new UsageError('--growth: measures steps of its own; leave out --step, --peers, --modules and --adapter');
  if (o.backend === 'all') throw new UsageError('--growth: choose one backend');
  const { backend, targets, ms, batch, resolution, rank } = o;
  const model = o.unetConfig === undefined ? ['--base', o.base ?? SMALL_BASE] : ['--unet-config', o.unetConfig];
  const fixed = [
    ...model,
    ...['--backend', backend, '--targets', targets, '--ms', String(ms)],
    ...(o.threads === undefined ? [] : ['--threads', String(o.threads)]),
    ...(o.revectorize ? [] : ['--no-revectorize']),
    ...(o.checkpoint ? ['--checkpoint'] : []),
  ];
  const tell = (line: string): void => void io.stderr.write(`${printable(line, Number.POSITIVE_INFINITY)}\n`);
  const middle = { batch, resolution, rank };
  const grown = await measureGrowth(middle, o.against, inProcess(fixed, io.signal), tell);
  const warning = loadWarning();
  if (o.json) return print(io, JSON.stringify({ middle, grown, ...(warning ? { warning } : {}) }, null, 2));
  print(io, `around batch ${batch}, ${resolution}×${resolution}, rank ${rank}, all modules of --targets ${targets}\n`);
  for (const line of growthTable(grown)) print(io, line);
  if (warning) print(io, `\n${warning}`);
}

export const main: Main = async (args, io) => {
  const program = command(
    'bench',
    'Times operations or a whole training step beside the limits of this machine.',
    [
      '',
      '--peers',
      '--step --unet-config train/bench/unet-32-64.json --peers --python venv/bin/python',
      '--step --base models/small-base',
      "--step --unet-config unet.json --batch 8 --resolution 224 --targets '**.attn1.*'",
      '--growth --resolution 128 --against batch,rank',
    ],
    io,
  )
    .addOption(
      new Option('--backend <name>', 'where to compute; all: wasm and webgpu').choices(CHOICES).default('auto'),
    )
    .addOption(new Option('--threads <n>', 'threads of the wasm backend').argParser(wholeNumber(1, 256)))
    .addOption(revectorizeOption())
    .addOption(new Option('--json', 'figures as JSON').default(false))
    .addOption(new Option('--ms <n>', 'time spent on each figure').argParser(wholeNumber(1, 600_000)).default(400))
    .addOption(new Option('--only <text>', 'operations whose name contains this'))
    .addOption(new Option('--peers', 'also time PyTorch, jax-js and tfjs where they are installed').default(false))
    .addOption(new Option('--peers-in <folder>', 'where jax-js and tfjs are installed').default('.', 'here'))
    .addOption(new Option('--python <path>', 'with --peers: a Python that has PyTorch').default(PYTHON))
    .addOption(new Option('--step', 'time one training step instead of operations').default(false))
    .addOption(new Option('--plain', 'with --step: only the one without an expansion test').default(false))
    .addOption(
      new Option('--growth', 'how time and memory of a step grow: each axis around the settings below').default(false),
    )
    .addOption(
      new Option('--against <axes>', 'axes of --growth, with commas between them')
        .argParser(axesOf)
        .default(Object.keys(AXES), 'all'),
    )
    .addOption(
      new Option('--base <path>', 'model of --step').default(undefined, 'the small base, without --unet-config'),
    )
    .addOption(new Option('--unet-config <file>', 'a U-Net configuration for --step, with random weights and context'))
    .addOption(new Option('--batch <n>', 'pictures per step').argParser(wholeNumber(1, 4096)).default(8))
    .addOption(new Option('--resolution <n>', 'pixels per side').argParser(wholeNumber(8, 4096)).default(224))
    .addOption(new Option('--rank <n>', 'rank of every adapter').argParser(wholeNumber(1, 1024)).default(4))
    .addOption(new Option('--targets <globs>', 'adapted layers: a preset or globs').default('all-linear'))
    .addOption(new Option('--adapter <path>', 'modules and ranks of this adapter or run, in place of these'))
    .addOption(
      new Option('--modules <n>', 'so many of these, evenly over the model (default: all)').argParser(
        wholeNumber(1, 100_000),
      ),
    )
    .addOption(new Option('--checkpoint', 'compute blocks again in the backward pass').default(false));
  const o = parseArgs<Options>(program, args);
  if (o.growth) return growth(o, io);
  if (o.step && o.peers) checkPeerStep(o);
  const figures: StepFigures[] = [];
  const ops: OpFigure[] = [];
  const beside: PeerStep[] = [];
  const timePeer = (): void => {
    const { unetConfig } = o;
    const found = o.peers && unetConfig ? benchPeerStep({ ...o, unetConfig }, o.ms, o.python) : undefined;
    if (found) beside.push(found);
  };
  if (o.step) {
    timePeer();
    const base = o.unetConfig === undefined ? (o.base ?? SMALL_BASE) : o.base;
    const settings = { ...o, base, checkpointBlocks: o.checkpoint };
    await onEach(o, async (backend) => void figures.push(await benchStep(settings, backend, o.ms)));
    // ours lies between two of the peer's
    timePeer();
  } else await onEach(o, async (backend) => void ops.push(...(await benchOps(backend, o.only ?? '', o.ms))));
  const names = ops.map((f) => f.name);
  const peers =
    o.peers && !o.step
      ? await benchPeers(names, o.ms, o.peersIn, o.python)
      : { figures: [], missing: o.peers && beside.length === 0 ? ['PyTorch'] : [] };
  // after what may be refused
  const peak = await measurePeak(o.threads);
  const warning = loadWarning();
  if (o.json) {
    const result = o.step
      ? { peak, steps: figures, ...(o.peers ? { peers: beside, missing: peers.missing } : {}) }
      : { peak, operations: ops, peers: peers.figures, missing: peers.missing };
    print(io, JSON.stringify({ ...result, ...(warning ? { warning } : {}) }, null, 2));
    return;
  }
  if (o.step)
    for (const f of figures) {
      printStep(io, f, peak, beside);
      print(io);
    }
  else printOps(io, ops, peers.figures, peak);
  if (peers.missing.length > 0) print(io, `\nnot installed here: ${peers.missing.join(', ')}`);
  if (warning) print(io, `\n${warning}`);
};

await runMain(import.meta, main);
