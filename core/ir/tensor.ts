/**
 * The whole intermediate representation: a Tensor is either data or a recipe (op, inputs, attrs). Tensors are
 * immutable; programs are the directed acyclic graphs that hang below them. Nothing is computed here.
 */

import type { NdArray } from 'ndarray';
import { type DType, type HostArray, isStored } from './dtype.ts';
import { MissingRuleError, shapeError } from './errors.ts';
import { checkShape } from './rules.ts';
import type { View } from './view.ts';

/** Sizes of the axes, first to last; `[]` is a scalar. */
export type Shape = readonly number[];
export interface OutSpec {
  readonly shape: Shape;
  readonly dtype: DType;
}
export type Attrs = object;
/** Host arrays behind ndarray views: what the reference kernels read and write. */
export type Nd = NdArray<HostArray>;

/** A node of the immutable graph, or one result of it: what to compute, never when. `read` and `compile` make numbers of it. */
export interface Tensor<D extends DType = DType> {
  /** creation order; inputs always have smaller ids, so sorting by id is a topological sort */
  readonly id: number;
  /** what is applied */
  readonly op: Op;
  /** what it is applied to */
  readonly inputs: readonly Tensor[];
  /** what the op is told beside its inputs */
  readonly attrs: Attrs;
  /** the size of each axis */
  readonly shape: Shape;
  /** the type of every number */
  readonly dtype: D;
  /** all results of this application of the op, in order; `outs[index]` is this tensor */
  readonly outs: readonly Tensor[];
  /** which of the op's results it is */
  readonly index: number;
  /** a name for messages: a parameter's path, an argument's position */
  readonly label?: string;
}

/** Random-input recipe for one operand of an op's test case. */
export interface OperandSample {
  readonly shape: Shape;
  readonly dtype?: DType;
  /** values are drawn from [lo, hi) (integers for integer dtypes); default [-2, 2) */
  readonly range?: readonly [number, number];
  /** what becomes of the drawn values where they must be more than numbers of a range (a definite matrix) */
  readonly make?: (values: readonly number[], shape: Shape) => readonly number[];
}
export interface Sample<A> {
  readonly operands: readonly OperandSample[];
  readonly attrs: A;
}
/** uniform integer in [lo, hi] (both included) */
export type Pick = (lo: number, hi: number) => number;

interface OpCommon<A extends Attrs> {
  readonly name: string;
  /** other names people look it up by */
  readonly aliases?: readonly string[];
  /** one line on what it is */
  readonly doc: string;
  /** the formula, with named dimensions */
  readonly formula: string;
  /** shapes and dtypes of the results; throws a ShapeError that states the rule */
  shape(inputs: readonly Tensor[], attrs: A): OutSpec | readonly OutSpec[];
  /** floating-point operations of one evaluation (a multiply-add counts 2) */
  flops?(inputs: readonly Tensor[], attrs: A): number;
  /** a random valid application, for the test battery and `explain` */
  sample(pick: Pick): Sample<A>;
  /** true: takes stored types (f16). Views and identities take them anyway; everything else refuses them */
  readonly takesStored?: boolean;
}

/**
 * Vector-Jacobian product: cotangents of the results → cotangents of the inputs (undefined = zero). What `wanted` says
 * false for is thrown away; a rule only looks at it where working it out would cost something or could fail.
 */
export type Vjp<A extends Attrs, R = readonly (Tensor | undefined)[]> = (
  cotangents: readonly (Tensor | undefined)[],
  inputs: readonly Tensor[],
  attrs: A,
  outs: readonly Tensor[],
  wanted?: readonly boolean[],
) => R;

/** Batching rule: mapped inputs carry the batch as axis 0; all results must carry it as axis 0. */
export type BatchRule<A extends Attrs> = (
  size: number,
  inputs: readonly Tensor[],
  mapped: readonly boolean[],
  attrs: A,
) => readonly Tensor[];

/** What a source is at every point: one number, or the coordinate along an axis. */
export type Fill = { readonly value: number } | { readonly axis: number };

/** How the compiler may treat a primitive; it reads these fields and never asks for a name. */
export type Form =
  /**
   * the same scalar function at every element; all shapes equal; cost in simple instructions (default 1); `converts`: the
   * value stays, only its dtype becomes the result's; `neutral`: for each of two operands the constant that leaves the
   * other as it is, to the bit
   */
  | {
      readonly kind: 'elementwise';
      readonly js: (...x: number[]) => number;
      /** the same on integers, where it differs */
      readonly integer?: (...x: number[]) => number;
      readonly cost?: number;
      readonly converts?: true;
      readonly neutral?: readonly (number | undefined)[];
    }
  /** a constant or a coordinate, free to recompute anywhere */
  | { readonly kind: 'fill'; readonly at: (attrs: never) => Fill }
  /** another view of the input's buffer; undefined when a copy is needed */
  | { readonly kind: 'layout'; readonly view: (v: View, attrs: never) => View | undefined }
  /** fold along axes, keeping them with size 1 */
  | {
      readonly kind: 'reduce';
      readonly combine: 'sum' | 'max';
      readonly axes: (attrs: never) => readonly number[];
    }
  /** results are the inputs themselves; orders and separates, computes nothing */
  | { readonly kind: 'identity' }
  /** everything else: a kernel of its own */
  | { readonly kind: 'kernel' }
  /** leaves: program inputs, data, holes of a trace */
  | { readonly kind: 'leaf' };

