/**
 * The WASM kernels by op: how each lowered kernel becomes commands on addresses. One entry per op; which composites run
 * fused, and which operands may be strided, is read from here.
 */
import type { ConvAttrs, ConvSizedAttrs } from '../../ops/conv.ts';
import { attentionGradKernels } from './attention/backward.ts';
import { attentionKernels } from './attention/forward.ts';
import {
  type ConvShape,
  conv as convCommands,
  convInputGradient,
  convInputGradientWorkspace,
  convKernelGradient,
  convKernelGradientWorkspace,
  convWorkspace,
} from './conv/index.ts';
import { at, type Call, type Placed, type WasmKernel } from './kernel.ts';
import { copyKernels } from './move/copy.ts';
import { gatherKernels } from './move/gather.ts';
import { halfKernels } from './move/half.ts';
import { randomKernels } from './move/random.ts';
import { normKernels } from './norm/index.ts';
import { type GemmDescription, gemm, gemmWorkspace } from './product/gemm.ts';

const gemmOf = ({ inputs, outputs, workspace }: Call): GemmDescription => {
  const [a, b] = inputs;
  const [y] = outputs;
  const [groups, m, n] = y!.view.shape as [number, number, number];
  const k = a!.view.shape[2]!;
  const operand = (p: Placed) => ({
    address: at(p),
    group: p.view.strides[0]!,
    row: p.view.strides[1]!,
    column: p.view.strides[2]!,
  });
  return {
    m,
    n,
    k,
    groups,
    a: operand(a!),
    b: operand(b!),
    c: { address: y!.address, row: n, group: m * n },
    workspace,
  };
};
const dot: WasmKernel = {
  strided: [true, true],
  workspace: (call) => gemmWorkspace(call.machine, gemmOf(call)),
  work: (call) => ({ commands: gemm(call.machine, gemmOf(call)) }),
};

/** the shape of the forward convolution behind each of the trio */
const convShape = (x: readonly number[], w: readonly number[], a: ConvAttrs): ConvShape => ({
  n: x[0]!,
  h: x[1]!,
  w: x[2]!,
  c: x[3]!,
  kh: w[0]!,
  kw: w[1]!,
  o: w[3]!,
  stride: a.stride,
  pad: a.pad,
  groups: a.groups,
});
const forward = ({ inputs: [x, w], attrs }: Call<ConvAttrs>): ConvShape =>
  convShape(x!.view.shape, w!.view.shape, attrs);
const byInput = ({ inputs: [, w], outputs: [x], attrs }: Call<ConvSizedAttrs>): ConvShape =>
  convShape(x!.view.shape, w!.view.shape, attrs);
const byKernel = ({ inputs: [x], outputs: [w], attrs }: Call<ConvSizedAttrs>): ConvShape =>
  convShape(x!.view.shape, w!.view.shape, attrs);

const conv: WasmKernel<ConvAttrs> = {
  strided: [],
  workspace: (call) => convWorkspace(call.machine, forward(call)),
  work: (call) => {
    const [x, w] = call.inputs;
    const operands = { x: at(x!), w: at(w!), y: call.outputs[0]!.address, workspace: call.workspace };
    return { commands: convCommands(call.machine, forward(call), operands) };
  },
};
const convInput: WasmKernel<ConvSizedAttrs> = {
  strided: [],
  workspace: (call) => convInputGradientWorkspace(call.machine, byInput(call)),
  work: (call) => {
    const [g, w] = call.inputs;
    const operands = { dy: at(g!), w: at(w!), dx: call.outputs[0]!.address, workspace: call.workspace };
    return { commands: convInputGradient(call.machine, byInput(call), operands) };
  },
};
const convKernel: WasmKernel<ConvSizedAttrs> = {
  strided: [],
  workspace: (call) => convKernelGradientWorkspace(call.machine, byKernel(call)),
  work: (call) => {
    const [x, g] = call.inputs;
    const operands = { x: at(x!), dy: at(g!), dw: call.outputs[0]!.address, workspace: call.workspace };
    return { commands: convKernelGradient(call.machine, byKernel(call), operands) };
  },
};

export const kernels: ReadonlyMap<string, WasmKernel> = new Map(
  Object.entries({
    dot,
    conv,
    convInput,
    convKernel,
    ...attentionKernels,
    ...attentionGradKernels,
    ...copyKernels,
    ...gatherKernels,
    ...halfKernels,
    ...normKernels,
    ...randomKernels,
  }) as unknown as [string, WasmKernel][],
);
