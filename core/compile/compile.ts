/** compile(f): trace once per shape, simplify, hand to the backend, replay. evaluate(tree): the same for a loose graph. */

import { bytesOf, isStored } from '../ir/dtype.ts';
import { CoreError } from '../ir/errors.ts';
import { print, toGraph } from '../ir/print.ts';
import { areTraced, signature } from '../ir/signature.ts';
import { hole, isLeaf, type Op, type Tensor, topo } from '../ir/tensor.ts';
import { isTensor, leaves, mapTree, type Tree, unflatten } from '../ir/tree.ts';
import { sizeOf } from '../ir/view.ts';
import type { Backend, Executable, Graph, KernelReport, Stage } from './backend.ts';
import { donate, isData, placedTensor, storageOn } from './data.ts';
import { buildChecked, everyNode } from './finite.ts';
import { type ModuleOf, modulesOf } from './modules.ts';
import { simplify } from './simplify.ts';

export interface CompileOptions {
  readonly backend: Backend;
  /** positions of arguments whose storage the program takes over: `state = step(state, batch)` */
  readonly donate?: readonly number[];
  /** a name for messages and profiles */
  readonly name?: string;
  /** for profiles and checks: the module a labelled argument is a parameter of */
  readonly moduleOf?: ModuleOf;
  /** 'finite': the next `read` after a run throws a NonFiniteError that names the first value that is NaN or infinite */
  readonly check?: 'finite';
}

/** What becomes of a function on its way to a program; the last two where the backend runs kernels. */
export interface Stages {
  /** the graph as it was written */
  readonly traced: Stage;
  /** after the simplifier's rules */
  readonly simplified: Stage;
  /** as kernels */
  readonly lowered?: Stage;
  /** kernels with the memory they work on */
  readonly planned?: Stage;
}
const graphStage = (tree: Tree<Tensor>): Stage => ({ text: print(tree), data: toGraph(tree) });

/** The place of an output in a result tree; a class, because trees take plain records for inner nodes. */
class OutputAt {
  readonly index: number;
  constructor(index: number) {
    this.index = index;
  }
}

interface Program {
  readonly graph: Graph;
  readonly executable: Executable<unknown>;
  /** data tensors the function captured */
  readonly captured: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  /** the result tree with an `OutputAt` in the place of every tensor */
  readonly shape: unknown;
  readonly traceMs: number;
  readonly buildMs: number;
}
/** What `compile` makes of a function: called with trees of the same shapes it runs, with other shapes it compiles once more. */
export interface Compiled<A extends readonly unknown[], R> {
  (...args: A): R;
  /** as a call, with a clock at every kernel; `report` then has times */
  profile(...args: A): Promise<R>;
  /** kernels, workspace, size of the results and times of the program these arguments run; builds it when needed */
  inspect(...args: A): {
    readonly kernels: readonly KernelReport[];
    readonly workspaceBytes: number;
    readonly resultBytes: number;
    readonly traceMs: number;
    readonly buildMs: number;
  };
  /** every stage of the program these arguments run, as text and as plain data; builds it when needed */
  stages(...args: A): Stages;
  /** number of programs built so far (one per tree structure and shapes) */
  readonly programs: number;
  /** gives back the workspaces of all programs but the last `keep` used ones */
  trim(keep?: number): void;
}

export function makeGraph(
  outputs: readonly Tensor[],
  args: readonly Tensor[],
  donated: ReadonlySet<number>,
  backend: Backend,
  hasKernel = (op: Op): boolean => backend.hasKernel(op),
): { graph: Graph; captured: Tensor[] } {
  const finals = simplify(outputs, hasKernel);
  const order = topo(finals);
  const known = new Set(args);
  const captured = order.filter((t) => isLeaf(t) && !known.has(t));
  for (const t of captured)
    if (!isData(t))
      throw new CoreError(
        `a traced function let an argument of another trace escape: ${t.label ?? `${t.dtype}[${t.shape.join(', ')}]`}`,
      );
  for (const t of order)
    for (const o of t.outs)
      if (!backend.supports(o.dtype))
        throw new CoreError(
          `backend ${backend.name} has no ${o.dtype}: ${t.op.name} makes ${o.dtype}[${o.shape.join(', ')}]; use the cpu backend`,
        );
  return {
    graph: { inputs: [...args, ...captured], outputs: finals, order: order.filter((t) => !isLeaf(t)), donated },
    captured,
  };
}

/**
 * `compile(f, { backend })` → a function of the same type that runs as one program on the backend. Inside `grad`, `vmap` or
 * another compiled function it is part of their graph, so that it may be differentiated, mapped and nested.
 * Parameters without a type are tensors. Arguments are trees; tensor leaves may change their values freely, anything else (shapes, numbers, strings, structure,
 * functions and objects by identity) is static: a new value builds a new program. Tensors f captures keep their values.
 * @throws DonatedError when a donated argument is used again; CoreError when one is given at two places.
 * @example const step = compile((state, batch) => …, { backend, donate: [0] }); state = step(state, batch);
 */
