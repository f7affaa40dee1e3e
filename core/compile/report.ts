/** What a profile says of a kernel: one wording for all backends. */
import { bytesOf, type DType, isStored } from '../ir/dtype.ts';
import { head, type Tensor } from '../ir/tensor.ts';
import { sizeOf } from '../ir/view.ts';
import type { KernelReport } from './backend.ts';
import { bytesOfBuffer, type Kernel, readsOf, writesOf } from './lower.ts';
import { callsOf } from './scalar.ts';

export interface ReportOptions {
  /** the module each node works for */
  readonly modules?: ReadonlyMap<Tensor, string> | undefined;
  /** milliseconds of the last profiled run, one per kernel */
  readonly times?: readonly number[] | undefined;
}

/** `dot`, `reduce sum`, `elementwise` */
export const nameOf = (k: Kernel): string =>
  k.kind === 'op' ? k.node.op.name : k.cluster.reduce ? `reduce ${k.cluster.reduce.op}` : 'elementwise';

const shapesOf = (inputs: readonly { readonly shape: readonly number[] }[], node: Tensor): string =>
  `${inputs.map((x) => `[${x.shape}]`).join(' · ')} → [${node.shape}]`;

/** `[2,3]: mul add`, `[2,3] over 1: exp`, `[1,2,3] · [1,3,5] → [1,2,5]` */
export function detailOf(k: Kernel): string {
  if (k.kind === 'op')
    return shapesOf(
      k.inputs.map((o) => o.view),
      k.node,
    );
  const { shape, reduce, steps } = k.cluster;
  return `[${shape}]${reduce ? ` over ${reduce.axes}` : ''}: ${callsOf(steps).join(' ') || 'copy'}`;
}

const flopsOfNode = (node: Tensor): number => node.op.flops?.(node.inputs, node.attrs as never) ?? 0;
export const flopsOf = (k: Kernel): number =>
  k.kind === 'op' ? flopsOfNode(k.node) : sizeOf(k.cluster.shape) * callsOf(k.cluster.steps).length;
/** bytes read and written at least */
export const trafficOf = (k: Kernel): number =>
  [...readsOf(k), ...writesOf(k)].reduce((n, b) => n + bytesOfBuffer(b), 0);

/** numbers of a stored type among these that become f32: no result is stored */
const widenedOf = (
  inputs: readonly { readonly dtype: DType; readonly shape: readonly number[] }[],
  outs: readonly Tensor[],
): number =>
  outs.some((t) => isStored(t.dtype))
    ? 0
    : inputs.reduce((n, { dtype, shape }) => n + (isStored(dtype) ? sizeOf(shape) : 0), 0);

const known = (node: Tensor, i: number, { modules, times }: ReportOptions) => {
  const [label, ms] = [modules?.get(head(node)), times?.[i]];
  return { ...(label === undefined ? {} : { label }), ...(ms === undefined ? {} : { ms }) };
};

/** One report for each kernel of a lowered program. */
export const reportKernels = (kernels: readonly Kernel[], options: ReportOptions): KernelReport[] =>
  kernels.map((k, i) => ({
    name: nameOf(k),
    detail: detailOf(k),
    flops: flopsOf(k),
    bytes: trafficOf(k),
    widened: widenedOf(
      k.inputs.map(({ buffer: { dtype }, view: { shape } }) => ({ dtype, shape })),
      k.node.outs,
    ),
    ...known(k.within ?? k.node, i, options),
  }));

/** The same for a backend that runs node by node. */
export const reportNodes = (nodes: readonly Tensor[], options: ReportOptions): KernelReport[] =>
  nodes.map((node, i) => ({
    name: node.op.name,
    detail: shapesOf(node.inputs, node),
    flops: flopsOfNode(node),
    bytes: [...node.inputs, ...node.outs].reduce((n, t) => n + bytesOf(t.dtype, sizeOf(t.shape)), 0),
    widened: widenedOf(node.inputs, node.outs),
    ...known(node, i, options),
  }));
