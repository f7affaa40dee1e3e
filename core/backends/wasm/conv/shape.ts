/** The shapes of convolutions, and what the algorithms for them have in common. */

import type { ConvAttrs } from '../../../ops/conv.ts';
import type { Plan, Word } from '../kernel.ts';
import type { Machine } from '../machine/machine.ts';
import type { Source } from '../product/pack.ts';

/** y[n, oh, ow, o] = Σ x[n, h, w, c]·w[kh, kw, c / groups, o] */
export interface ConvShape {
  readonly n: number;
  readonly h: number;
  readonly w: number;
  readonly c: number;
  readonly kh: number;
  readonly kw: number;
  readonly o: number;
  readonly stride: readonly [number, number];
  /** [[top, bottom], [left, right]] */
  readonly pad: readonly [readonly [number, number], readonly [number, number]];
  readonly groups: number;
  /** overrules the choice of the algorithm; `winograd` divides the work by the number of patches */
  readonly algorithm?: 'direct' | 'winograd' | 'winograd in blocks';
}

/** the shape of the forward convolution of x[n, h, w, c] with w[kh, kw, c / groups, o] */
export const convShape = (
  x: readonly number[],
  w: readonly number[],
  { stride, pad, groups }: ConvAttrs,
): ConvShape => ({ n: x[0]!, h: x[1]!, w: x[2]!, c: x[3]!, kh: w[0]!, kw: w[1]!, o: w[3]!, stride, pad, groups });

/** rows and columns of y */
export const outputSize = (s: ConvShape): readonly [number, number] => [
  Math.floor((s.h + s.pad[0][0] + s.pad[0][1] - s.kh) / s.stride[0]) + 1,
  Math.floor((s.w + s.pad[1][0] + s.pad[1][1] - s.kw) / s.stride[1]) + 1,
];
export const channelsIn = (s: ConvShape): number => s.c / s.groups;
export const channelsOut = (s: ConvShape): number => s.o / s.groups;

export type Direction = 'forward' | 'inputGradient';
/** columns of the product and length of a tap, per group */
export const contraction = (s: ConvShape, direction: Direction): { readonly n: number; readonly channels: number } =>
  direction === 'forward'
    ? { n: channelsOut(s), channels: channelsIn(s) }
    : { n: channelsIn(s), channels: channelsOut(s) };
export const unitStride = (s: ConvShape): boolean => s.stride[0] === 1 && s.stride[1] === 1;

/** one convolution or input gradient: x is read, y written */
export interface ConvWork {
  readonly direction: Direction;
  readonly shape: ConvShape;
  /** columns and length of a tap, per group */
  readonly n: number;
  readonly channels: number;
  readonly x: Word;
  /** [rows, columns, channels] of an image of x and of y */
  readonly size: readonly [number, number, number];
  readonly y: Word;
  readonly out: readonly [number, number, number];
  /** rows above and columns left of x */
  readonly pad: readonly [number, number];
  /** w[kh, kw, c / groups, o] */
  readonly w: Word;
  /** its numbers. Default: f32 */
  readonly from?: Source | undefined;
  /** where the plan's `bytes` lie: packed or transformed weights, and what else it needs */
  readonly workspace: Word;
}

export type ConvAlgorithm = (machine: Machine, work: ConvWork) => Plan;
