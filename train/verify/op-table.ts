/** The operations a golden `ops` file names, in this project's own functions. Layouts are the file's (NCHW, OIHW). */

import type { Tensor } from '../../core/index.ts';
import * as core from '../../core/index.ts';
import {
  conv2d,
  embedding,
  geglu,
  gelu,
  groupNorm,
  layerNorm,
  linear,
  mse,
  quickGelu,
  silu,
  timestepEmbedding,
  upsampleNearest,
} from '../../nn/index.ts';
import { toChannelsFirst, toChannelsLast } from './compare.ts';

export type Inputs = Readonly<Record<string, Tensor>>;
export type Attributes = Readonly<Record<string, unknown>>;
export type GoldenOp = (inputs: Inputs, attributes: Attributes) => Tensor;

/** @throws Error naming the attribute */
function number(a: Attributes, name: string): number {
  const value = a[name];
  if (typeof value !== 'number') throw new Error(`attribute ${name}: ${JSON.stringify(value)}, expected a number`);
  return value;
}
function numbers(a: Attributes, name: string): readonly number[] {
  const value = a[name];
  if (!Array.isArray(value) || !value.every((x) => typeof x === 'number'))
    throw new Error(`attribute ${name}: ${JSON.stringify(value)}, expected a list of numbers`);
  return value;
}
const all = (a: Attributes): boolean => a.axes === 'all';
const axes = (a: Attributes): readonly number[] | number | undefined =>
  all(a) ? undefined : a.axis === undefined ? numbers(a, 'axes') : number(a, 'axis');
const keep = (a: Attributes): boolean => a.keepdims === true;
const unary =
  (f: (x: Tensor) => Tensor): GoldenOp =>
  ({ x }) =>
    f(x!);
const binary =
  (f: (a: Tensor, b: Tensor) => Tensor): GoldenOp =>
  ({ a, b }) =>
    f(a!, b!);
/** Inputs a, b, c … in alphabetical order. */
const listed = (inputs: Inputs): Tensor[] =>
  Object.keys(inputs)
    .sort()
    .map((name) => inputs[name]!);

/** a[…, m, k] · b[…, k, n] with broadcast leading axes, by way of the grouped product. */
function matmul(a: Tensor, b: Tensor): Tensor {
  const [m, k, n] = [a.shape.at(-2)!, a.shape.at(-1)!, b.shape.at(-1)!];
  const [leadA, leadB] = [a.shape.slice(0, -2), b.shape.slice(0, -2)];
  const rank = Math.max(leadA.length, leadB.length);
  const side = (lead: readonly number[], i: number) => lead[i - rank + lead.length] ?? 1;
  const lead = Array.from({ length: rank }, (_, i) => Math.max(side(leadA, i), side(leadB, i)));
  const grouped = (x: Tensor, rows: number, columns: number) =>
    core.reshape(core.broadcastTo(x, [...lead, rows, columns]), [-1, rows, columns]);
  return core.reshape(core.dot(grouped(a, m, k), grouped(b, k, n)), [...lead, m, n]);
}

function convolution({ x, weight, bias }: Inputs, a: Attributes, asymmetric: boolean): Tensor {
  const pad = asymmetric
    ? ([
        [0, 1],
        [0, 1],
      ] as const)
    : number(a, 'padding');
  const p = { weight: core.permute(weight!, [2, 3, 1, 0]), ...(bias ? { bias } : {}) };
  const options = { stride: number(a, 'stride'), padding: pad, groups: Number(a.groups ?? 1) };
  return toChannelsFirst(conv2d(p, toChannelsLast(x!), options));
}

/** q, k, v [b, heads, t, d] */
function headedAttention({ q, k, v }: Inputs, a: Attributes): Tensor {
  const [b, heads, m] = q!.shape as [number, number, number];
  const beside = (x: Tensor) => core.reshape(core.permute(x, [0, 2, 1, 3]), [b, x.shape[2]!, heads * x.shape[3]!]);
  const o = core.attention(beside(q!), beside(k!), beside(v!), { heads, causal: a.causal === true });
  return core.permute(core.reshape(o, [b, m, heads, v!.shape[3]!]), [0, 2, 1, 3]);
}

