/** A person's own function: traced, differentiated, mapped, compiled, each stage with its values; and its gradient checked. */
import * as core from '../../../core/index.ts';
import {
  type Backend,
  CoreError,
  checkGrad,
  compile,
  cpuBackend,
  entries,
  type GradReport,
  type GraphData,
  leaves,
  mapTree,
  mean,
  ones,
  print,
  pullback,
  slice,
  squeeze,
  type Tensor,
  type Tree,
  tensor,
  toGraph,
  unflatten,
  valueAndGrad,
  vmap,
} from '../../../core/index.ts';
import { isFloat } from '../../../core/ir/dtype.ts';
import { topo } from '../../../core/ir/tensor.ts';
import { isTensor } from '../../../core/ir/tree.ts';
import { type Numbers, numbersOf } from './numbers.ts';

const cpu = cpuBackend() as Backend;
type F = (params: Tree<Tensor>, sample?: Tree<Tensor>) => Tensor;
/** What a source has to return: a scalar function of `params`, or of `params` and one sample of `batch`. */
interface Written {
  readonly f: F;
  readonly params: Tree<Tensor>;
  readonly batch?: Tree<Tensor>;
}

/** the file name that messages about a person's source carry */
export const SOURCE_NAME = 'your-function.js';
/** all functions of the core by name; classes begin with a capital */
const names = Object.entries(core).filter(([name, x]) => typeof x === 'function' && /^[a-z]/.test(name));
/** lines that `new Function` writes above the body */
const LINES_ABOVE = 2;

/** The place in a person's source that an error came from, where the stack knows it. */
function placeOf(error: Error): string {
  const at = new RegExp(`${SOURCE_NAME.replace('.', '\\.')}:(\\d+)`).exec(error.stack ?? '');
  return at ? `${SOURCE_NAME}:${Number(at[1]) - LINES_ABOVE}` : SOURCE_NAME;
}
/** Runs a part of a person's code; a mistake is told with its line there, as messages in Node name the line of the caller. */
export function inSource<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (!(error instanceof Error)) throw new CoreError(`${SOURCE_NAME}: ${String(error)}`);
    const place = placeOf(error);
    // the core names the first line outside its own files, which lie in one bundle with everything here
    if (error instanceof CoreError) error.message = error.message.replace(/\n {2}at .*$/, `\n  at ${place}`);
    else error.message = `${error.message}\n  at ${place}`;
    throw error;
  }
}

/** Evaluates a source. @throws CoreError where it returns something else than it should */
function read(source: string): Written {
  const made = inSource(() => {
    // a block, so that names of the core may be used for something else
    const body = new Function(
      ...names.map(([name]) => name),
      `'use strict';{${source}\n}\n//# sourceURL=${SOURCE_NAME}`,
    );
    return body(...names.map(([, x]) => x)) as unknown;
  });
  const said = (made ?? {}) as Partial<Written>;
  if (typeof said.f !== 'function' || said.params === undefined)
    throw new CoreError(`${SOURCE_NAME}: expected return { f, params } or return { f, params, batch } at its end`);
  for (const name of ['params', 'batch'] as const) {
    if (said[name] === undefined) continue;
    mapTree((x: unknown, path) => {
      if (!isTensor(x))
        throw new CoreError(
          `${SOURCE_NAME}: ${[name, path].filter(Boolean).join('.')} is no tensor: tensor([…]) makes one`,
        );
      return x;
    }, said[name] as never);
  }
  return said as Written;
}
/** A tree of recipes as data, each with its path as label, floats in `float` where that is said. */
async function settled(tree: Tree<Tensor>, name: string, float?: 'f64'): Promise<Tree<Tensor>> {
  const list = entries<Tensor>(tree);
  const numbers = await numbersOf(
    list.map(([, t]) => t),
    cpu,
  );
  return unflatten(
    tree,
    list.map(([path], i) => {
      const { values, shape, dtype } = numbers[i]!;
      const type = float !== undefined && isFloat(dtype) ? float : dtype;
      return tensor([...values], shape, type, [name, path].filter(Boolean).join('.'));
    }),
  );
}
/** one sample of a batch */
const sampleOf = (batch: Tree<Tensor>, at: number): Tree<Tensor> =>
  mapTree((x: Tensor) => squeeze(slice(x, { axis: 0, start: at, stop: at + 1 }), 0), batch) as Tree<Tensor>;
function scalar(y: unknown): Tensor {
  if (!isTensor(y)) throw new CoreError(`${SOURCE_NAME}: f returns no tensor, expected a scalar`);
  if (y.shape.length > 0)
    throw new CoreError(
      `${SOURCE_NAME}: f returns ${y.dtype}[${y.shape.join(', ')}], expected a scalar: mean(y) or sum(y)`,
    );
  return y;
}

/** numbers of a value that are sent to the page: more than it can show */
const MOST = 36;
/** A value of a graph, cut. */
export interface Value extends Numbers {
  readonly count: number;
}
/** A graph with what its nodes hold. */
export interface Drawn {
  readonly name: string;
  readonly text: string;
  readonly graph?: GraphData;
  /** by the numbers of the graph's values */
  readonly values?: readonly Value[];
  /** derivatives of the function by them */
  readonly gradients?: readonly (Value | undefined)[];
}
/** A buffer's life: from the kernel that writes it to the last that reads it. */
export interface Life {
  readonly buffer: number;
  readonly bytes: number;
  readonly start: number;
  readonly end: number;
}
/** What became of a function. */
export interface Ran {
  readonly value: number;
  readonly gradients: readonly (Numbers & { readonly path: string })[];
  readonly device: string;
  readonly stages: readonly Drawn[];
  /** the program's kernels and buffers, where the backend plans memory */
  readonly plan?: { readonly kernels: readonly string[]; readonly lives: readonly Life[] };
}

