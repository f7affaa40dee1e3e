/**
 * Runs one real training step on a fast backend and in f64, and names the op that is worst:
 *
 *   npm run verify-step -- --backend webgpu
 *   npm run verify-step -- --base DIR --batch 2 --resolution 64 --targets attn
 *
 * Every node of the step's graph is computed twice from the same f32 operands: by the reference backend in f64, and alone
 * on the other backend. The difference is held to the bound of a first-order error analysis (train/verify/step/error-bound.ts);
 * above 1 of it, a kernel is wrong. Then the whole step runs there at once, fused, and its results are compared.
 */
import { Option } from 'commander';
import { computes, modulesOf } from '../core/compile/modules.ts';
import { type Backend, evaluate, leaves, read, type Tensor, tensor } from '../core/index.ts';
import type { HostArray } from '../core/ir/dtype.ts';
import { rebind } from '../core/ir/tensor.ts';
import { printable } from '../models/io/error.ts';
import { settingsOf } from '../selora/methods/registry.ts';
import { selora } from '../selora/methods/selora.ts';
import { type StepSettings, setUpStep } from './bench/step.ts';
import {
  type BackendOptions,
  command,
  type Io,
  type Main,
  openChosen,
  parseArgs,
  print,
  runMain,
  UsageError,
  wholeNumber,
  withBackend,
} from './cli/command.ts';
import { SMALL_BASE } from './model/paths.ts';
import { moduleOfLabels } from './step/modules.ts';
import { bounded } from './verify/step/error-bound.ts';
import { applyWide, bothWidths, graphOf, lastUses } from './verify/step/graph.ts';

type Options = BackendOptions & {
  readonly base?: string;
  readonly unetConfig?: string;
  readonly batch: number;
  readonly resolution: number;
  readonly rank: number;
  readonly targets: string;
  readonly tested: boolean;
  readonly worst: number;
};

/** One node that was computed twice. */
export type NodeFinding = {
  readonly op: string;
  readonly shapes: string;
  readonly module: string;
  /** largest error as a share of what the analysis allows */
  readonly share: number;
  /** the same error relative to the largest value of the result */
  readonly relative: number;
};
export type StepFindings = {
  readonly nodes: readonly NodeFinding[];
  /** the whole step at once: largest difference of the loss and of the updated adapters, relative */
  readonly loss: number;
  readonly adapters: number;
};

const sizes = (node: Tensor): string => node.inputs.map((x) => `[${x.shape.join('×')}]`).join(' · ');

/** @throws FileError or UsageError for a model or settings that do not fit */
export async function compareStep(
  settings: StepSettings & { readonly tested: boolean },
  backend: Backend,
): Promise<StepFindings> {
  const setup = await setUpStep(settings, backend);
  const { base, batch, hyper } = setup;
  const state = setup.state(settings.tested ? 1 : 0);
  const candidates = setup.candidates(state);
  const args = settings.tested ? [state, base, batch, hyper, candidates] : [state, base, batch, hyper];
  const graph = graphOf(backend, (recorder) => {
    const steps = setup.stepsOn(recorder);
    if (settings.tested) steps.tested.inspect(state, base, batch, hyper, candidates);
    else steps.plain.inspect(state, base, batch, hyper);
  });

  /** values of the reference, as f32 can hold them */
  const known = new Map<Tensor, { readonly f32: HostArray; readonly f64: HostArray }>();
  const given = [...leaves<Tensor>(args as never)];
  for (const [i, hole] of graph.inputs.entries()) {
    // after the arguments come the constants the step captured, which are data themselves
    const values = await read(given[i] ?? hole);
    known.set(hole, bothWidths(values, hole.dtype));
  }
  const modules = modulesOf(graph, moduleOfLabels({ method: selora, settings: settingsOf(selora) }));
  const released = lastUses(graph);
  const nodes: NodeFinding[] = [];
  for (const node of graph.order) {
    const operands = node.inputs.map((x) => ({ ...known.get(x)!, shape: x.shape, dtype: x.dtype }));
    const wide = applyWide(
      node,
      operands.map(({ f64, shape, dtype }) => tensor(f64, shape, dtype === 'f32' ? 'f64' : dtype)),
    );
    const exact = await bounded(wide, 4);
    for (const [i, o] of node.outs.entries()) {
      const value = exact[i]!.value;
      known.set(o, bothWidths(value as HostArray, o.dtype));
    }
    if (computes(node.op)) {
      const outs = rebind(
        node,
        operands.map(({ f32, shape, dtype }) => tensor(f32, shape, dtype)),
      );
      nodes.push({
        op: node.op.name,
        shapes: sizes(node),
        module: modules.get(node) ?? '',
        ...(await difference(evaluate([...outs], backend), exact)),
      });
    }
    for (const x of released.get(node) ?? []) known.delete(x);
  }

  const done = settings.tested
    ? setup.steps.tested(state, base, batch, hyper, candidates)
    : setup.steps.plain(state, base, batch, hyper);
  const results = leaves<Tensor>(done as never);
  let [loss, adapters] = [0, 0];
  for (const [i, t] of results.entries()) {
    const want = known.get(graph.outputs[i]!)!.f64;
    const { relative } = await difference([t], [{ value: want, bound: Float64Array.of() }]);
    if (t === done.loss) loss = relative;
    else adapters = Math.max(adapters, relative);
  }
  return { nodes, loss, adapters };
}

