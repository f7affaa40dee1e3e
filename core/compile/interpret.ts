/**
 * Runs lowered kernels in plain JS: the readable meaning of a Cluster, against which its printed forms are tested, and the
 * fallback of backends that cannot express a kernel.
 */
import ndarray from 'ndarray';
import { allocate, dtypes, type HostArray, isFloat, lowest } from '../ir/dtype.ts';
import type { Nd, Primitive } from '../ir/tensor.ts';
import { sizeOf } from '../ir/view.ts';
import { convert } from '../ops/cast.ts';
import { registry } from '../registry.ts';
import { resultStrides } from './axes.ts';
import { type Buffer, type Kernel, type Lowered, readsOf, writesOf } from './lower.ts';
import type { Cluster, ScalarStep } from './scalar.ts';

/** One scalar step at one point, rounded to its dtype. */
function stepValue(
  s: ScalarStep,
  steps: readonly ScalarStep[],
  earlier: readonly number[],
  load: (input: number) => number,
  index: readonly number[],
): number {
  if (s.kind === 'load') return load(s.input);
  if (s.kind === 'const') return dtypes[s.dtype].round(s.value);
  if (s.kind === 'iota') return dtypes[s.dtype].round(index[s.axis]!);
  const x = s.args.map((a) => earlier[a]!);
  const op = registry.get(s.fn);
  if (op?.kind !== 'primitive' || op.form.kind !== 'elementwise') throw new Error(`${s.fn} is not elementwise`);
  const from = steps[s.args.at(-1)!]!.dtype;
  if (s.converts) return dtypes[s.dtype].round(convert(x[0]!, isFloat(from), s.dtype));
  const js = from === 'i32' || from === 'u32' ? (op.form.integer ?? op.form.js) : op.form.js;
  return dtypes[s.dtype].round(js(...x));
}

/** One cluster at every point of its iteration space, into `outputs`; a reduction sums in f64. */
function runCluster(c: Cluster, inputs: readonly HostArray[], outputs: readonly HostArray[]): void {
  const n = sizeOf(c.shape);
  const index = c.shape.map(() => 0);
  const total = c.reduce
    ? new Float64Array(outputs[0]!.length).fill(c.reduce.op === 'sum' ? 0 : lowest(c.steps[c.outputs[0]!]!.dtype))
    : undefined;
  const values: number[] = new Array(c.steps.length);
  const strides = resultStrides(c);
  const load = (i: number): number =>
    inputs[i]![c.inputs[i]!.offset + index.reduce((o, p, axis) => o + p * c.inputs[i]!.strides[axis]!, 0)]!;
  for (let at = 0; at < n; at++) {
    for (const [i, s] of c.steps.entries()) values[i] = stepValue(s, c.steps, values, load, index);
    if (total && c.reduce) {
      const to = index.reduce((o, p, axis) => o + p * strides[axis]!, 0);
      const v = values[c.outputs[0]!]!;
      total[to] = c.reduce.op === 'sum' ? total[to]! + v : Math.max(total[to]!, v);
    } else for (const [k, o] of c.outputs.entries()) outputs[k]![at] = values[o]!;
    for (let axis = index.length - 1; axis >= 0 && ++index[axis]! === c.shape[axis]; axis--) index[axis] = 0;
  }
  if (total) for (let i = 0; i < total.length; i++) outputs[0]![i] = total[i]!;
}

/** One kernel of a program: a cluster as above, an op by its record's reference loops. */
export function runKernel(k: Kernel, inputs: readonly HostArray[], outputs: readonly HostArray[]): void {
  if (k.kind === 'cluster') {
    runCluster(k.cluster, inputs, outputs);
    return;
  }
  const ins = k.inputs.map(({ view }, i) => ndarray(inputs[i]!, [...view.shape], [...view.strides], view.offset) as Nd);
  const outs = k.node.outs.map((o, i) => ndarray(outputs[i]!, [...o.shape]) as Nd);
  (k.node.op as Primitive).cpu(ins, k.node.attrs, outs);
}

/** All kernels of a program, on host arrays. */
export function interpret(p: Lowered, inputs: readonly HostArray[]): HostArray[] {
  const memory = new Map<Buffer, HostArray>(p.inputs.map((b, i) => [b, inputs[i]!]));
  for (const k of p.kernels) {
    const from = readsOf(k).map((b) => memory.get(b)!);
    const to = writesOf(k).map((b) => allocate(b.dtype, b.elements));
    runKernel(k, from, to);
    for (const [i, b] of writesOf(k).entries()) memory.set(b, to[i]!);
  }
  return p.outputs.map((b) => memory.get(b)!);
}
