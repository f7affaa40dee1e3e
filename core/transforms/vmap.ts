/** Automatic batching: one forward rewrite of the traced graph; every node asks its record's batching rule. */
import { ShapeError } from '../ir/errors.ts';
import { type Composite, hole, type Tensor, topo } from '../ir/tensor.ts';
import { leaves, mapTree, type Tree, unflatten } from '../ir/tree.ts';
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
    for (const [i, o] of node.outs.entries()) env.set(o, outs[i]!);
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

/**
 * `vmap(f, [0, null])(xs, shared)`: f over the samples of xs, as one batched computation. Nests to any depth.
 * Per-sample gradients are `vmap(grad(loss), [null, 0])(params, samples)`.
 * @throws ShapeError when the mapped axes differ in size, do not exist, or are not given for every argument.
 */
export function vmap<A extends readonly Tree<Tensor>[], Y extends Tree<Tensor>>(
  f: (...args: A) => Y,
  inAxes: { readonly [K in keyof A]: InAxis },
  outAxis = 0,
): (...args: A) => Y {
  if (!Array.isArray(inAxes))
    throw new ShapeError('vmap: needs the in-axes, one for each argument: vmap(f, [0, null])');
  return (...args) => {
    if (inAxes.length !== args.length)
      throw new ShapeError(`vmap: ${args.length} arguments, but ${inAxes.length} in-axes: one is needed for each`);
    let size = -1;
    const env = new Map<Tensor, Tensor>();
    const holes = args.map((arg, i) => {
      const given = inAxes[i] as InAxis;
      if (given === null) return arg;
      return mapTree((t: Tensor, path) => {
        const name = `vmap: argument ${i}${path && ` (${path})`}`;
        const axis = axisIn(`${name} in-axis`, given, t.shape.length);
        const n = t.shape[axis]!;
        if (size >= 0 && n !== size)
          throw new ShapeError(`${name} has size ${n} on axis ${given}, others have ${size}`);
        size = n;
        const h = hole({ shape: t.shape.filter((_, k) => k !== axis), dtype: t.dtype }, t.label);
        env.set(h, toFront(t, axis));
        return h;
      }, arg);
    }) as unknown as A;
    if (size < 0) throw new ShapeError('vmap: at least one argument must be mapped (all in-axes are null)');
    const y = f(...holes);
    const outs = rewrite(leaves<Tensor>(y), env, size);
    return unflatten(
      y,
      outs.map((t) => fromFront(t, axisIn('vmap: out-axis', outAxis, t.shape.length))),
    );
  };
}
