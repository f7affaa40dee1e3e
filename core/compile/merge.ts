/**
 * Clusters → fewer clusters with several outputs. A cluster joins an earlier one over the same points when it reads what
 * that writes, or reads one of the same buffers point by point: what both need is then loaded once, and a value nobody
 * else reads is never stored. Reductions stay as they are. Adam's three results of a leaf become one kernel, and so do the
 * derivatives of a gated activation.
 */
import { isWhole, same, sizeOf } from '../ir/view.ts';
import { type Buffer, type ClusterKernel, type Kernel, type Lowered, readsOf, writesOf } from './lower.ts';
import type { ScalarStep } from './scalar.ts';

export interface MergeOptions {
  /** most buffers one cluster may read, and write */
  readonly maxLoads: number;
  readonly maxOutputs: number;
}
/** how many kernels back a partner may stand: results of far ones would be kept too long */
const WINDOW = 24;
/** scalar steps of a merged cluster at most: what its points need at once should stay in registers */
const MAX_STEPS = 48;

/** the scalar programs of two clusters over the same points, one after the other */
function join(first: ClusterKernel, second: ClusterKernel): ClusterKernel {
  const { shape } = first.cluster;
  const [inputs, operands] = [[...first.cluster.inputs], [...first.inputs]];
  const steps: ScalarStep[] = [...first.cluster.steps];
  /** step of `second` → step of the whole */
  const at: number[] = [];
  const push = (s: ScalarStep): number => steps.push(s) - 1;
  const load = (i: number, dtype: ScalarStep['dtype']): number => {
    const [input, operand] = [second.cluster.inputs[i]!, second.inputs[i]!];
    const made = first.outputs.indexOf(operand.buffer);
    if (made >= 0) return first.cluster.outputs[made]!;
    const known = inputs.findIndex(
      (x, k) =>
        k < first.inputs.length &&
        operands[k]!.buffer === operand.buffer &&
        x.offset === input.offset &&
        same(x.strides, input.strides),
    );
    const loaded = steps.findIndex((s) => s.kind === 'load' && s.input === known);
    if (known >= 0 && loaded >= 0) return loaded;
    operands.push(operand);
    return push({ kind: 'load', input: inputs.push(input) - 1, dtype });
  };
  for (const s of second.cluster.steps)
    at.push(
      s.kind === 'load'
        ? load(s.input, s.dtype)
        : push(s.kind === 'call' ? { ...s, args: s.args.map((a) => at[a]!) } : s),
    );
  return {
    kind: 'cluster',
    node: first.node,
    ...(first.within ? { within: first.within } : {}),
    inputs: operands,
    outputs: [...first.outputs, ...second.outputs],
    cluster: {
      shape,
      inputs,
      steps,
      outputs: [...first.cluster.outputs, ...second.cluster.outputs.map((o) => at[o]!)],
    },
  };
}

/** leaves out results that are not `kept` */
function store(k: ClusterKernel, kept: (b: Buffer) => boolean): ClusterKernel {
  const wanted = k.outputs.map(kept);
  if (!wanted.includes(false)) return k;
  return {
    ...k,
    outputs: k.outputs.filter((_, i) => wanted[i]),
    cluster: { ...k.cluster, outputs: k.cluster.outputs.filter((_, i) => wanted[i]) },
  };
}

/** O(kernels · window) */
export function merge(program: Lowered, { maxLoads, maxOutputs }: MergeOptions): Lowered {
  const results = new Set(program.outputs);
  const readers = new Map<Buffer, number>();
  for (const { inputs } of program.kernels)
    for (let i = 0; i < inputs.length; i++) {
      const { buffer } = inputs[i]!;
      if (inputs.findIndex((o) => o.buffer === buffer) === i) readers.set(buffer, (readers.get(buffer) ?? 0) + 1);
    }
  /** with holes where a cluster went down to a later partner */
  const merged: (Kernel | undefined)[] = [];
  /** where each buffer is written in `merged`; program inputs nowhere */
  const writtenAt = new Map<Buffer, number>();
  /** kernels of a merged one that read each of its own results */
  const inside = new Map<Buffer, number>();
  const needed = (b: Buffer): boolean => results.has(b) || (readers.get(b) ?? 0) > (inside.get(b) ?? 0);

  /** the earlier cluster `k` can join, and both as one; `down`: in the place of `k`, which needs what comes between */
  const partner = (
    k: ClusterKernel,
  ): { readonly at: number; readonly down: boolean; readonly whole: ClusterKernel } | undefined => {
    let latest = -1;
    for (const { buffer } of k.inputs) latest = Math.max(latest, writtenAt.get(buffer) ?? -1);
    for (let at = merged.length - 1; at >= Math.max(0, merged.length - WINDOW); at--) {
      const g = merged[at];
      if (g?.kind !== 'cluster' || g.cluster.reduce || !same(g.cluster.shape, k.cluster.shape)) continue;
      const down = at < latest;
      const whole = down && isRead(g.outputs, at) ? undefined : pair(g, k);
      if (whole) return { at, down, whole };
    }
    return undefined;
  };
  /** does a kernel behind `at` read one of them? */
  const isRead = (buffers: readonly Buffer[], at: number): boolean => {
    for (let i = at + 1; i < merged.length; i++)
      if (merged[i]?.inputs.some((o) => buffers.includes(o.buffer))) return true;
    return false;
  };
  /** two clusters over the same points as one, where that saves a load and fits */
  const pair = (g: ClusterKernel, k: ClusterKernel): ClusterKernel | undefined => {
    /** reads, at every point, the element of that point */
    const points = (owner: ClusterKernel, b: Buffer): boolean =>
      owner.inputs.every((o) => o.buffer !== b || isWhole(o.view));
    const reads = readsOf(k);
    const made = reads.filter((b, i) => g.outputs.includes(b) && reads.indexOf(b) === i);
    if (!made.every((b) => points(k, b))) return undefined;
    const shares = (b: Buffer) => g.inputs.some((o) => o.buffer === b) && points(k, b) && points(g, b);
    if (made.length === 0 && !reads.some(shares)) return undefined;
    const whole = join(g, k);
    if (whole.inputs.length > maxLoads || whole.cluster.steps.length > MAX_STEPS) return undefined;
    const count = (by: number): void => {
      for (const b of made) inside.set(b, (inside.get(b) ?? 0) + by);
    };
    count(1);
    if (whole.outputs.filter(needed).length <= maxOutputs) return whole;
    count(-1);
    return undefined;
  };
  for (const k of program.kernels) {
    const found = k.kind === 'cluster' && !k.cluster.reduce && sizeOf(k.cluster.shape) > 0 ? partner(k) : undefined;
    const at = found && !found.down ? found.at : merged.length;
    if (found?.down) merged[found.at] = undefined;
    merged[at] = found?.whole ?? k;
    for (const b of writesOf(merged[at])) writtenAt.set(b, at);
  }
  const kernels = merged.filter((k) => k !== undefined);
  return {
    ...program,
    kernels: kernels.map((k) => (k.kind === 'cluster' && !k.cluster.reduce ? store(k, needed) : k)),
  };
}
