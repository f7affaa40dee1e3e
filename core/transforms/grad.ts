/** Reverse-mode differentiation: one walk over the graph, from results to inputs. */
import { isFloat } from '../ir/dtype.ts';
import { MissingRuleError, ShapeError, shapeError } from '../ir/errors.ts';
import { type Composite, head, type Tensor, topo } from '../ir/tensor.ts';
import { leaves, mapTree, type Tree, unflatten } from '../ir/tree.ts';
import { alias } from '../ops/control.ts';
import { ones, zeros } from '../ops/fill.ts';
import { add } from '../ops/math.ts';

type Ct = Tensor | undefined;

/** The nodes below `ys` that depend on one of `xs`, inputs first, and all their results with the `xs` themselves. */
function dependents(
  ys: readonly Tensor[],
  xs: readonly Tensor[],
  through: boolean,
): { order: Tensor[]; hot: ReadonlySet<Tensor> } {
  const hot = new Set<Tensor>(xs);
  const sources = new Set<Tensor>(through ? [] : xs.map(head));
  const order: Tensor[] = [];
  for (const node of topo(ys)) {
    if (sources.has(node) || !node.inputs.some((x) => hot.has(x))) continue;
    if (node.op.kind === 'primitive' && node.op.stops) continue;
    for (const out of node.outs) hot.add(out);
    order.push(node);
  }
  return { order, hot };
}

/**
 * Cotangents of `xs` from cotangents of `ys`: every node asks its record's vjp, contributions are added. It stops at each of
 * `xs`; `through`: it goes on, so that one that stands before another has what comes through that one too.
 * Cost: one visit per node; builds the backward graph, computes nothing.
 */
export function pullback(ys: readonly Tensor[], cts: readonly Ct[], xs: readonly Tensor[], through = false): Ct[] {
  const total = new Map<Tensor, Tensor>();
  const give = (t: Tensor, g: Ct) => {
    if (g) total.set(t, total.has(t) ? add(total.get(t)!, g) : g);
  };
  if (cts.length !== ys.length)
    throw new ShapeError(`pullback: ${ys.length} results, but ${cts.length} cotangents: one is needed for each`);
  for (const [i, y] of ys.entries()) {
    const ct = cts[i];
    if (ct && (!isFloat(ct.dtype) || ct.shape.join() !== y.shape.join()))
      throw shapeError('pullback', [y, ct], `the cotangent of result ${i} must have its shape and be of floats`);
    give(y, ct);
  }
  const { order, hot } = dependents(ys, xs, through);
  for (const node of order.reverse()) {
    const gs = node.outs.map((o) => total.get(o));
    if (gs.every((g) => g === undefined)) continue;
    const wanted = node.inputs.map((x) => hot.has(x) && isFloat(x.dtype));
    if (!wanted.includes(true)) continue;
    const back = nodeVjp(node, gs, wanted);
    for (let i = 0; i < wanted.length; i++) if (wanted[i]) give(node.inputs[i]!, back[i]);
  }
  return xs.map((x) => total.get(x));
}

function nodeVjp(node: Tensor, gs: readonly Ct[], wanted: readonly boolean[]): readonly Ct[] {
  const { op, inputs, attrs, outs } = node;
  if (op.vjp === 'nondifferentiable')
    throw new MissingRuleError(
      `${op.name} has no derivative; wrap its argument in stopGradient if a constant is meant`,
    );
  const back = op.vjp?.(gs, inputs, attrs as never, outs, wanted);
  if (back) return back;
  // a composite without closed form: differentiate its body
  const fresh = inputs.map((x, i) => (wanted[i] ? alias(x) : x));
  return pullbackWanted((op as Composite).body(fresh, attrs), gs, fresh, wanted);
}

/** Cotangents of those `xs` that are wanted; undefined for the others. */
export function pullbackWanted(
  ys: readonly Tensor[],
  cts: readonly Ct[],
  xs: readonly Tensor[],
  wanted: readonly boolean[],
): Ct[] {
  const back = pullback(
    ys,
    cts,
    xs.filter((_, i) => wanted[i]),
  );
  let at = 0;
  return xs.map((_, i) => (wanted[i] ? back[at++] : undefined));
}

/** `vjp(f, x)` → [f(x), pull]: pull maps a cotangent of the result to the cotangent of x. Trees in, trees out. */
export function vjp<X extends Tree<Tensor>, Y extends Tree<Tensor>>(f: (x: X) => Y, x: X): [Y, (ct: Y) => X] {
  const fresh = mapTree((t: Tensor) => alias(t), x) as X;
  const y = f(fresh);
  const pull = (ct: Y): X => {
    const xs = leaves<Tensor>(fresh);
    const back = pullback(leaves<Tensor>(y), leaves<Tensor>(ct), xs);
    return unflatten(
      x,
      back.map((g, i) => g ?? zeros(xs[i]!.shape, xs[i]!.dtype)),
    );
  };
  return [y, pull];
}

/**
 * `valueAndGrad(f)(x, ...rest)` → [f(x, ...rest), ∂f/∂x] for a scalar f; x may be any tree.
 * @throws ShapeError when f's result is not a scalar.
 * @example const [loss, g] = valueAndGrad((w: Tensor) => mean(square(sub(dot(x, w), y))))(w);
 */
export function valueAndGrad<X extends Tree<Tensor>, R extends readonly unknown[]>(
  f: (x: X, ...rest: R) => Tensor,
): (x: X, ...rest: R) => [Tensor, X] {
  return (x, ...rest) => {
    const [y, pull] = vjp((fresh: X) => f(fresh, ...rest), x);
    const value = y as Tensor;
    if (value.shape.length !== 0)
      throw new ShapeError(`grad: the function must return a scalar, not ${value.dtype}[${value.shape.join(', ')}]`);
    return [value, pull(ones([], value.dtype))];
  };
}

/** `grad(f)(x, ...rest)` → ∂f/∂x, a tree like x. */
export function grad<X extends Tree<Tensor>, R extends readonly unknown[]>(
  f: (x: X, ...rest: R) => Tensor,
): (x: X, ...rest: R) => X {
  const both = valueAndGrad(f);
  return (x, ...rest) => both(x, ...rest)[1];
}
