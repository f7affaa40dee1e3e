/** A step as the graph a backend would be given, without running it; and the same graph node by node in f64. */

import { everyNode } from '../../../core/compile/finite.ts';
import { type Backend, cpuBackend, type Graph, type Tensor } from '../../../core/index.ts';
import { dtypes, type HostArray } from '../../../core/ir/dtype.ts';
import { type Attrs, bindAll } from '../../../core/ir/tensor.ts';

/**
 * The graph that `build` makes `backend` build.
 * @param build is given a backend with the same kernels that records instead of running
 */
export function graphOf(backend: Backend, build: (recorder: Backend) => void): Graph {
  let graph: Graph | undefined;
  build({
    ...cpuBackend(),
    supports: backend.supports,
    hasKernel: everyNode(backend),
    build(given) {
      graph = given;
      return {
        run: () => [],
        profile: async () => [],
        report: () => [],
        workspaceBytes: 0,
        release: () => undefined,
      };
    },
  });
  if (!graph) throw new Error('no program was built');
  return graph;
}

/** The same attributes for f64 operands. */
const widened = (attrs: Attrs): Attrs =>
  Object.fromEntries(Object.entries(attrs).map(([key, value]) => [key, value === 'f32' ? 'f64' : value]));

/** A node's op applied to f64 operands. */
export const applyWide = (node: Tensor, inputs: readonly Tensor[]): readonly Tensor[] =>
  bindAll(node.op as never, inputs, widened(node.attrs));

/** For every node, the operands nobody needs after it. */
export function lastUses({ order, outputs }: Graph): ReadonlyMap<Tensor, readonly Tensor[]> {
  const last = new Map<Tensor, Tensor>();
  for (const node of order) for (const x of node.inputs) last.set(x, node);
  for (const o of outputs) last.delete(o);
  const by = new Map<Tensor, Tensor[]>();
  for (const [x, node] of last) by.set(node, [...(by.get(node) ?? []), x]);
  return by;
}

/** Values rounded to what f32 can hold, in both widths. */
export function bothWidths(
  values: HostArray,
  dtype: Tensor['dtype'],
): { readonly f32: HostArray; readonly f64: HostArray } {
  if (!dtypes[dtype].float) return { f32: values, f64: values };
  const f32 = Float32Array.from(values);
  return { f32, f64: Float64Array.from(f32) };
}
