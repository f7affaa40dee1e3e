/** Records a step: the real update with a clock at every kernel, the gradient of every module, and a look into one sample. */
import {
  add,
  type Backend,
  compile,
  concat,
  evaluate,
  leaves,
  mapTree,
  mul,
  read,
  readScalar,
  reshape,
  type Shape,
  sum,
  type Tensor,
  type Tree,
} from '../../core/index.ts';
import type { TensorOut } from '../../models/io/safetensors-write.ts';
import { moduleName, networks } from '../../selora/networks.ts';
import type { ModelPlaces } from '../model/pipeline.ts';
import { gradients, type LossOptions, sampleLosses } from '../step/gradients.ts';
import {
  type Batch,
  type Frozen,
  type Hyper,
  type PerModule,
  paramsOf,
  type Ranks,
  type State,
  type Steps,
} from '../step/step.ts';
import { bytes as bytesText } from '../words/format.ts';
import { blocksOf } from './blocks.ts';
import { KINDS, type Trace, tensorName } from './format.ts';
import { chosenModules, insideOf, modulesIn, sampleOf } from './inside.ts';
import { kernelRows } from './kernels.ts';

/** Bytes of values that a file may hold: they are on the backend together. */
const MOST_BYTES = 512 * 2 ** 20;

/** A step that may be made: everything it takes. */
export interface Recording {
  readonly backend: Backend;
  readonly loss: LossOptions<never>;
  readonly steps: Steps<never>;
  readonly frozen: Frozen;
  readonly places: ModelPlaces;
  /** taken over by the step */
  readonly state: State<never>;
  readonly ranks: Ranks;
  /** micro-batches of the step */
  readonly batches: readonly Batch[];
  readonly hyper: Hyper;
}
/** What is told of a step beside what is measured of it. */
export type Told = Pick<Trace, 'source' | 'method' | 'step'> & {
  /** the report of each sample */
  readonly reports: readonly string[];
};

const finite = (x: number): number | null => (Number.isFinite(x) ? x : null);
const sizeOf = (shape: Shape): number => shape.reduce((n, side) => n * side, 1);
const shown = (shape: Shape): Shape => (shape.length > 1 && shape[0] === 1 ? shape.slice(1) : shape);

/** ‖∂loss/∂parameters‖ of every module, in the order of the networks. */
async function normsOf(g: PerModule<Tree<Tensor>>, backend: Backend): Promise<readonly number[]> {
  const squares = networks.flatMap((n) =>
    Object.values(g[n]).map((tree) =>
      leaves<Tensor>(tree)
        .map((x) => sum(mul(x, x)))
        .reduce((a, b) => add(a, b)),
    ),
  );
  if (squares.length === 0) return [];
  const all = evaluate(
    concat(
      squares.map((x) => reshape(x, [1])),
      0,
    ),
    backend,
  );
  return Array.from(await read(all), Math.sqrt);
}

/** Losses [b] of every micro-batch, and the mean gradient over all. */
async function backward(o: Recording): Promise<{ losses: readonly number[]; norms: readonly number[] }> {
  const { backend, batches, frozen } = o;
  const params = paramsOf(o.state);
  const program = compile(
    (p: PerModule<never>, f: Frozen, b: Batch) => ({
      losses: sampleLosses(o.loss, p, f, b),
      g: gradients(o.loss, p, f, b).g,
    }),
    { backend, name: 'gradients of a step' },
  );
  const losses: number[] = [];
  let total: Tree<Tensor> | undefined;
  for (const batch of batches) {
    const one = program(params, frozen, batch);
    losses.push(...Array.from(await read(one.losses), Number));
    const share = mapTree((x: Tensor) => mul(x, 1 / batches.length), one.g as unknown as Tree<Tensor>);
    const before = total && leaves<Tensor>(total);
    let at = 0;
    total = evaluate(before ? mapTree((x: Tensor) => add(x, before[at++]!), share) : share, backend);
  }
  program.trim();
  return { losses, norms: await normsOf(total as unknown as PerModule<Tree<Tensor>>, backend) };
}

/** Where a sample of the step is. */
function sampleAt(batches: readonly Batch[], sample: number): { batch: Batch; at: number; of: number } {
  const each = batches[0]!.t.shape[0]!;
  const of = each * batches.length;
  if (sample < 0 || sample >= of) throw new RangeError(`--sample ${sample + 1}: the step has ${of} samples`);
  return { batch: batches[Math.floor(sample / each)]!, at: sample % each, of };
}