const cut = (x: Numbers): Value => ({ ...x, values: x.values.slice(0, MOST), count: x.values.length });
/** graphs with more values are told as text only */
const LARGE = 300;

async function drawn(name: string, tree: Tree<Tensor>, by?: Tensor): Promise<Drawn> {
  const graph = toGraph(tree);
  const text = print(tree);
  const all = topo(leaves<Tensor>(tree)).flatMap((node) => node.outs);
  if (all.length > LARGE) return { name, text };
  const values = await numbersOf(all, cpu);
  if (!by) return { name, text, graph, values: values.map(cut) };
  const back = all.map((t) => (isFloat(t.dtype) ? pullback([by], [ones([], by.dtype)], [t])[0] : undefined));
  const known = await numbersOf(
    back.filter((g) => g !== undefined),
    cpu,
  );
  let next = 0;
  return {
    name,
    text,
    graph,
    values: values.map(cut),
    gradients: back.map((g) => (g ? cut(known[next++]!) : undefined)),
  };
}

/** Runs a source and tells every stage. @throws CoreError with the line in the source */
export async function runWritten(backend: Backend, source: string): Promise<Ran> {
  const made = read(source);
  const params = await settled(made.params, 'params');
  const batch = made.batch === undefined ? undefined : await settled(made.batch, 'batch');
  const f: F = (...args) => inSource(() => scalar(made.f(...args)));
  const one = batch === undefined ? [] : [sampleOf(batch, 0)];
  const forward = f(params, ...one);
  const [value, g] = valueAndGrad(f as never)(params as never, ...(one as never[])) as unknown as [
    Tensor,
    Tree<Tensor>,
  ];
  const stages = [
    await drawn(batch ? 'traced, of one sample' : 'traced', forward, forward),
    await drawn('grad', { value, gradient: g } as unknown as Tree<Tensor>),
  ];
  const each = vmap(valueAndGrad(f as never) as never, [null, 0] as never) as unknown as (
    p: Tree<Tensor>,
    b: Tree<Tensor>,
  ) => [Tensor, Tree<Tensor>];
  if (batch) {
    const [losses, gradients] = each(params, batch);
    stages.push(await drawn('vmap(grad)', { losses, gradients } as unknown as Tree<Tensor>));
  }
  const step = compile<[p: Tree<Tensor>, b: Tree<Tensor>], { value: Tensor; gradient: Tree<Tensor> }>(
    (p, b) => {
      if (!batch) {
        const [y, d] = valueAndGrad(f as never)(p as never) as unknown as [Tensor, Tree<Tensor>];
        return { value: y, gradient: d };
      }
      const [y, d] = each(p, b);
      return { value: mean(y), gradient: mapTree((x: Tensor) => mean(x, 0), d) as Tree<Tensor> };
    },
    { backend },
  );
  const given = batch ?? {};
  const { simplified, lowered, planned } = step.stages(params, given);
  stages.push({ name: 'simplified', text: simplified.text, graph: simplified.data as GraphData });
  if (lowered) stages.push({ name: 'fused into kernels', text: lowered.text });
  if (planned) stages.push({ name: 'planned', text: planned.text });
  const result = step(params, given);
  const list = entries<Tensor>(result.gradient);
  const numbers = await numbersOf([result.value, ...list.map(([, t]) => t)], backend);
  const plan = planned?.data as { kernels: { name: string; detail: string }[]; spans: Life[] } | undefined;
  return {
    value: numbers[0]!.values[0]!,
    gradients: list.map(([path], i) => ({ ...numbers[1 + i]!, path })),
    device: backend.device,
    stages,
    ...(plan ? { plan: { kernels: plan.kernels.map((k) => `${k.name} ${k.detail}`), lives: plan.spans } } : {}),
  };
}

/** A leaf's part of a check. */
export interface LeafReport {
  readonly path: string;
  readonly report: GradReport;
}
/** Checks the derivative by each leaf of `params` by itself, and each backend against the reference. */
export async function checkWritten(source: string, backends: readonly Backend[]): Promise<readonly LeafReport[]> {
  const made = read(source);
  const reports: LeafReport[] = [];
  const treesIn = async (float?: 'f64') => ({
    params: await settled(made.params, 'params', float),
    batch: made.batch && (await settled(made.batch, 'batch', float)),
  });
  // the check asks in f64, and in f32 where the source holds f32 tensors of its own; backends compute in f32
  const in32 = await treesIn();
  const in64 = await treesIn('f64');
  for (const [i, [path, leaf]] of entries<Tensor>(in32.params).entries()) {
    if (!isFloat(leaf.dtype) || leaf.shape.includes(0)) continue;
    const f = (x: Tensor): Tensor => {
      const { params, batch } = x.dtype === 'f64' ? in64 : in32;
      const all = leaves<Tensor>(params).map((t, k) => (k === i ? x : t));
      return inSource(() => total(made, unflatten(params, all), batch));
    };
    reports.push({ path: path || 'params', report: await checkGrad(f, leaf, { backends }) });
  }
  if (reports.length === 0) throw new CoreError(`${SOURCE_NAME}: params holds no floats to differentiate by`);
  return reports;
}
/** The function, or its mean over the batch. */
function total({ f }: Written, params: Tree<Tensor>, batch: Tree<Tensor> | undefined): Tensor {
  if (batch === undefined) return scalar(f(params));
  const each = vmap(
    ((p: Tree<Tensor>, x: Tree<Tensor>) => scalar(f(p, x))) as never,
    [null, 0] as never,
  ) as unknown as (p: Tree<Tensor>, b: Tree<Tensor>) => Tensor;
  return mean(each(params, batch));
}
