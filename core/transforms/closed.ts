/** Functions closed over what they capture: traced once, so that a record can hold them and make their graph again. */
import { head, hole, isLeaf, type OutSpec, substitute, type Tensor, topo } from '../ir/tensor.ts';
import { leaves, mapTree, type Tree } from '../ir/tree.ts';

/** A traced function: its arguments, the tensors it captured among them, and its results. */
export interface ClosedBody {
  readonly holes: readonly Tensor[];
  readonly results: readonly Tensor[];
}
/** The graph of a closed function on these inputs. */
export const instantiate = (b: ClosedBody, inputs: readonly Tensor[]): Tensor[] =>
  substitute(b.results, new Map(b.holes.map((h, i) => [h, inputs[i]!])));

/** What it results in: the trace's own results, unless the operands are of another precision. */
export const specsOf = (b: ClosedBody, inputs: readonly Tensor[]): OutSpec[] => {
  const alike = inputs.every((x, i) => x.dtype === b.holes[i]!.dtype);
  return (alike ? b.results : instantiate(b, inputs)).map(({ shape, dtype }) => ({ shape, dtype }));
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
      for (const x of node.inputs) if (x.inputs.length === 0 && isLeaf(x) && !hot.has(head(x))) found.add(x);
  for (const r of results) if (!hot.has(head(r))) found.add(r);
  return [...found];
}

/** A function closed for these arguments. */
export interface Closed<Y> extends ClosedBody {
  /** what the holes stand for: the leaves of the arguments, then what was captured */
  readonly inputs: readonly Tensor[];
  /** how many of them are leaves of the arguments */
  readonly given: number;
  /** the result of the trace: `results` are its leaves in order */
  readonly y: Y;
}
/** Traces f on holes like the leaves of `args` and turns what it captured into further inputs. Cost: one trace. */
export function close<A extends readonly Tree<Tensor>[], Y extends Tree<Tensor>>(
  f: (...args: A) => Y,
  args: A,
): Closed<Y> {
  const xs = leaves<Tensor>(args as Tree<Tensor>);
  const holes = xs.map((x) => hole(x, x.label));
  let at = 0;
  const y = f(...(mapTree(() => holes[at++], args) as unknown as A));
  const results = leaves<Tensor>(y);
  const captured = captures(results, holes);
  const inner = captured.map((c) => hole(c, c.label));
  const closed = substitute(results, new Map(captured.map((c, i) => [c, inner[i]!])));
  return { holes: [...holes, ...inner], results: closed, inputs: [...xs, ...captured], given: xs.length, y };
}