const softmaxAlong = (x: Tensor, axis: number): Tensor => core.swap(core.softmax(core.swap(x, axis, -1)), axis, -1);
function logSoftmax(x: Tensor, axis: number): Tensor {
  const shifted = core.sub(x, core.stopGradient(core.max(x, axis, true)));
  return core.sub(shifted, core.log(core.sum(core.exp(shifted), axis, true)));
}
function variance(x: Tensor, axis: number): Tensor {
  return core.mean(core.square(core.sub(x, core.mean(x, axis, true))), axis);
}

/** `[:, 1:4, ::2]` in the notation of Python. */
function pythonSlice(x: Tensor, text: string): Tensor {
  const parts = text.replace(/[[\]\s]/g, '').split(',');
  const whole = (s: string | undefined) => (s === undefined || s === '' ? undefined : Number(s));
  return core.slice(
    x,
    ...parts.map((part, axis) => {
      const [start, stop, step] = part.split(':').map(whole);
      return {
        axis,
        ...(start === undefined ? {} : { start }),
        ...(stop === undefined ? {} : { stop }),
        step: step ?? 1,
      };
    }),
  );
}

function upsampled({ x }: Inputs, a: Attributes): Tensor {
  const [h, w] = x!.shape.slice(2) as [number, number];
  const [toH, toW] = a.size === undefined ? [h * number(a, 'scale'), w * number(a, 'scale')] : numbers(a, 'size');
  return toChannelsFirst(upsampleNearest(toChannelsLast(x!), [toH!, toW!]));
}

export const OPS: Readonly<Record<string, GoldenOp>> = {
  matmul: binary(matmul),
  linear: ({ x, weight, bias }) => linear({ weight: weight!, ...(bias ? { bias } : {}) }, x!),
  lora_linear: ({ x, weight, bias, A, B }) =>
    linear({ weight: weight!, ...(bias ? { bias } : {}), adapter: { A: A!, B: B!, scale: 1 } }, x!),
  conv2d: (inputs, a) => convolution(inputs, a, false),
  'pad+conv2d': (inputs, a) => convolution(inputs, a, true),
  group_norm: ({ x, weight, bias }, a) =>
    toChannelsFirst(
      groupNorm({ weight: weight!, bias: bias! }, toChannelsLast(x!), {
        groups: number(a, 'groups'),
        eps: number(a, 'eps'),
      }),
    ),
  layer_norm: ({ x, weight, bias }, a) => layerNorm({ weight: weight!, bias: bias! }, x!, number(a, 'eps')),
  softmax: ({ x }, a) => softmaxAlong(x!, number(a, 'axis')),
  log_softmax: ({ x }, a) => logSoftmax(x!, number(a, 'axis')),
  attention: headedAttention,
  gelu: unary(gelu),
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
  pow: ({ x, a, b }, attributes) => (x ? core.pow(x, number(attributes, 'exponent')) : core.pow(a!, b!)),
  clip: ({ x }, a) => core.clip(x!, number(a, 'min'), number(a, 'max')),
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
  var: ({ x }, a) => variance(x!, number(a, 'axis')),
  mse: binary(mse),
  nearest_upsample: upsampled,
  embedding: ({ weight, ids }) => embedding({ weight: weight! }, ids!),
  gather: ({ x, index }, a) => core.takeAlong(x!, index!, number(a, 'axis')),
  cat: (inputs, a) => core.concat(listed(inputs), number(a, 'axis')),
  stack: (inputs, a) => core.stack(listed(inputs), number(a, 'axis')),
  slice: ({ x }, a) => pythonSlice(x!, String(a.ranges)),
  transpose: ({ x }, a) => core.permute(x!, numbers(a, 'perm')),
  'reshape+transpose': ({ x }, a) => {
    const [b, length, width] = x!.shape as [number, number, number];
    const heads = number(a, 'H');
    return core.permute(core.reshape(x!, [b, length, heads, width / heads]), [0, 2, 1, 3]);
  },
  pad: ({ x }, a) => core.pad(x!, a.low_high_per_axis as [number, number][], Number(a.value ?? 0)),
  broadcast_to: ({ x }, a) => core.broadcastTo(x!, numbers(a, 'shape')),
  flip: ({ x }, a) => core.flip(x!, numbers(a, 'axes')),
  timestep_embedding: ({ timesteps }, a) =>
    timestepEmbedding(timesteps!, number(a, 'dim'), {
      dtype: timesteps!.dtype === 'f64' ? 'f64' : 'f32',
      flipSinToCos: a.flip_sin_to_cos === true,
      freqShift: number(a, 'downscale_freq_shift'),
    }),
};