export function compile<A extends readonly Tensor[], R>(f: (...args: A) => R, options: CompileOptions): Compiled<A, R>;
export function compile<A extends readonly unknown[], R>(f: (...args: A) => R, options: CompileOptions): Compiled<A, R>;
export function compile<A extends readonly unknown[], R>(
  f: (...args: A) => R,
  options: CompileOptions,
): Compiled<A, R> {
  const { backend } = options;
  const name = options.name ?? (f.name || 'a compiled step');
  const cache = new Map<string, Program>();

  const trace = (args: A): Program => {
    const start = performance.now();
    const holes: Tensor[] = [];
    const donated = new Set<number>();
    const traced = args.map((arg, position) =>
      mapTree((x: unknown, path) => {
        if (!isTensor(x)) return x;
        const h = hole(x, x.label ?? (path || `argument ${position}`));
        if (options.donate?.includes(position)) donated.add(holes.length);
        holes.push(h);
        return h;
      }, arg),
    );
    const result = f(...(traced as unknown as A));
    const outputs: Tensor[] = [];
    const shape = mapTree((x: unknown) => (isTensor(x) ? new OutputAt(outputs.push(x) - 1) : x), result);
    const keeps = options.check ? everyNode(backend) : undefined;
    const { graph, captured } = makeGraph(outputs, holes, donated, backend, keeps);
    const traceMs = performance.now() - start;
    const executable = options.check
      ? buildChecked(backend, graph, { name, moduleOf: options.moduleOf })
      : backend.build(graph);
    const buildMs = performance.now() - start - traceMs;
    return { graph, executable, captured, outputs, shape, traceMs, buildMs };
  };

  const lookup = (args: A, { key } = signature(args)): Program => {
    let program = cache.get(key);
    if (!program) program = trace(args);
    // most recently used last
    cache.delete(key);
    cache.set(key, program);
    return program;
  };

  const storages = (program: Program, args: A): unknown[] => {
    const given: Tensor[] = [];
    for (const arg of args) mapTree((x: unknown) => void (isTensor(x) && given.push(x)), arg);
    const all = [...given, ...program.captured].map((t) => storageOn(t, backend));
    // a program may write where a donated tensor lies, so nobody else may read there
    const places = new Map<unknown, number>();
    for (const s of all) places.set(s, (places.get(s) ?? 0) + 1);
    for (const position of options.donate ?? [])
      mapTree((x: unknown, path) => {
        if (isTensor(x) && places.get(storageOn(x, backend))! > 1)
          throw new CoreError(
            `${name}: ${x.label ?? (path || `argument ${position}`)} is donated and stands at another place too`,
          );
      }, args[position]);
    for (const position of options.donate ?? [])
      mapTree((x: unknown) => void (isTensor(x) && donate(x, backend, name)), args[position]);
    return all;
  };
  const finish = (program: Program, results: readonly unknown[]): R => {
    const tensors = program.outputs.map((o, i) => placedTensor(backend, results[i], o.shape, o.dtype));
    return mapTree((x: unknown) => (x instanceof OutputAt ? tensors[x.index] : x), program.shape) as R;
  };

  const compiled = (...args: A): R => {
    // inside another trace it is part of that: differentiated, mapped and compiled with it
    const signed = signature(args);
    if (areTraced(signed.recipes)) return f(...args);
    const program = lookup(args, signed);
    return finish(program, program.executable.run(storages(program, args)));
  };
  return Object.defineProperties(
    Object.assign(compiled, {
      profile: async (...args: A): Promise<R> => {
        const program = lookup(args);
        return finish(program, await program.executable.profile(storages(program, args)));
      },
      inspect: (...args: A) => {
        const { graph, outputs, executable, traceMs, buildMs } = lookup(args);
        const kernels = executable.report(options.moduleOf && modulesOf(graph, options.moduleOf));
        const resultBytes = outputs.reduce((n, t) => n + bytesOf(t.dtype, sizeOf(t.shape)), 0);
        return { kernels, workspaceBytes: executable.workspaceBytes, resultBytes, traceMs, buildMs };
      },
      stages: (...args: A): Stages => {
        const { graph, outputs, executable } = lookup(args);
        return { traced: graphStage(outputs), simplified: graphStage(graph.outputs), ...executable.stages?.() };
      },
      trim: (keep = 0) => {
        for (const [key, program] of [...cache].slice(0, cache.size - keep)) {
          program.executable.release();
          cache.delete(key);
        }
      },
    }),
    { programs: { get: () => cache.size } },
  ) as Compiled<A, R>;
}

/** Computes a tree of recipes: every tensor of the result holds values on the backend. */
export function evaluate<P extends Tree<Tensor>>(tree: P, backend: Backend): P {
  // stored types stay where they are: no program can write them
  const stays = (t: Tensor) => isData(t) && isStored(t.dtype);
  const all = leaves<Tensor>(tree);
  if (all.every(isData)) return tree;
  const outputs = all.filter((t) => !stays(t));
  const { graph, captured } = makeGraph(outputs, [], new Set(), backend);
  const executable = backend.build(graph);
  const results = executable.run(captured.map((t) => storageOn(t, backend)));
  executable.release();
  const made = new Map(outputs.map((o, i) => [i, placedTensor(backend, results[i], o.shape, o.dtype)]));
  let at = 0;
  return unflatten(
    tree,
    all.map((t) => (stays(t) ? t : made.get(at++)!)),
  );
}
