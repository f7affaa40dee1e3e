/** Automatic batching: one forward rewrite of the traced graph; every node asks its record's batching rule. */
import { ShapeError } from '../ir/errors.ts';
import { type Composite, hole, type Tensor, topo } from '../ir/tensor.ts';
import { isNode, leaves, mapTree, type Tree, unflatten } from '../ir/tree.ts';
import { repeat } from '../ops/batching.ts';
import { permute } from '../ops/layout.ts';

/** The axis that carries the samples in an argument (for all its leaves; negative from the end), or null: shared by all. */
export type InAxis = number | null;

/** Rewrites the graph below `ys` so that `env` (unbatched → batched, axis 0) is mapped. */
function rewrite(ys: readonly Tensor[], env: Map<Tensor, Tensor>, size: number): Tensor[] {
  for (const node of topo(ys)) {
    if (env.has(node)) continue;
    const mapped = node.inputs.map((x) => env.has(x));
    if (!mapped.includes(true)) continue;
    const outs = batchNode(
      node,
      node.inputs.map((x) => env.get(x) ?? x),
      mapped,
      size,
    );
    for (let i = 0; i < outs.length; i++) env.set(node.outs[i]!, outs[i]!);
  }
  return ys.map((y) => env.get(y) ?? repeat(y, size));
}

function batchNode(
  node: Tensor,
  inputs: readonly Tensor[],
  mapped: readonly boolean[],
  size: number,
): readonly Tensor[] {
  const { op, attrs } = node;
  const outs = op.batch?.(size, inputs, mapped, attrs as never);
  if (outs) return outs;
  // a composite without a rule for these inputs: map its body
  const holes = node.inputs.map((x, i) => (mapped[i] ? hole(x) : x));
  const env = new Map<Tensor, Tensor>();
  for (const [i, h] of holes.entries()) if (mapped[i]) env.set(h, inputs[i]!);
  return rewrite((op as Composite).body(holes, attrs), env, size);
}

/** `axis` from the front of `rank` axes; negative ones count from the end */
function axisIn(what: string, axis: number, rank: number): number {
  if (!Number.isInteger(axis) || axis < -rank || axis >= rank)
    throw new ShapeError(`${what} ${axis} must be a whole number that lies within the ${rank} axes`);
  return axis < 0 ? axis + rank : axis;
}
const toFront = (t: Tensor, axis: number): Tensor =>
  axis === 0 ? t : permute(t, [axis, ...t.shape.map((_, i) => i).filter((i) => i !== axis)]);
const fromFront = (t: Tensor, axis: number): Tensor => {
  if (axis === 0) return t;
  const rest = t.shape.map((_, i) => i).slice(1);
  return permute(t, [...rest.slice(0, axis), 0, ...rest.slice(axis)]);
};

/** `axes` for every leaf of a tree: one for all below, or a tree of its structure. @throws ShapeError where it says nothing */
function axesOfLeaves(what: string, tree: unknown, axes: unknown): InAxis[] {
  if (axes === null || typeof axes === 'number') return leaves(tree as Tree<unknown>).map(() => axes);
  if (!isNode(tree) || !isNode(axes)) throw new ShapeError(`${what} needs an axis or null`);
  const strange = Object.keys(axes).find((k) => !(k in tree));
  if (strange !== undefined) throw new ShapeError(`${what} has no ${strange} to give an axis to`);
  return Object.entries(tree).flatMap(([k, x]) =>
    axesOfLeaves(`${what}.${k}`, x, (axes as Readonly<Record<string, unknown>>)[k]),
  );
}

/** Axes for a tree: one for all its leaves (null: shared by all samples), or a tree of them. */
export type Axes = Tree<InAxis>;

/**
 * `vmap(f, [0, null])(xs, shared)`: f over the samples of xs, as one batched computation. Nests to any depth. An axis stands
 * for all leaves of its argument, or is a tree of axes: `vmap(f, [{ w: null, x: 0 }])`; without axes all are 0. The results
 * carry their samples along `outAxes`, a number or a tree of them. Per-sample gradients are
 * `vmap(grad(loss), [null, 0])(params, samples)`.
 * @throws ShapeError when the mapped axes differ in size, do not exist, or are not given for every argument.
 */
export function vmap<A extends readonly Tree<Tensor>[], Y extends Tree<Tensor>>(
  f: (...args: A) => Y,
  inAxes?: { readonly [K in keyof A]: Axes },
  outAxes: Axes = 0,
): (...args: A) => Y {
  if (inAxes !== undefined && !Array.isArray(inAxes))
    throw new ShapeError('vmap: the in-axes are a list, one for each argument: vmap(f, [0, null])');
  return (...args) => {
    const given: readonly unknown[] = inAxes ?? args.map(() => 0);
    if (given.length !== args.length)
      throw new ShapeError(`vmap: ${args.length} arguments, but ${given.length} in-axes: one is needed for each`);
    let size = -1;
    const env = new Map<Tensor, Tensor>();
    const holes = args.map((arg, i) => {
      const axes = axesOfLeaves(`vmap: argument ${i}`, arg, given[i]);
      let at = 0;
      return mapTree((t: Tensor, path) => {
        const wanted = axes[at++]!;
        if (wanted === null) return t;
        const name = `vmap: argument ${i}${path && ` (${path})`}`;
        const axis = axisIn(`${name} in-axis`, wanted, t.shape.length);
        const n = t.shape[axis]!;
        if (size >= 0 && n !== size)
          throw new ShapeError(`${name} has size ${n} on axis ${wanted}, others have ${size}`);
        size = n;
        const h = hole({ shape: t.shape.filter((_, k) => k !== axis), dtype: t.dtype }, t.label);
        env.set(h, toFront(t, axis));
        return h;
      }, arg);
    }) as unknown as A;
    if (size < 0) throw new ShapeError('vmap: at least one argument must be mapped (all in-axes are null)');
    const y = f(...holes);
    const outs = rewrite(leaves<Tensor>(y), env, size);
    const places = axesOfLeaves('vmap: the result', y, outAxes);
    return unflatten(
      y,
      outs.map((t, i) => fromFront(t, axisIn('vmap: out-axis', places[i] ?? Number.NaN, t.shape.length))),
    );
  };
}
