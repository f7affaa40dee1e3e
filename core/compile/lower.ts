/**
 * Graph → kernels. Elementwise chains grow into clusters (one scalar program per point of an iteration space), layout ops
 * become strided reads, everything else is a kernel of its own. The rules, in full (2 and 3 are in fuse.ts):
 *  1. Reductions and `kernel` ops are roots: their results are stored.
 *  2. An elementwise node joins its consumers when all of them end up in one cluster, or when it is nearly free
 *     (fills, and one-operand chains of cheap steps); it never joins across an `expand`, which would repeat it.
 *  3. A cluster that would read more than `maxLoads` buffers stores its widest operand first; one that would take more
 *     than MAX_STEPS scalar steps stores its longest.
 *  4. A view that strides cannot express, or a kernel that wants contiguous operands, costs a copy.
 *  5. A `repeat` op on program inputs runs right before each kernel that reads it, each time into a short-lived buffer.
 *  6. The body of a `once` composite is lowered by itself; its kernels stand in the place of every application.
 *  7. A kernel that reads a stored type by itself is given what rule 5 would have widened for it.
 */

import { bytesOf, type DType, isStored } from '../ir/dtype.ts';
import { CoreError } from '../ir/errors.ts';
import { head, type Op, type Primitive, type Tensor } from '../ir/tensor.ts';
import { contiguousView, isWhole, same, sizeOf, type View } from '../ir/view.ts';
import type { Graph } from './backend.ts';
import { chooseInlined, formOf, kindOf } from './fuse.ts';
import type { Cluster, ClusterInput, ScalarStep } from './scalar.ts';

export interface Buffer {
  readonly id: number;
  readonly dtype: DType;
  readonly elements: number;
}
export interface Operand {
  readonly buffer: Buffer;
  readonly view: View;
}
export interface ClusterKernel {
  readonly kind: 'cluster';
  readonly cluster: Cluster;
  readonly node: Tensor;
  /** rule 6: the node whose body `node` stands in */
  readonly within?: Tensor;
  /** one per `cluster.inputs`, seen over the cluster's points */
  readonly inputs: readonly Operand[];
  readonly outputs: readonly Buffer[];
}
export interface OpKernel {
  readonly kind: 'op';
  readonly node: Tensor;
  readonly within?: Tensor;
  readonly inputs: readonly Operand[];
  /** contiguous, one per result of the node; undefined where nobody reads it and the kernel can leave it out */
  readonly outputs: readonly (Buffer | undefined)[];
}
export type Kernel = ClusterKernel | OpKernel;

/** the buffers a kernel reads, one per input */
export const readsOf = (k: Kernel): Buffer[] => k.inputs.map((o) => o.buffer);
/** the buffers it writes */
export const writesOf = (k: Kernel): readonly Buffer[] =>
  k.kind === 'cluster' ? k.outputs : k.outputs.filter((b) => b !== undefined);
export const bytesOfBuffer = (b: Buffer): number => bytesOf(b.dtype, b.elements);

export interface Lowered {
  readonly kernels: readonly Kernel[];
  /** one per graph input, contiguous */
  readonly inputs: readonly Buffer[];
  /** one per graph output, contiguous, each written by exactly one kernel */
  readonly outputs: readonly Buffer[];
}

export interface LowerOptions {
  /** may this operand of a kernel op be any strided view? Otherwise it is copied to row-major order. */
  strided(op: Op, operand: number): boolean;
  /** does this op's kernel widen this operand itself, of a stored type and lying so? Otherwise it is widened before (rule 5). */
  widens?(op: Op, operand: number, at: Operand): boolean;
  /** can this op's kernel leave out results? Otherwise all of them get a buffer. */
  partial?(op: Op): boolean;
  /** most buffers one cluster may read */
  readonly maxLoads: number;
  /** rule 6: the kernels of a composite's body on operands that lie so, for those of its results that are read (bodies.ts) */
  body?(node: Tensor, operands: readonly Operand[], isRead: readonly boolean[]): Lowered;
}

