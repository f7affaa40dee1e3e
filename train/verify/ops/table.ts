/** The operations a golden `ops` file names, in this project's own functions. Layouts are the file's (NCHW, OIHW). */

import type { Tensor } from '../../../core/index.ts';
import * as core from '../../../core/index.ts';
import { embedding, geglu, layerNorm, linear, mse, quickGelu, silu } from '../../../nn/index.ts';
import { type Attributes, axes, type Inputs, keep, number, numbers } from './attributes.ts';
import {
  clamped,
  convolve,
  embeddedTimesteps,
  expanded,
  geluOf,
  headedAttention,
  logSoftmax,
  matmul,
  normalizedGroups,
  padAndConvolve,
  padded,
  permuted,
  power,
  pythonSlice,
  softmaxAlong,
  splitHeads,
  upsampled,
  variance,
} from './forms.ts';

export type GoldenOp = (inputs: Inputs, attributes: Attributes) => Tensor;

const unary =
  (f: (x: Tensor) => Tensor): GoldenOp =>
  ({ x }) =>
    f(x!);
const binary =
  (f: (a: Tensor, b: Tensor) => Tensor): GoldenOp =>
  ({ a, b }) =>
    f(a!, b!);
/** Inputs in the order of the file. */
const listed = (inputs: Inputs): Tensor[] => Object.values(inputs);

export const OPS: Readonly<Record<string, GoldenOp>> = {
  matmul: binary(matmul),
  linear: ({ x, weight, bias }) => linear({ weight: weight!, ...(bias ? { bias } : {}) }, x!),
  lora_linear: ({ x, weight, bias, A, B }) =>
    linear({ weight: weight!, ...(bias ? { bias } : {}), adapter: { A: A!, B: B!, scale: 1 } }, x!),
  conv2d: convolve,
  'pad+conv2d': padAndConvolve,
  group_norm: normalizedGroups,
  layer_norm: ({ x, weight, bias }, a) => layerNorm({ weight: weight!, bias: bias! }, x!, number(a, 'eps')),
  softmax: ({ x }, a) => softmaxAlong(x!, number(a, 'axis')),
  log_softmax: ({ x }, a) => logSoftmax(x!, number(a, 'axis')),
  attention: headedAttention,
  gelu: ({ x }, a) => geluOf(x!, a),
  quick_gelu: unary(quickGelu),
  silu: unary(silu),
  geglu: unary(geglu),
  sigmoid: unary(core.sigmoid),
  tanh: unary(core.tanh),
  erf: unary(core.erf),
  exp: unary(core.exp),
  log: unary(core.log),
  sqrt: unary(core.sqrt),
  rsqrt: unary(core.rsqrt),
  sin: unary(core.sin),
  cos: unary(core.cos),
  abs: unary(core.abs),
  neg: unary(core.neg),
  reciprocal: unary(core.recip),
  square: unary(core.square),
  pow: ({ x, a, b }, attributes) => (x ? power(x, number(attributes, 'exponent')) : core.pow(a!, b!)),
  clip: ({ x }, a) => clamped(x!, a),
  add: binary(core.add),
  sub: binary(core.sub),
  mul: binary(core.mul),
  div: binary(core.div),
  maximum: binary(core.maximum),
  minimum: binary(core.minimum),
  where: ({ mask, a, b }) => core.select(core.not(core.equal(mask!, 0)), a!, b!),
  sum: ({ x }, a) => core.sum(x!, axes(a), keep(a)),
  mean: ({ x }, a) => core.mean(x!, axes(a), keep(a)),
  max: ({ x }, a) => core.max(x!, axes(a), keep(a)),
  var: ({ x }, a) => variance(x!, a),
  mse: binary(mse),
  nearest_upsample: upsampled,
  embedding: ({ weight, ids }) => embedding({ weight: weight! }, ids!),
  gather: ({ x, index }, a) => core.takeAlong(x!, index!, number(a, 'axis')),
  cat: (inputs, a) => core.concat(listed(inputs), number(a, 'axis')),
  stack: (inputs, a) => core.stack(listed(inputs), number(a, 'axis')),
  slice: ({ x }, a) => pythonSlice(x!, String(a.ranges)),
  transpose: ({ x }, a) => permuted(x!, numbers(a, 'perm')),
  'reshape+transpose': ({ x }, a) => splitHeads(x!, number(a, 'H')),
  pad: ({ x }, a) => padded(x!, a),
  broadcast_to: ({ x }, a) => expanded(x!, numbers(a, 'shape')),
  flip: ({ x }, a) => core.flip(x!, numbers(a, 'axes')),
  timestep_embedding: embeddedTimesteps,
};

/**
 * Linear in every input: for the absolute values of inputs and cotangent they give the sum of their terms' absolute values,
 * which is what rounding is relative to where terms cancel.
 */
export const MULTILINEAR: ReadonlySet<string> = new Set([
  ...['matmul', 'linear', 'lora_linear', 'conv2d', 'pad+conv2d', 'sum', 'mean', 'add', 'mul', 'broadcast_to'],
  ...['embedding', 'gather'],
]);