/** An op with loops of its own: how it is differentiated, mapped, treated by the compiler, and its reference kernel. */
export interface Primitive<A extends Attrs = Attrs> extends OpCommon<A> {
  /** what kind of op it is */
  readonly kind: 'primitive';
  /** how the compiler may treat it */
  readonly form: Form;
  /** what every result is where an operand has no elements (a sum over nothing); kernels never see such an operand */
  whenEmpty?(attrs: A): number;
  /** true: where it reads program inputs only, it runs again for every reader instead of keeping its result */
  readonly repeat?: boolean;
  /** true: its result is its operand, of a stored type, as f32: a kernel that reads the stored type can do without it */
  readonly widens?: boolean;
  /** its derivative */
  readonly vjp: Vjp<A> | 'nondifferentiable';
  /** true: its results count as constants, so that nothing behind it needs a derivative */
  readonly stops?: true;
  /** the path its value can be asked for by (`capture`) */
  path?(attrs: A): string;
  /** how it is mapped over one more axis (`vmap`) */
  readonly batch: BatchRule<A>;
  /** the definition, as plain loops over ndarray views; outputs arrive zeroed and contiguous */
  cpu(inputs: readonly Nd[], attrs: A, outs: readonly Nd[]): void;
}

/** An op written in other ops, with closed forms and kernels of its own where they pay. */
export interface Composite<A extends Attrs = Attrs> extends OpCommon<A> {
  /** what kind of op it is */
  readonly kind: 'composite';
  /** the meaning, in other ops; a backend without a kernel runs this */
  body(inputs: readonly Tensor[], attrs: A): readonly Tensor[];
  /**
   * true: a backend of kernels that keeps the node lowers its body once for all applications with these attributes to
   * operands that lie alike
   */
  readonly once?: boolean;
  /** closed form; where it is left out or answers undefined, the body is differentiated */
  readonly vjp?: Vjp<A, readonly (Tensor | undefined)[] | undefined>;
  /** where it is left out or answers undefined, the body is mapped */
  readonly batch?: (...x: Parameters<BatchRule<A>>) => readonly Tensor[] | undefined;
}

/** Any op. Attrs of an op are only ever handed back to that op, so ops of all attrs in one type are sound. */
export type Op = Primitive<never> | Composite<never> | Primitive | Composite;

let nextId = 0;

/** What consoles call for the text of a value (node:util). */
const INSPECT = Symbol.for('nodejs.util.inspect.custom');
/** a node of the graph; a class, so that a console shows one line instead of everything below it */
class Node<D extends DType> implements Tensor<D> {
  readonly id = nextId++;
  readonly op: Op;
  readonly inputs: readonly Tensor[];
  readonly attrs: Attrs;
  readonly shape: Shape;
  readonly dtype: D;
  readonly outs: readonly Tensor[];
  readonly index: number;
  readonly label?: string;
  constructor(
    op: Op,
    inputs: readonly Tensor[],
    attrs: Attrs,
    { shape, dtype }: { shape: Shape; dtype: D },
    outs: readonly Tensor[],
    index: number,
    label?: string,
  ) {
    this.op = op;
    this.inputs = inputs;
    this.attrs = attrs;
    this.shape = shape;
    this.dtype = dtype;
    this.outs = outs;
    this.index = index;
    if (label) this.label = label;
  }
  /** `Tensor f32[2, 3] = dot(f32[1, 2, 4], f32[1, 4, 3])`, with its label */
  toString(): string {
    const of = this.inputs.map(typeOf).join(', ');
    const from = this.inputs.length > 0 ? ` = ${this.op.name}(${of})` : ` ${this.op.name}`;
    return `Tensor ${typeOf(this)}${from}${this.label ? ` ${this.label}` : ''}`;
  }
  [INSPECT](): string {
    return this.toString();
  }
}
const typeOf = (t: Tensor): string => `${t.dtype}[${t.shape.join(', ')}]`;

const takesStored = <A extends Attrs>(op: Primitive<A> | Composite<A>): boolean =>
  op.takesStored === true || (op.kind === 'primitive' && ['layout', 'identity'].includes(op.form.kind));