/** Largest error over all results, as a share of the bound and relative to the largest value. */
async function difference(
  actual: readonly Tensor[],
  expected: readonly { readonly value: ArrayLike<number>; readonly bound: Float64Array }[],
): Promise<{ readonly share: number; readonly relative: number }> {
  let [share, relative] = [0, 0];
  for (const [i, t] of actual.entries()) {
    const { value, bound } = expected[i]!;
    const got = await read(t);
    let [most, largest] = [0, 0];
    for (let j = 0; j < got.length; j++) {
      const error = got[j] === value[j] ? 0 : Math.abs(got[j]! - value[j]!);
      most = Math.max(most, Number.isNaN(error) ? Number.POSITIVE_INFINITY : error);
      largest = Math.max(largest, Math.abs(value[j]!));
      if (error > 0) share = Math.max(share, error / (bound[j] ?? Number.POSITIVE_INFINITY));
      if (Number.isNaN(error)) share = Number.POSITIVE_INFINITY;
    }
    relative = Math.max(relative, most / (largest || 1));
  }
  return { share, relative };
}

const figure = (x: number): string => (x === 0 ? '0' : Number.isFinite(x) ? x.toExponential(1) : '∞');

function report(io: Io, { nodes, loss, adapters }: StepFindings, backend: Backend, count: number): void {
  const byOp = new Map<string, { count: number; worst: NodeFinding }>();
  for (const n of nodes) {
    const before = byOp.get(n.op);
    byOp.set(n.op, {
      count: (before?.count ?? 0) + 1,
      worst: before && before.worst.share >= n.share ? before.worst : n,
    });
  }
  print(io, `${nodes.length} ops of one step on ${backend.name} (${printable(backend.device)}) against f64\n`);
  print(
    io,
    `${'op'.padEnd(16)}${'count'.padStart(6)}${'of allowed'.padStart(12)}${'relative'.padStart(10)}  worst operands, module`,
  );
  for (const [op, { count: n, worst }] of [...byOp]
    .sort(([, a], [, b]) => b.worst.share - a.worst.share)
    .slice(0, count))
    print(
      io,
      `${op.padEnd(16)}${String(n).padStart(6)}${figure(worst.share).padStart(12)}${figure(worst.relative).padStart(10)}  ${printable(`${worst.shapes}  ${worst.module}`, Number.POSITIVE_INFINITY)}`,
    );
  print(
    io,
    `\nthe whole step, fused: loss off by ${figure(loss)}, updated adapters and moments by ${figure(adapters)} (relative to the largest value)`,
  );
}

export const main: Main = async (args, io) => {
  const program = withBackend(
    command(
      'verify-step',
      'Runs one training step on a backend and in f64, op by op, and names the worst op.',
      ['', '--backend webgpu', '--base DIR --batch 2 --resolution 64 --targets attn'],
      io,
    ),
  )
    .addOption(new Option('--base <path>', 'model (default: the small base)'))
    .addOption(new Option('--unet-config <file>', 'a U-Net configuration instead, with random weights and context'))
    .addOption(new Option('--batch <n>', 'pictures').argParser(wholeNumber(1, 64)).default(2))
    .addOption(new Option('--resolution <n>', 'pixels per side').argParser(wholeNumber(8, 1024)).default(64))
    .addOption(new Option('--rank <n>', 'rank of every adapter').argParser(wholeNumber(1, 64)).default(2))
    .addOption(new Option('--targets <globs>', 'adapted layers: a preset or globs').default('all-linear'))
    .addOption(new Option('--tested', 'the step with the expansion test in it').default(false))
    .addOption(new Option('--worst <n>', 'how many ops to print').argParser(wholeNumber(1, 1000)).default(15));
  const o = parseArgs<Options>(program, args);
  const backend = await openChosen(o);
  const base = o.unetConfig === undefined ? (o.base ?? SMALL_BASE) : o.base;
  const findings = await compareStep({ ...o, base, checkpointBlocks: false }, backend);
  report(io, findings, backend, o.worst);
  await backend.close();
  const wrong = findings.nodes.filter((n) => !(n.share <= 1));
  if (wrong.length > 0) {
    const worst = wrong.reduce((a, b) => (a.share >= b.share ? a : b));
    throw new UsageError(
      `${wrong.length} of ${findings.nodes.length} ops are off by more than rounding explains, worst ${worst.op} ${worst.shapes} ${worst.module}`,
    );
  }
};

await runMain(import.meta, main);
