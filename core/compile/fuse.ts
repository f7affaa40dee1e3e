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

const isRead = (x: Tensor): boolean => kindOf(x) !== 'fill';

/** The stored values that a value ends in: none where it must exist itself, or ends in more than are asked for. */
type Ends = readonly Tensor[] | undefined;
const MOST_ENDS = 3;
const both = (a: Ends, b: Ends): Ends => {
  if (a === b || !a || !b) return a && b;
  const all = [...a, ...b.filter((x) => !a.includes(x))];
  // most values end where the others do: lists are shared, never changed
  return all.length === a.length ? a : all.length > MOST_ENDS ? undefined : all;
};

/** what lies below layout ops */
const through = (t: Tensor): Tensor => (kindOf(t) === 'layout' ? through(t.inputs[0]!) : t);
const sumOf = (xs: readonly Tensor[], of: (x: Tensor) => number): number => {
  let sum = 0;
  for (const x of xs) sum += of(x);
  return sum;
};

/** Rule 2 and 3: which elementwise nodes are computed inside their consumers. */
export function chooseInlined(graph: Graph, maxLoads: number): Set<Tensor> {
  const inlined = new Set<Tensor>();
  /** of what later nodes make of a value; a program's results must exist */
  const ends = new Map<Tensor, Ends>();
  for (const t of graph.outputs) ends.set(t, undefined);
  for (let i = graph.order.length - 1; i >= 0; i--) {
    const node = graph.order[i]!;
    const kind = kindOf(node);
    const own = ends.get(node);
    /** where its operands end */
    let below: Ends;
    if (kind === 'layout') below = expands(node) ? undefined : own;
    else if (kind === 'reduce') below = [node];
    else if (kind === 'elementwise') {
      const joins = own && (own.length === 1 || (isCheap(node) && node.inputs.filter(isRead).length <= 1));
      if (joins) inlined.add(node);
      below = joins ? own : [node];
    }
    for (let k = 0; k < node.inputs.length; k++) {
      const x = node.inputs[k]!;
      ends.set(x, ends.has(x) ? both(ends.get(x), below) : below);
    }
  }
  // rule 3: what each value would read and compute if it were inlined
  const loads = new Map<Tensor, number>();
  const lengths = new Map<Tensor, number>();
  const loadsOf = (x: Tensor): number => (kindOf(x) === 'fill' ? 0 : inlined.has(x) ? (loads.get(x) ?? 1) : 1);
  const stepsOf = (x: Tensor): number => (inlined.has(x) ? (lengths.get(x) ?? 1) : 1);
  const storeLargest = (sources: readonly Tensor[], of: (x: Tensor) => number): boolean => {
    const largest = sources.filter((x) => inlined.has(x)).sort((a, b) => of(b) - of(a))[0];
    return largest !== undefined && inlined.delete(largest);
  };
  for (const node of graph.order) {
    const kind = kindOf(node);
    if (kind !== 'elementwise' && kind !== 'reduce') continue;
    const sources: Tensor[] = [];
    for (const x of node.inputs) {
      const source = through(x);
      if (!sources.includes(source)) sources.push(source);
    }
    while (sumOf(sources, loadsOf) > maxLoads && storeLargest(sources, loadsOf));
    while (sumOf(sources, stepsOf) >= MAX_STEPS && storeLargest(sources, stepsOf));
    loads.set(node, Math.max(1, sumOf(sources, loadsOf)));
    lengths.set(node, 1 + sumOf(sources, stepsOf));
  }
  return inlined;
}
/** one or two machine instructions: cheaper to repeat than to store */
const isCheap = (t: Tensor): boolean => {
  const f = formOf(t);
  return f.kind === 'elementwise' && (f.cost ?? 1) <= 1;
};