/**
 * The trace of a step and its tensors, which are read when their turn comes. Memory: the step's own, then that of one sample
 * without recomputed blocks and what is recorded.
 * @param modules patterns of modules whose values are kept (`chosenModules`); '' for the blocks alone
 * @throws RangeError for a pattern that matches nothing, a sample there is not, or more values than a file may hold
 */
export async function recordStep(
  o: Recording,
  told: Told,
  { modules = '', sample = 0 }: { readonly modules?: string; readonly sample?: number } = {},
): Promise<{ readonly trace: Trace; readonly tensors: ReadonlyMap<string, TensorOut> }> {
  const { backend, batches, frozen, loss } = o;
  const blocks = blocksOf(loss.configs.unet);
  const wanted = new Set([
    ...blocks.map(({ path }) => path),
    ...(modules === '' ? [] : chosenModules(modules, modulesIn(frozen))),
  ]);
  const { batch, at, of } = sampleAt(batches, sample);
  const one = evaluate(sampleOf(batch, at), backend);
  const look = insideOf(loss, o.places, [...wanted], of);
  const params = paramsOf(o.state);
  const shapes = Object.values(look(params, frozen, one).values).map((x) => x.shape);
  const size = shapes.reduce((n, shape) => n + 8 * sizeOf(shape), 0);
  if (size > MOST_BYTES)
    throw new RangeError(
      `--modules ${modules}: the values of ${wanted.size} modules take ${bytesText(size)}, at most ${bytesText(MOST_BYTES)} are recorded: choose fewer`,
    );

  const { losses, norms } = await backward(o);
  const inside = compile(look, { backend, name: 'inside a step' });
  const seen = inside(params, frozen, one);
  inside.trim();

  const made = await update(o);
  const trace: Trace = {
    source: told.source,
    method: told.method,
    step: told.step,
    backend: backend.name,
    device: backend.device,
    loss: finite(made.loss),
    norm: finite(made.norm),
    samples: await samplesOf(batches, told.reports, losses),
    sample,
    blocks: blocks.map((b) => ({ ...b })),
    modules: networks
      .flatMap((n) => Object.keys(o.state[n]).map((path) => ({ path: moduleName(n, path), rank: o.ranks[n][path]! })))
      .map((m, i) => ({ ...m, gradient: finite(norms[i]!) })),
    kernels: made.kernels,
    values: [...wanted],
  };
  const tensors = new Map<string, TensorOut>();
  const put = (name: string, x: Tensor): void =>
    void tensors.set(name, {
      dtype: 'F32',
      shape: [...shown(x.shape)],
      data: async () => Float32Array.from(await read(x)),
    });
  for (const path of wanted) {
    put(tensorName(KINDS[0], path), seen.values[path]!);
    put(tensorName(KINDS[1], path), seen.cotangents[path]!);
  }
  put(tensorName('sample', 'noisy'), one.x);
  put(tensorName('sample', 'target'), one.target);
  put(tensorName('sample', 'prediction'), seen.values[blocks.at(-1)!.path]!);
  return { trace, tensors };
}

async function samplesOf(
  batches: readonly Batch[],
  reports: readonly string[],
  losses: readonly number[],
): Promise<Trace['samples']> {
  const t: number[] = [];
  for (const batch of batches) t.push(...Array.from(await read(batch.t), Number));
  return t.map((at, i) => ({ report: reports[i]!, t: at, loss: finite(losses[i]!) }));
}

/** The update itself, with times where it is one program. */
async function update(o: Recording): Promise<{ loss: number; norm: number; kernels: Trace['kernels'] }> {
  const { steps, frozen, batches, hyper } = o;
  const single = batches.length === 1;
  const done = single
    ? await steps.plain.profile(o.state, frozen, batches[0]!, hyper)
    : await steps.accumulated(o.state, frozen, batches, hyper);
  // the step took its state over; the one it left has the same shapes
  const args = [done.state, frozen, batches[0]!] as const;
  const program = single
    ? { ...steps.plain.inspect(...args, hyper), lowered: steps.plain.stages(...args, hyper).lowered }
    : { ...steps.part.inspect(...args), lowered: steps.part.stages(...args).lowered };
  const result = { loss: await readScalar(done.loss), norm: await readScalar(done.norm) };
  steps.trim();
  return { ...result, kernels: kernelRows(program.kernels, program.lowered) };
}
