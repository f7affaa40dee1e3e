/** Which elementwise nodes are computed inside their consumers: rules 2 and 3 of lower.ts. Reads forms only; names no op. */

import type { Primitive, Tensor } from '../ir/tensor.ts';
import { sizeOf } from '../ir/view.ts';
import type { Graph } from './backend.ts';

/** the form of a primitive */
export const formOf = (t: Tensor) => (t.op as Primitive).form;
const isComposite = (t: Tensor): boolean => t.op.kind === 'composite';
/** the kind of a node's form; a composite that is still here has a kernel */
export const kindOf = (t: Tensor): string => (isComposite(t) ? 'kernel' : formOf(t).kind);
const expands = (t: Tensor): boolean => sizeOf(t.shape) > sizeOf(t.inputs[0]!.shape);

/** No cluster is longer, so that kernels stay small however deep a graph is; real ones have some dozens of steps. */
const MAX_STEPS = 512;

/** A consumer, and whether the value is repeated on the way to it. */
type Use = { readonly node: Tensor; readonly expanded: boolean };
const computesInside = ({ node, expanded }: Use): boolean =>
  !expanded && (kindOf(node) === 'elementwise' || kindOf(node) === 'reduce');
const isRead = (x: Tensor): boolean => kindOf(x) !== 'fill';

/** Rule 2 and 3: which elementwise nodes are computed inside their consumers. */
export function chooseInlined(graph: Graph, maxLoads: number): Set<Tensor> {
  const consumers = new Map<Tensor, Use[]>();
  const outputs = new Set(graph.outputs);
  for (const node of graph.order)
    for (const x of node.inputs) (consumers.get(x) ?? consumers.set(x, []).get(x)!).push({ node, expanded: false });
  /** consumers beyond layout ops; undefined when the value itself must exist */
  const reached = (t: Tensor): Use[] | undefined => {
    if (outputs.has(t)) return undefined;
    const out: Use[] = [];
    for (const c of consumers.get(t) ?? []) {
      if (kindOf(c.node) === 'layout') {
        const beyond = reached(c.node);
        if (!beyond) return undefined;
        for (const b of beyond) out.push({ node: b.node, expanded: b.expanded || expands(c.node) });
      } else out.push(c);
    }
    return out;
  };
  const inlined = new Set<Tensor>();
  /** the stored values each node ends in */
  const roots = new Map<Tensor, ReadonlySet<Tensor>>();
  const endsOf = (uses: readonly Use[]): ReadonlySet<Tensor> =>
    uses.length === 1 ? roots.get(uses[0]!.node)! : new Set(uses.flatMap((u) => [...roots.get(u.node)!]));
  for (const node of [...graph.order].reverse()) {
    const kind = kindOf(node);
    if (kind !== 'elementwise') {
      roots.set(node, new Set([node]));
      continue;
    }
    const uses = reached(node);
    // most values have one consumer and end where it ends: sets are shared, never changed
    const ends = uses && uses.length > 0 && uses.every(computesInside) ? endsOf(uses) : undefined;
    const joins =
      ends !== undefined &&
      (ends.size === 1 || (ends.size <= 3 && isCheap(node) && node.inputs.filter(isRead).length <= 1));
    if (joins) inlined.add(node);
    roots.set(node, joins ? ends : new Set([node]));
  }
  // rule 3: what each value would read and compute if it were inlined
  const loads = new Map<Tensor, number>();
  const lengths = new Map<Tensor, number>();
  const through = (t: Tensor): Tensor => (kindOf(t) === 'layout' ? through(t.inputs[0]!) : t);
  const loadsOf = (x: Tensor): number => (kindOf(x) === 'fill' ? 0 : inlined.has(x) ? (loads.get(x) ?? 1) : 1);
  const stepsOf = (x: Tensor): number => (inlined.has(x) ? (lengths.get(x) ?? 1) : 1);
  for (const node of graph.order) {
    const kind = kindOf(node);
    if (kind !== 'elementwise' && kind !== 'reduce') continue;
    const sources = [...new Set(node.inputs.map(through))];
    const sum = (of: (x: Tensor) => number) => sources.reduce((n, x) => n + of(x), 0);
    const storeLargest = (of: (x: Tensor) => number): boolean => {
      const largest = sources.filter((x) => inlined.has(x)).sort((a, b) => of(b) - of(a))[0];
      return largest !== undefined && inlined.delete(largest);
    };
    while (sum(loadsOf) > maxLoads && storeLargest(loadsOf));
    while (sum(stepsOf) >= MAX_STEPS && storeLargest(stepsOf));
    loads.set(node, Math.max(1, sum(loadsOf)));
    lengths.set(node, 1 + sum(stepsOf));
  }
  return inlined;
}
/** one or two machine instructions: cheaper to repeat than to store */
const isCheap = (t: Tensor): boolean => {
  const f = formOf(t);
  return f.kind === 'elementwise' && (f.cost ?? 1) <= 1;
};
