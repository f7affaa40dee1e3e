/**
 * Convolution on the WASM machine, channels last: y[n, oh, ow, o] = Σ x[n, h, w, c]·w[kh, kw, c / groups, o], and its
 * input gradient (the kernel gradient is in `weights.ts`). From 16 channels on, 3 × 3 kernels with stride 1 go through
 * Winograd's transform F(4×4), whose rounding error is 2.4 (16 channels) to 1.7 times (320) that of the plain sum; all others
 * go through an indirect GEMM, and so do pictures of so few pixels that the transform would do more than it saves.
 */

import { isContiguous } from '../../../ir/view.ts';
import type { ConvAttrs, ConvSizedAttrs } from '../../../ops/conv.ts';
import { nothing, type Plan, type WasmKernel, type Word } from '../kernel.ts';
import type { Machine } from '../machine/machine.ts';
import { packsStored, type Source, sourceOf } from '../product/pack.ts';
import { directConv } from './direct.ts';
import {
  type ConvAlgorithm,
  type ConvShape,
  type ConvWork,
  contraction,
  convShape,
  type Direction,
  outputSize,
  unitStride,
} from './shape.ts';
import { kernelGradient } from './weights.ts';
import { winogradApplies, winogradConv, winogradWork } from './winograd.ts';

/** what transforming the weights costs beside putting them in order, in multiplications for a pair of channels */
const TRANSFORM_WORK = 64;
/** taps of all pixels along an axis that lie in the picture */
const tapsInside = (pixels: number, size: number, pad: number, taps: number): number => {
  let sum = 0;
  for (let tap = 0; tap < taps; tap++) sum += Math.max(0, Math.min(pixels, size + pad - tap) - Math.max(0, pad - tap));
  return sum;
};
const algorithmOf = ({ shape, direction, size, out, pad }: ConvWork): ConvAlgorithm => {
  if (!winogradApplies(shape, direction)) return directConv;
  if (shape.algorithm) return winogradConv;
  const [rows, columns] = [0, 1].map((i) => tapsInside(out[i]!, size[i]!, pad[i]!, 3)) as [number, number];
  return winogradWork(shape, direction) + TRANSFORM_WORK < shape.n * rows * columns ? winogradConv : directConv;
};
const contract = (
  machine: Machine,
  shape: ConvShape,
  direction: Direction,
  operands: Omit<ConvWork, 'direction' | 'shape' | 'n' | 'channels'>,
): Plan => {
  const work = { ...operands, ...contraction(shape, direction), direction, shape };
  return algorithmOf(work)(machine, work);
};

/** what a convolution, or its input gradient, reads and writes */
export interface ConvOperands {
  readonly x: Word;
  /** w[kh, kw, c / groups, o] */
  readonly w: Word;
  /** the numbers of w. Default: f32 */
  readonly from?: Source | undefined;
  readonly y: Word;
  readonly workspace: Word;
}

/**
 * y. Cost: 2·n·oh·ow·kh·kw·(c / groups)·o FLOP, with Winograd's transform 1/4 of that.
 * @throws Error for an `algorithm` that does not fit the kernel
 */
export const forward = (machine: Machine, s: ConvShape, operands: ConvOperands): Plan => {
  const [oh, ow] = outputSize(s);
  if (s.n * s.o * oh * ow === 0) return nothing;
  return contract(machine, s, 'forward', {
    ...operands,
    size: [s.h, s.w, s.c],
    out: [oh, ow, s.o],
    pad: [s.pad[0][0], s.pad[1][0]],
  });
};

/** The input gradient y[n, h, w, c] of dy = x. Cost: as the forward pass. @throws Error as {@link forward} */
export const inputGradient = (machine: Machine, s: ConvShape, operands: ConvOperands): Plan => {
  if (s.n * s.h * s.w * s.c === 0) return nothing;
  const [oh, ow] = outputSize(s);
  const [[padTop], [padLeft]] = s.pad;
  return contract(machine, s, 'inputGradient', {
    ...operands,
    size: [Math.max(0, oh), Math.max(0, ow), s.o],
    out: [s.h, s.w, s.c],
    // With stride 1 it is a convolution of dy with the kernel turned round.
    pad: unitStride(s) ? [s.kh - 1 - padTop, s.kw - 1 - padLeft] : [padTop, padLeft],
  });
};

/** a kernel of halves in order: its rows and its columns are packed from where they lie */
const widens: WasmKernel['widens'] = (operand, dtype, view) => {
  const [, , c, o] = view.shape as [number, number, number, number];
  return operand === 1 && isContiguous(view) && packsStored(dtype, o, c, 1, o) && packsStored(dtype, c, o, o, 1);
};
const conv: WasmKernel<ConvAttrs> = {
  strided: [],
  widens,
  plan: ({ machine, inputs: [x, w], outputs: [y], attrs, workspace }) => {
    const operands = { x: x!.at, w: w!.at, from: sourceOf(w!), y: y!.at, workspace };
    return forward(machine, convShape(x!.view.shape, w!.view.shape, attrs), operands);
  },
};
const convInput: WasmKernel<ConvSizedAttrs> = {
  strided: [],
  widens,
  plan: ({ machine, inputs: [g, w], outputs: [x], attrs, workspace }) => {
    const operands = { x: g!.at, w: w!.at, from: sourceOf(w!), y: x!.at, workspace };
    return inputGradient(machine, convShape(x!.view.shape, w!.view.shape, attrs), operands);
  },
};
const convKernel: WasmKernel<ConvSizedAttrs> = {
  strided: [],
  plan: ({ machine, inputs: [x, g], outputs: [w], attrs, workspace }) => {
    const shape = convShape(x!.view.shape, w!.view.shape, attrs);
    return kernelGradient(machine, shape, { x: x!.at, dy: g!.at, dw: w!.at, workspace });
  },
};
export const convKernels = { conv, convInput, convKernel };
