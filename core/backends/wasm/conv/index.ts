/**
 * Convolution on the WASM machine, channels last: y[n, oh, ow, o] = Σ x[n, h, w, c]·w[kh, kw, c / groups, o], and its
 * input gradient (the kernel gradient is in `weights.ts`). From 16 channels on, 3 × 3 kernels with stride 1 go through
 * Winograd's transform F(4×4), whose rounding error is 2.4 (16 channels) to 1.7 times (320) that of the plain sum; all others
 * go through an indirect GEMM.
 *
 * @example
 * const shape = { n: 8, h: 28, w: 28, c: 64, kh: 3, kw: 3, o: 64, stride: [1, 1], pad: [[1, 1], [1, 1]], groups: 1 } as const;
 * const workspace = machine.alloc(convWorkspace(machine, shape));
 * machine.run(machine.prepare(conv(machine, shape, { x, w, y, bias, workspace })));
 */

import type { Command, Machine } from '../machine/machine.ts';
import { directConv } from './direct.ts';
import {
  type ConvAlgorithm,
  type ConvShape,
  type ConvWork,
  type Direction,
  outputSize,
  product,
  unitStride,
} from './shape.ts';
import { patchesOf, winogradApplies, winogradConv } from './winograd.ts';

export { type ConvShape, outputSize } from './shape.ts';
export {
  convKernelGradient,
  convKernelGradientWorkspace,
  type KernelGradientOperands,
} from './weights.ts';

interface Weights {
  /** address of w[kh, kw, c / groups, o] */
  readonly w: number;
  /** block of {@link convWorkspace} or {@link convInputGradientWorkspace} bytes */
  readonly workspace: number;
}
/** addresses of a forward convolution */
export interface ConvOperands extends Weights {
  readonly x: number;
  readonly y: number;
  readonly bias?: number;
  /** laid out like y */
  readonly residual?: number;
  readonly activation?: ConvWork['activation'];
}
/** addresses of an input gradient: reads dy and w, writes dx */
export interface InputGradientOperands extends Weights {
  readonly dy: number;
  readonly dx: number;
}

/** patches from which it pays to transform the weights for them: a single one takes 1.5 times the direct way's time */
const FEW_PATCHES = 2;
const algorithmOf = (s: ConvShape, direction: Direction): ConvAlgorithm => {
  if (!winogradApplies(s, direction)) return directConv;
  return s.algorithm || patchesOf(s, direction) >= FEW_PATCHES ? winogradConv : directConv;
};

/** bytes of workspace {@link conv} needs */
export const convWorkspace = (machine: Machine, s: ConvShape): number =>
  algorithmOf(s, 'forward').workspaceBytes(machine, s, 'forward');
/** bytes of workspace {@link convInputGradient} needs */
export const convInputGradientWorkspace = (machine: Machine, s: ConvShape): number =>
  algorithmOf(s, 'inputGradient').workspaceBytes(machine, s, 'inputGradient');

const contract = (
  machine: Machine,
  s: ConvShape,
  direction: Direction,
  { w, workspace }: Weights,
  work: Omit<ConvWork, 'direction' | 'shape' | 'n' | 'channels' | 'w' | 'workspace'>,
): readonly Command[] =>
  algorithmOf(s, direction).commands(machine, { ...work, ...product(s, direction), direction, shape: s, w, workspace });

/**
 * Commands that compute y. Cost: 2·n·oh·ow·kh·kw·(c / groups)·o FLOP, with Winograd's transform 1/4 of that.
 *
 * @throws Error for an `algorithm` that does not fit the kernel
 */
export const conv = (machine: Machine, s: ConvShape, p: ConvOperands): readonly Command[] => {
  const [oh, ow] = outputSize(s);
  if (s.n * s.o * oh * ow === 0) return [];
  return contract(machine, s, 'forward', p, {
    x: p.x,
    size: [s.h, s.w, s.c],
    y: p.y,
    out: [oh, ow, s.o],
    pad: [s.pad[0][0], s.pad[1][0]],
    bias: p.bias ?? 0,
    residual: p.residual ?? 0,
    activation: p.activation ?? 'none',
  });
};

/** Commands that compute dx[n, h, w, c] from dy. Cost: as the forward pass. @throws Error as {@link conv} */
export const convInputGradient = (machine: Machine, s: ConvShape, p: InputGradientOperands): readonly Command[] => {
  if (s.n * s.h * s.w * s.c === 0) return [];
  const [oh, ow] = outputSize(s);
  const [[padTop], [padLeft]] = s.pad;
  return contract(machine, s, 'inputGradient', p, {
    x: p.dy,
    size: [Math.max(0, oh), Math.max(0, ow), s.o],
    y: p.dx,
    out: [s.h, s.w, s.c],
    // With stride 1 it is a convolution of dy with the kernel turned round.
    pad: unitStride(s) ? [s.kh - 1 - padTop, s.kw - 1 - padLeft] : [padTop, padLeft],
    bias: 0,
    residual: 0,
    activation: 'none',
  });
};