/** numbers that differ as constants differ as text */
const numberText = (x: number): string => (Object.is(x, -0) ? '-0' : String(x));
const readOf = ({ buffer, view }: Operand): ClusterInput => ({
  dtype: buffer.dtype,
  strides: view.strides,
  offset: view.offset,
});

/** The scalar program of a cluster while it grows: no step, and no operand, stands in it twice. */
class Draft {
  readonly steps: ScalarStep[] = [];
  readonly loads: Operand[] = [];
  /** the step of each load */
  private readonly loaded: number[] = [];
  private readonly made = new Map<Tensor | string, number>();
  /** the step that a key stands for already */
  known(key: Tensor | string): number | undefined {
    return this.made.get(key);
  }
  /** the step a key stands for, a new one where it is not known */
  step(key: Tensor | string, step: ScalarStep): number {
    const known = this.made.get(key);
    if (known !== undefined) return known;
    const at = this.steps.push(step) - 1;
    this.made.set(key, at);
    return at;
  }
  load(o: Operand): number {
    for (let i = 0; i < this.loads.length; i++) {
      const { buffer, view } = this.loads[i]!;
      if (buffer === o.buffer && view.offset === o.view.offset && same(view.strides, o.view.strides))
        return this.loaded[i]!;
    }
    const at = this.steps.push({ kind: 'load', input: this.loads.push(o) - 1, dtype: o.buffer.dtype }) - 1;
    this.loaded.push(at);
    return at;
  }
}