/** Applies an op: checks the shapes and returns its results as new nodes. */
export function bindAll<A extends Attrs>(
  op: Primitive<A> | Composite<A>,
  inputs: readonly Tensor[],
  attrs: A,
): readonly Tensor[] {
  for (const { dtype } of inputs)
    if (isStored(dtype) && !takesStored(op))
      throw shapeError(op.name, inputs, `${dtype} is for storage: use cast(x, 'f32')`);
  const spec = op.shape(inputs, attrs);
  const specs = (Array.isArray(spec) ? spec : [spec]) as readonly OutSpec[];
  for (const { shape } of specs) checkShape(op.name, inputs, shape);
  const outs: Tensor[] = [];
  for (let index = 0; index < specs.length; index++)
    outs.push(new Node(op as unknown as Op, inputs, attrs, specs[index]!, outs, index));
  return outs;
}

/** As `bindAll`, for ops with one result (or where only the first one matters). @throws ShapeError */
export const bind = <A extends Attrs>(op: Primitive<A> | Composite<A>, inputs: readonly Tensor[], attrs: A): Tensor =>
  bindAll(op, inputs, attrs)[0]!;

/** The first result of the application a tensor belongs to: the identity of the node. */
export const head = (t: Tensor): Tensor => t.outs[0]!;

/** Whether a node is a hole or holds values: nothing is computed for it. */
export const isLeaf = (t: Tensor): boolean => t.op.kind === 'primitive' && t.op.form.kind === 'leaf';

/** All nodes (heads) below `roots`, inputs first. Iterative: graphs are deep. */
export function topo(roots: readonly Tensor[]): Tensor[] {
  const seen = new Map<number, Tensor>();
  const ids: number[] = [];
  const stack = roots.map(head);
  while (stack.length > 0) {
    const t = stack.pop()!;
    if (seen.has(t.id)) continue;
    seen.set(t.id, t);
    ids.push(t.id);
    const { inputs } = t;
    for (let i = 0; i < inputs.length; i++) {
      const below = inputs[i]!.outs[0]!;
      if (!seen.has(below.id)) stack.push(below);
    }
  }
  // numbers alone are sorted many times as fast as nodes by a comparison
  const sorted = Float64Array.from(ids).sort();
  const order = new Array<Tensor>(ids.length);
  for (let i = 0; i < order.length; i++) order[i] = seen.get(sorted[i]!)!;
  return order;
}

/** Re-applies the op of a node to other inputs. */
export const rebind = (node: Tensor, inputs: readonly Tensor[]): readonly Tensor[] =>
  bindAll(node.op as Primitive, inputs, node.attrs);

/** The same for inputs with the shapes and dtypes of the old ones: results have theirs, and no rule is asked. */
export function rename({ op, attrs, outs }: Tensor, inputs: readonly Tensor[]): readonly Tensor[] {
  const renamed: Tensor[] = [];
  for (const o of outs) renamed.push(new Node(op, inputs, attrs, o, renamed, o.index));
  return renamed;
}

/**
 * Copies the graph below `roots`, replacing tensors by `env` (which is extended on the way).
 * Nodes that do not depend on a replaced tensor are shared, not copied.
 */
export function substitute(roots: readonly Tensor[], env: Map<Tensor, Tensor>): Tensor[] {
  for (const node of topo(roots)) {
    if (node.outs.every((o) => env.has(o))) continue;
    if (!node.inputs.some((x) => (env.get(x) ?? x) !== x)) continue;
    const outs = rebind(
      node,
      node.inputs.map((x) => env.get(x) ?? x),
    );
    for (let i = 0; i < outs.length; i++) if (!env.has(node.outs[i]!)) env.set(node.outs[i]!, outs[i]!);
  }
  return roots.map((r) => env.get(r) ?? r);
}

const leafOp = (name: string, doc: string): Primitive<LeafAttrs> => ({
  kind: 'primitive',
  name,
  doc,
  formula: '',
  form: { kind: 'leaf' },
  shape: (_inputs, a) => ({ shape: a.shape, dtype: a.dtype }),
  vjp: () => [],
  batch: (): never => {
    throw new MissingRuleError(`${name} has no inputs to map over`);
  },
  cpu: () => undefined,
  sample: () => ({ operands: [], attrs: { shape: [], dtype: 'f32' } }),
});
export interface LeafAttrs {
  readonly shape: Shape;
  readonly dtype: DType;
  /** where the bytes are, for data leaves: owned by a backend (see backends/backend.ts) */
  readonly storage?: unknown;
}
/** A tensor that holds values. */
export const dataOp = leafOp('data', 'values in memory');
/** A tensor that stands for a value still to be given: the argument of a trace. */
export const holeOp = leafOp('hole', 'an argument of a traced function');

export function leaf<D extends DType>(op: typeof dataOp, attrs: LeafAttrs & { dtype: D }, label?: string): Tensor<D> {
  const outs: Tensor[] = [];
  const t = new Node<D>(op as unknown as Op, [], attrs, attrs, outs, 0, label);
  outs.push(t);
  return t;
}
export const hole = (like: OutSpec, label?: string): Tensor =>
  leaf(holeOp, { shape: like.shape, dtype: like.dtype }, label);
