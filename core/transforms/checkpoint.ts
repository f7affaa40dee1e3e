/**
 * Rematerialisation. `checkpoint(f)` closes f over its captures into one node; forward it is f, backward f is run again
 * from its inputs, behind a barrier that makes the second run wait for the cotangent.
 */
import { bindAll, type Composite, head, hole, type OutSpec, substitute, type Tensor, topo } from '../ir/tensor.ts';
import { leaves, mapTree, type Tree, unflatten } from '../ir/tree.ts';
import { barrier } from '../ops/control.ts';
import { mul, sin } from '../ops/math.ts';
import { pullbackWanted } from './grad.ts';

interface ClosedBody {
  readonly holes: readonly Tensor[];
  readonly results: readonly Tensor[];
}
const instantiate = (b: ClosedBody, inputs: readonly Tensor[]): Tensor[] =>
  substitute(b.results, new Map(b.holes.map((h, i) => [h, inputs[i]!])));

export const checkpointOp: Composite<ClosedBody> = {
  kind: 'composite',
  name: 'checkpoint',
  doc: 'a closed function whose intermediates are recomputed in the backward pass',
  formula: 'y = f(x)',
  takesStored: true,
  shape: (_inputs, b): OutSpec[] => b.results.map((r) => ({ shape: r.shape, dtype: r.dtype })),
  body: (inputs, b) => instantiate(b, inputs),
  vjp(gs, inputs, b, _outs, wanted = inputs.map(() => true)) {
    const known = gs.filter((g) => g !== undefined);
    const again = barrier([...inputs, ...known]);
    const fresh = again.slice(0, inputs.length);
    let at = inputs.length;
    const cts = gs.map((g) => (g ? again[at++] : undefined));
    return pullbackWanted(instantiate(b, fresh), cts, fresh, wanted);
  },
  sample: (pick) => {
    const h = hole({ shape: [pick(1, 4)], dtype: 'f64' });
    return { operands: [{ shape: h.shape, dtype: 'f64' }], attrs: { holes: [h], results: [mul(sin(h), h)] } };
  },
};

/** The sources of a graph that are not its arguments: what the function captured. */
function captures(results: readonly Tensor[], holes: readonly Tensor[]): Tensor[] {
  const hot = new Set<Tensor>(holes.map(head));
  const order = topo(results);
  for (const node of order) if (node.inputs.some((x) => hot.has(head(x)))) hot.add(node);
  const found = new Set<Tensor>();
  for (const node of order)
    if (hot.has(node)) for (const x of node.inputs) if (!hot.has(head(x)) && x.inputs.length > 0) found.add(x);
  for (const node of order)
    if (hot.has(node))
      for (const x of node.inputs)
        if (x.inputs.length === 0 && x.op.kind === 'primitive' && x.op.form.kind === 'leaf' && !hot.has(head(x)))
          found.add(x);
  for (const r of results) if (!hot.has(head(r))) found.add(r);
  return [...found];
}

/** `checkpoint(f)(...args)`: as f, but keeps only its arguments for the backward pass. Costs one more forward. */
export function checkpoint<A extends readonly Tree<Tensor>[], Y extends Tree<Tensor>>(
  f: (...args: A) => Y,
): (...args: A) => Y {
  return (...args) => {
    const xs = leaves<Tensor>(args as Tree<Tensor>);
    const holes = xs.map((x) => hole(x, x.label));
    let at = 0;
    const y = f(...(mapTree(() => holes[at++], args) as unknown as A));
    const results = leaves<Tensor>(y);
    const captured = captures(results, holes);
    const inner = captured.map((c) => hole(c, c.label));
    const closed = substitute(results, new Map(captured.map((c, i) => [c, inner[i]!])));
    return unflatten(y, bindAll(checkpointOp, [...xs, ...captured], { holes: [...holes, ...inner], results: closed }));
  };
}
