/**
 * The reference backend: every node runs its record's own loops over ndarray views, in f32 or f64. Slow, readable, and
 * the measure of all others. Layout ops are ndarray views; nothing is fused or planned.
 */
import ndarray from 'ndarray';
import type { Backend, Executable, Graph } from '../../compile/backend.ts';
import { reportNodes } from '../../compile/report.ts';
import { allocate, type DType, type HostArray, isPacked } from '../../ir/dtype.ts';
import { CoreError } from '../../ir/errors.ts';
import { flatten } from '../../ir/flatten.ts';
import type { Nd, Primitive, Tensor } from '../../ir/tensor.ts';
import { isWhole, sizeOf, type View } from '../../ir/view.ts';

const viewOf = (x: Nd): View => ({ shape: x.shape, strides: x.stride, offset: x.offset });
const wrap = (data: HostArray, v: View): Nd => ndarray(data, [...v.shape], [...v.strides], v.offset) as Nd;
const dense = (data: HostArray, shape: readonly number[]): Nd => ndarray(data, [...shape]) as Nd;

const packedOrder = (op: string, dtype: DType): CoreError =>
  new CoreError(`${op}: ${dtype} is for storage, it cannot be copied into another order: cast it first`);

/** One node: the views or arrays of its results. */
function evaluateNode(node: Tensor, inputs: readonly Nd[]): Nd[] {
  const op = node.op as Primitive;
  if (op.form.kind === 'identity') return [...inputs];
  if (op.form.kind === 'layout') {
    const v = op.form.view(viewOf(inputs[0]!), node.attrs as never);
    if (v) return [wrap(inputs[0]!.data as HostArray, v)];
    const { dtype } = node.inputs[0]!;
    if (isPacked(dtype)) throw packedOrder(op.name, dtype);
  }
  const outs = node.outs.map((o) => dense(allocate(o.dtype, sizeOf(o.shape)), o.shape));
  op.cpu(inputs, node.attrs, outs);
  return outs;
}

function build(graph: Graph): Executable<HostArray> {
  const lastUse = new Map<Tensor, number>();
  for (const [i, node] of graph.order.entries()) for (const x of node.inputs) lastUse.set(x, i);
  for (const o of graph.outputs) lastUse.set(o, graph.order.length);
  let times: number[] = [];
  const run = (inputs: readonly HostArray[], clock = false): HostArray[] => {
    const env = new Map<Tensor, Nd>(graph.inputs.map((t, i) => [t, dense(inputs[i]!, t.shape)]));
    if (clock) times = [];
    for (const [i, node] of graph.order.entries()) {
      const start = clock ? performance.now() : 0;
      const outs = evaluateNode(
        node,
        node.inputs.map((x) => env.get(x)!),
      );
      for (const [k, o] of node.outs.entries()) env.set(o, outs[k]!);
      for (const x of node.inputs) if (lastUse.get(x) === i) env.delete(x);
      if (clock) times.push(performance.now() - start);
    }
    const seen = new Set<unknown>(inputs);
    return graph.outputs.map((o) => {
      const value = env.get(o)!;
      if (isPacked(o.dtype) && !isWhole(viewOf(value))) throw packedOrder(o.op.name, o.dtype);
      const flat = (isPacked(o.dtype) ? value.data : flatten(value)) as HostArray;
      // a result never shares its array with an argument or another result
      const own = seen.has(flat) || flat.buffer.byteLength !== flat.byteLength ? flat.slice() : flat;
      seen.add(own);
      return own;
    });
  };
  return {
    run: (inputs) => run(inputs),
    profile: async (inputs) => run(inputs, true),
    report: (modules) => reportNodes(graph.order, { modules, times }),
    workspaceBytes: 0,
    release: () => undefined,
  };
}

/** Opens the reference backend. */
export function cpuBackend(): Backend<HostArray> {
  let liveBytes = 0;
  let peakBytes = 0;
  const live = new Set<HostArray>();
  const track = (s: HostArray): HostArray => {
    if (!live.has(s)) {
      live.add(s);
      liveBytes += s.byteLength;
      peakBytes = Math.max(peakBytes, liveBytes);
    }
    return s;
  };
  const free = (s: HostArray): void => {
    if (live.delete(s)) liveBytes -= s.byteLength;
  };
  return {
    name: 'cpu',
    device: 'plain loops, one thread',
    inProcess: true,
    supports: (_d: DType) => true,
    hasKernel: () => false,
    store: (values) => track(values.slice()),
    load: async (s) => s.slice(),
    free,
    build(graph) {
      const program = build(graph);
      const finish = (inputs: readonly HostArray[], outs: readonly HostArray[]) => {
        for (const i of graph.donated) free(inputs[i]!);
        return outs.map(track);
      };
      return {
        ...program,
        run: (inputs) => finish(inputs, program.run(inputs)),
        profile: async (inputs) => finish(inputs, await program.profile(inputs)),
      };
    },
    memory: () => ({ liveBytes, peakBytes, storages: live.size }),
    fallbacks: [],
    close: async () => undefined,
  };
}
