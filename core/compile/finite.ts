/**
 * Programs that look at every value they make: beside its results such a program returns, for every node, the first place
 * that is NaN or infinite. The check is on the backend itself, so it finds the same on all of them; the error comes with
 * the next `read`, which is the first moment anybody waits for values.
 */
import { isFloat } from '../ir/dtype.ts';
import { CoreError } from '../ir/errors.ts';
import { isLeaf, type Op, type Shape, type Tensor, topo } from '../ir/tensor.ts';
import { coordinatesOf, sizeOf } from '../ir/view.ts';
import { concat } from '../ops/concat.ts';
import { full, iota } from '../ops/fill.ts';
import { reshape } from '../ops/layout.ts';
import { finite, select, sub } from '../ops/math.ts';
import { max } from '../ops/reduce.ts';
import type { Backend, Executable, Graph } from './backend.ts';
import { isOnce } from './bodies.ts';
import { beforeNextRead } from './data.ts';
import { computes, type ModuleOf, modulesOf } from './modules.ts';

/** A value of a checked program is NaN or infinite; fields say which and where. */
export class NonFiniteError extends CoreError {
  override name = 'NonFiniteError';
  /** the op that made it */
  readonly op: string;
  /** the path of the module it works for, where known */
  readonly module: string | undefined;
  /** that of the spoilt tensor */
  readonly shape: Shape;
  /** coordinates of the first such element; the first one counts samples where the batch is the first axis */
  readonly position: readonly number[];
  constructor(message: string, at: Pick<NonFiniteError, 'op' | 'module' | 'shape' | 'position'>) {
    super(message);
    [this.op, this.module, this.shape, this.position] = [at.op, at.module, at.shape, at.position];
  }
}

/** row-major number of the first element that is not finite, their count where all are: i32[1] */
function firstBad(t: Tensor): Tensor {
  const n = sizeOf(t.shape);
  const left = sub(n, iota([n], 0, 'i32'));
  return sub(n, max(select(finite(reshape(t, [n])), full([n], 0, 'i32'), left), 0, true));
}
/** operands of one concat: kernels may bind only so many */
const TOGETHER = 32;
function joined(parts: readonly Tensor[]): Tensor {
  if (parts.length === 1) return parts[0]!;
  const groups = Array.from({ length: Math.ceil(parts.length / TOGETHER) }, (_, i) =>
    concat(parts.slice(i * TOGETHER, (i + 1) * TOGETHER), 0),
  );
  return joined(groups);
}
/** The kernels of a backend, less those that would hide nodes: what looks at every value looks into bodies, too. */
export const everyNode =
  (backend: Backend) =>
  (op: Op): boolean =>
    backend.hasKernel(op) && !isOnce(op);

/** What a message may say beside the op. */
export interface CheckOptions {
  readonly name?: string;
  readonly moduleOf?: ModuleOf | undefined;
}

/** The program of a graph that also checks its values; see the head of this file. Cost: one more read of every value. */
export function buildChecked(backend: Backend, graph: Graph, options: CheckOptions = {}): Executable<unknown> {
  const read = new Set<Tensor>([...graph.outputs, ...graph.order.flatMap((node) => node.inputs)]);
  const made = graph.order.filter((node) => computes(node.op)).flatMap((node) => node.outs);
  const watched = [...graph.inputs, ...made].filter((t) => isFloat(t.dtype) && read.has(t) && sizeOf(t.shape) > 0);
  if (watched.length === 0) return backend.build(graph);
  const outputs = [...graph.outputs, joined(watched.map(firstBad))];
  const order = topo(outputs).filter((t) => !isLeaf(t));
  const program = backend.build({ ...graph, outputs, order });
  const modules = options.moduleOf && modulesOf(graph, options.moduleOf);

  const judge = async (storage: unknown): Promise<void> => {
    const places = await backend.load(storage);
    backend.free(storage);
    const bad = watched.findIndex((t, i) => places[i]! < sizeOf(t.shape));
    if (bad < 0) return;
    const t = watched[bad]!;
    const position = coordinatesOf(places[bad]!, t.shape);
    const module = modules?.get(t.outs[0]!);
    const what = isLeaf(t) ? `argument ${t.label ?? ''}`.trim() : `made by ${t.op.name}`;
    const where = module === undefined ? '' : ` in ${module}`;
    throw new NonFiniteError(
      `${options.name ?? 'program'}: the first value that is not finite is ${what}${where}: ${t.dtype}[${t.shape.join(', ')}] at [${position.join(', ')}]`,
      { op: t.op.name, module, shape: t.shape, position },
    );
  };
  const finish = (results: readonly unknown[]): readonly unknown[] => {
    const storage = results.at(-1);
    beforeNextRead(() => judge(storage));
    return results.slice(0, -1);
  };
  return {
    ...bound(program),
    run: (inputs) => finish(program.run(inputs)),
    profile: async (inputs) => finish(await program.profile(inputs)),
  };
}
/** an executable may be an instance of a class */
const bound = (p: Executable<unknown>): Omit<Executable<unknown>, 'run' | 'profile'> => ({
  get workspaceBytes() {
    return p.workspaceBytes;
  },
  report: (modules) => p.report(modules),
  release: () => p.release(),
  ...(p.stages ? { stages: () => p.stages!() } : {}),
});

/**
 * `checkFinite(backend)` → the backend whose programs check every value: the next `read` after a run throws a NonFiniteError
 * that names the first value that is NaN or infinite. Tensors belong to the backend they were made on: use the one or the
 * other throughout. Cost: one more read of every value.
 */
export const checkFinite = (backend: Backend, options: CheckOptions = {}): Backend =>
  // what is not overridden is the backend's own, getters included
  Object.create(backend, {
    build: { value: (graph: Graph) => buildChecked(backend, graph, options) },
    hasKernel: { value: everyNode(backend) },
  }) as Backend;