/** @param given how the inputs lie, where they are no buffers of their own: a stand-in for each, in this order */
export function lower(graph: Graph, options: LowerOptions, given?: readonly Operand[]): Lowered {
  const inlined = chooseInlined(graph, options.maxLoads);
  const kernels: Kernel[] = [];
  let nextBuffer = 0;
  const newBuffer = (dtype: DType, elements: number): Buffer => ({ id: nextBuffer++, dtype, elements });
  const stored = new Map<Tensor, Operand>();
  const copies = new Map<string, Buffer>();
  /** results somebody reads */
  const read = new Set(graph.outputs);
  for (const node of graph.order) for (const x of node.inputs) read.add(x);

  const inputs = graph.inputs.map((t, i) => {
    const buffer = newBuffer(t.dtype, given ? given[i]!.buffer.elements : sizeOf(t.shape));
    stored.set(t, { buffer, view: given ? given[i]!.view : contiguousView(t.shape) });
    return buffer;
  });

  const fromOutside = new Set<Buffer>(inputs);
  const repeats = new Set<Tensor>();
  /** results of identities, by what they are the same as */
  const sameAs = new Map<Tensor, Tensor>();
  /** rule 5: is the value of t made anew for each reader? */
  const isRepeated = (t: Tensor): boolean =>
    repeats.has(t) || sameAs.has(t) || (kindOf(t) === 'layout' && !stored.has(t) && isRepeated(t.inputs[0]!));

  /** rule 4: row-major copy of a view */
  const copy = (o: Operand, node: Tensor): Buffer => {
    if (isStored(o.buffer.dtype))
      throw new CoreError(
        `${node.op.name}: ${o.buffer.dtype} is for storage, it cannot be copied into another order: cast it first`,
      );
    const key = `${o.buffer.id}|${o.view.offset}|${o.view.shape}|${o.view.strides}`;
    const known = copies.get(key);
    if (known) return known;
    const buffer = newBuffer(o.buffer.dtype, sizeOf(o.view.shape));
    const cluster: Cluster = {
      shape: o.view.shape,
      inputs: [readOf(o)],
      steps: [{ kind: 'load', input: 0, dtype: o.buffer.dtype }],
      outputs: [0],
    };
    kernels.push({ kind: 'cluster', cluster, node, inputs: [o], outputs: [buffer] });
    copies.set(key, buffer);
    return buffer;
  };
  const applyLayout = (o: Operand, layout: Tensor): Operand => {
    const f = formOf(layout);
    if (f.kind !== 'layout') throw new Error(`${layout.op.name} is not a layout op`);
    const view = f.view(o.view, layout.attrs as never);
    if (view) return { buffer: o.buffer, view };
    const dense = { buffer: copy(o, layout), view: contiguousView(o.view.shape) };
    return { buffer: dense.buffer, view: f.view(dense.view, layout.attrs as never)! };
  };

  /** where the value of t can be read; stores it first when it only exists as a recipe */
  const resolve = (t: Tensor): Operand => {
    const known = stored.get(t);
    if (known) return known;
    if (repeats.has(t)) return storeKernel(t)[t.index]!;
    if (sameAs.has(t)) return resolve(sameAs.get(t)!);
    const operand =
      kindOf(t) === 'layout'
        ? applyLayout(resolve(t.inputs[0]!), t)
        : { buffer: storeCluster(t), view: contiguousView(t.shape) };
    if (!isRepeated(t)) stored.set(t, operand);
    return operand;
  };
  /** rule 7: what t is once it is widened, in its stored type; undefined where t is something else */
  const storedAs = (t: Tensor): Operand | undefined => {
    if (sameAs.has(t)) return storedAs(sameAs.get(t)!);
    if (repeats.has(t)) return (t.op as Primitive).widens ? resolve(t.inputs[0]!) : undefined;
    const f = formOf(t);
    const x = f?.kind === 'layout' && !stored.has(t) ? storedAs(t.inputs[0]!) : undefined;
    const view = x && f.kind === 'layout' ? f.view(x.view, t.attrs as never) : undefined;
    return x && view && { buffer: x.buffer, view };
  };
  /** the results of a `kernel` node in new buffers; undefined for those left out */
  const storeKernel = (node: Tensor): (Operand | undefined)[] => {
    const operands = node.inputs.map((x, i): Operand => {
      const narrow = options.widens && storedAs(x);
      if (narrow && options.widens?.(node.op, i, narrow)) return narrow;
      const o = resolve(x);
      return options.strided(node.op, i) || isWhole(o.view)
        ? o
        : { buffer: copy(o, node), view: contiguousView(o.view.shape) };
    });
    const partial = options.partial?.(node.op) ?? false;
    const outputs = node.outs.map((o) => (partial && !read.has(o) ? undefined : newBuffer(o.dtype, sizeOf(o.shape))));
    kernels.push({ kind: 'op', node, inputs: operands, outputs });
    return outputs.map((buffer, i) => buffer && { buffer, view: contiguousView(node.outs[i]!.shape) });
  };

  /** rule 6: the kernels of its body, on buffers of this program */
  const storeBody = (node: Tensor, lowerBody: NonNullable<LowerOptions['body']>): (Operand | undefined)[] => {
    const operands = node.inputs.map(resolve);
    const isRead = node.outs.map((o) => read.has(o));
    const body = lowerBody(node, operands, isRead);
    const here = new Map(body.inputs.map((b, i) => [b, operands[i]!.buffer]));
    const made = (b: Buffer): Buffer => {
      const buffer = newBuffer(b.dtype, b.elements);
      here.set(b, buffer);
      return buffer;
    };
    for (const k of body.kernels) {
      const reads = k.inputs.map(({ buffer, view }) => ({ buffer: here.get(buffer)!, view }));
      if (k.kind === 'op')
        kernels.push({ ...k, within: node, inputs: reads, outputs: k.outputs.map((b) => b && made(b)) });
      else kernels.push({ ...k, within: node, inputs: reads, outputs: k.outputs.map(made) });
    }
    let at = 0;
    return node.outs.map(({ shape }, i) =>
      isRead[i] ? { buffer: here.get(body.outputs[at++]!)!, view: contiguousView(shape) } : undefined,
    );
  };

  /** the step of a draft whose value is x, read through the layout ops of `path` (first applied first) */
  const emit = (draft: Draft, x: Tensor, path: readonly Tensor[], isRoot: boolean): number => {
    const there = isRoot ? undefined : stored.get(x);
    if (there) return draft.load(path.reduce(applyLayout, there));
    const f = x.op.kind === 'primitive' ? x.op.form : undefined;
    if (f?.kind === 'layout') return emit(draft, x.inputs[0]!, [x, ...path], false);
    if (f?.kind === 'fill') {
      const fill = f.at(x.attrs as never);
      if ('value' in fill)
        return draft.step(`const ${numberText(fill.value)} ${x.dtype}`, { kind: 'const', ...fill, dtype: x.dtype });
      if (path.length === 0)
        return draft.step(`iota ${fill.axis} ${x.dtype}`, { kind: 'iota', ...fill, dtype: x.dtype });
    }
    if (f?.kind === 'elementwise' && (isRoot || inlined.has(x))) {
      const key = path.length === 0 ? x : `${x.id} ${path.map((p) => p.id)}`;
      const known = draft.known(key);
      if (known !== undefined) return known;
      const args: number[] = [];
      for (const y of x.inputs) args.push(emit(draft, y, path, false));
      const call = { kind: 'call', fn: x.op.name, args, dtype: x.dtype } as const;
      return draft.step(key, f.converts ? { ...call, converts: true } : call);
    }
    return draft.load(path.reduce(applyLayout, resolve(x)));
  };
  /** one cluster that computes t (an elementwise, fill or reduce node) into a new buffer */
  const storeCluster = (t: Tensor): Buffer => {
    const f = formOf(t);
    const draft = new Draft();
    const result = f.kind === 'reduce' ? emit(draft, t.inputs[0]!, [], false) : emit(draft, t, [], true);
    const cluster: Cluster = {
      shape: f.kind === 'reduce' ? t.inputs[0]!.shape : t.shape,
      inputs: draft.loads.map(readOf),
      steps: draft.steps,
      outputs: [result],
      ...(f.kind === 'reduce' ? { reduce: { op: f.combine, axes: f.axes(t.attrs as never) } } : {}),
    };
    const buffer = newBuffer(t.dtype, sizeOf(t.shape));
    kernels.push({ kind: 'cluster', node: t, cluster, inputs: draft.loads, outputs: [buffer] });
    return buffer;
  };

  for (const node of graph.order) {
    const kind = kindOf(node);
    if (kind === 'identity') {
      for (const [i, o] of node.outs.entries())
        if (isRepeated(node.inputs[i]!)) sameAs.set(o, node.inputs[i]!);
        else stored.set(o, resolve(node.inputs[i]!));
    } else if (kind === 'kernel') {
      if ((node.op as Primitive).repeat && node.inputs.every((x) => fromOutside.has(resolve(x).buffer))) {
        repeats.add(node);
        continue;
      }
      const results =
        options.body && node.op.kind === 'composite' && node.op.once
          ? storeBody(node, options.body)
          : storeKernel(node);
      for (let i = 0; i < results.length; i++) if (results[i]) stored.set(node.outs[i]!, results[i]!);
    } else if (kind === 'reduce' || (kind === 'elementwise' && !inlined.has(node))) resolve(node);
  }

  // every output is a buffer of its own
  const taken = new Set<Buffer>(inputs);
  const outputs = graph.outputs.map((t) => {
    const o = resolve(t);
    const whole = isWhole(o.view) && o.buffer.elements === sizeOf(t.shape);
    let buffer = o.buffer;
    if (!whole || taken.has(buffer)) {
      copies.clear();
      buffer = copy(o, head(t));
      copies.clear();
    }
    taken.add(buffer);
    return buffer;
  });
  return { kernels, inputs, outputs };
}
