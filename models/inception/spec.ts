/** The layers of Inception v3 as the FID has it, under the names of pt_inception-2015-12-05. */
import { constant, fanIn, Param } from '../../nn/index.ts';

/** A convolution without bias, batch norm by running statistics, ReLU. */
export type Unit<T> = {
  /** the kernel [out, in, kh, kw] (as tensors [kh, kw, in, out]) */
  readonly conv: { readonly weight: T };
  /** scale, shift and running statistics, [out] each */
  readonly bn: { readonly weight: T; readonly bias: T; readonly running_mean: T; readonly running_var: T };
};
/** A block: its units by name. */
export type Block<T> = { readonly [unit: string]: Unit<T> };
/** The whole network; `fc` makes logits of the 2,048 features. */
export type Inception<T> = { readonly [name: string]: Unit<T> | Block<T> | { readonly weight: T; readonly bias: T } };

type Size = readonly [inputs: number, outputs: number, kh: number, kw?: number];
function unit([inputs, outputs, kh, kw = kh]: Size): Unit<Param> {
  const each = (start: number) => new Param('norm', [outputs], constant(start));
  return {
    conv: { weight: new Param('conv', [outputs, inputs, kh, kw], fanIn(inputs * kh * kw)) },
    bn: { weight: each(1), bias: each(0), running_mean: each(0), running_var: each(1) },
  };
}
const block = (sizes: Readonly<Record<string, Size>>): Block<Param> =>
  Object.fromEntries(Object.entries(sizes).map(([name, size]) => [name, unit(size)]));

const blockA = (n: number, pool: number) =>
  block({
    branch1x1: [n, 64, 1],
    branch5x5_1: [n, 48, 1],
    branch5x5_2: [48, 64, 5],
    branch3x3dbl_1: [n, 64, 1],
    branch3x3dbl_2: [64, 96, 3],
    branch3x3dbl_3: [96, 96, 3],
    branch_pool: [n, pool, 1],
  });
const blockB = (n: number) =>
  block({
    branch3x3: [n, 384, 3],
    branch3x3dbl_1: [n, 64, 1],
    branch3x3dbl_2: [64, 96, 3],
    branch3x3dbl_3: [96, 96, 3],
  });
const blockC = (n: number, c: number) =>
  block({
    branch1x1: [n, 192, 1],
    branch7x7_1: [n, c, 1],
    branch7x7_2: [c, c, 1, 7],
    branch7x7_3: [c, 192, 7, 1],
    branch7x7dbl_1: [n, c, 1],
    branch7x7dbl_2: [c, c, 7, 1],
    branch7x7dbl_3: [c, c, 1, 7],
    branch7x7dbl_4: [c, c, 7, 1],
    branch7x7dbl_5: [c, 192, 1, 7],
    branch_pool: [n, 192, 1],
  });
const blockD = (n: number) =>
  block({
    branch3x3_1: [n, 192, 1],
    branch3x3_2: [192, 320, 3],
    branch7x7x3_1: [n, 192, 1],
    branch7x7x3_2: [192, 192, 1, 7],
    branch7x7x3_3: [192, 192, 7, 1],
    branch7x7x3_4: [192, 192, 3],
  });
const blockE = (n: number) =>
  block({
    branch1x1: [n, 320, 1],
    branch3x3_1: [n, 384, 1],
    branch3x3_2a: [384, 384, 1, 3],
    branch3x3_2b: [384, 384, 3, 1],
    branch3x3dbl_1: [n, 448, 1],
    branch3x3dbl_2: [448, 384, 3],
    branch3x3dbl_3a: [384, 384, 1, 3],
    branch3x3dbl_3b: [384, 384, 3, 1],
    branch_pool: [n, 192, 1],
  });

/** Names and shapes of all 23,850,960 parameters and the running statistics. */
export const inceptionSpec = (): Inception<Param> => ({
  Conv2d_1a_3x3: unit([3, 32, 3]),
  Conv2d_2a_3x3: unit([32, 32, 3]),
  Conv2d_2b_3x3: unit([32, 64, 3]),
  Conv2d_3b_1x1: unit([64, 80, 1]),
  Conv2d_4a_3x3: unit([80, 192, 3]),
  Mixed_5b: blockA(192, 32),
  Mixed_5c: blockA(256, 64),
  Mixed_5d: blockA(288, 64),
  Mixed_6a: blockB(288),
  Mixed_6b: blockC(768, 128),
  Mixed_6c: blockC(768, 160),
  Mixed_6d: blockC(768, 160),
  Mixed_6e: blockC(768, 192),
  Mixed_7a: blockD(768),
  Mixed_7b: blockE(1280),
  Mixed_7c: blockE(2048),
  fc: { weight: new Param('linear', [1008, 2048], fanIn(2048)), bias: new Param('linear', [1008], constant(0)) },
});

const BEHIND: Readonly<Record<number, number>> = { 64: 3, 192: 5, 768: 12, 2048: 16 };
/** The layers up to a tap: what a file must hold for it. */
export const inceptionSpecUpTo = (size: 64 | 192 | 768 | 2048): Inception<Param> =>
  Object.fromEntries(Object.entries(inceptionSpec()).slice(0, BEHIND[size]));
