/** Operations a golden `ops` file names that take more than one of this project's own: PyTorch's forms of them, NCHW, OIHW. */
import type { Tensor } from '../../../core/index.ts';
import * as core from '../../../core/index.ts';
import { conv2d, gelu, groupNorm, timestepEmbedding, upsampleNearest } from '../../../nn/index.ts';
import { toChannelsFirst, toChannelsLast } from '../distances.ts';
import { type Attributes, axes, type Inputs, isList, keep, number, numbers } from './attributes.ts';

/** a[…, m, k] · b[…, k, n] with broadcast leading axes, by way of the grouped product. */
export function matmul(a: Tensor, b: Tensor): Tensor {
  const [m, k, n] = [a.shape.at(-2)!, a.shape.at(-1)!, b.shape.at(-1)!];
  const [leadA, leadB] = [a.shape.slice(0, -2), b.shape.slice(0, -2)];
  const rank = Math.max(leadA.length, leadB.length);
  const side = (lead: readonly number[], i: number) => lead[i - rank + lead.length] ?? 1;
  const lead = Array.from({ length: rank }, (_, i) => Math.max(side(leadA, i), side(leadB, i)));
  const grouped = (x: Tensor, rows: number, columns: number) =>
    core.reshape(core.broadcastTo(x, [...lead, rows, columns]), [-1, rows, columns]);
  return core.reshape(core.dot(grouped(a, m, k), grouped(b, k, n)), [...lead, m, n]);
}

/** One number for both axes, or one for each. */
function pair(a: Attributes, name: string): readonly [number, number] {
  if (!isList(a[name])) return [number(a, name), number(a, name)];
  const [h, w] = numbers(a, name);
  return [h!, w!];
}

type Sides = readonly [readonly [number, number], readonly [number, number]];

/** `F.pad(x,(left,right,top,bottom))`: the words after it only describe. */
function padOf(a: Attributes): Sides {
  const match = /\(\s*x\s*,\s*\(\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\)/.exec(String(a.pad));
  if (!match) throw new Error(`attribute pad: ${JSON.stringify(a.pad)}, expected F.pad(x,(left,right,top,bottom))`);
  const [left, right, top, bottom] = match.slice(1).map(Number);
  return [
    [top!, bottom!],
    [left!, right!],
  ];
}

/** kernel[kh, kw, in, out] with dh − 1 rows and dw − 1 columns of zeros between its own. */
function spread(kernel: Tensor, dh: number, dw: number): Tensor {
  const [kh, kw, i, o] = kernel.shape as [number, number, number, number];
  const none = [0, 0] as const;
  const apart = core.reshape(kernel, [kh, 1, kw, 1, i, o]);
  const wide = core.pad(apart, [none, [0, dh - 1], none, [0, dw - 1], none, none]);
  const ranges = [kh * dh - dh + 1, kw * dw - dw + 1].map((stop, axis) => ({ axis, stop }));
  return core.slice(core.reshape(wide, [kh * dh, kw * dw, i, o]), ...ranges);
}

/** @param before zeros put around the picture beforehand */
function convolution({ x, weight, bias }: Inputs, a: Attributes, before: Sides): Tensor {
  const [stride, padding] = [pair(a, 'stride'), pair(a, 'padding')];
  const [dh, dw] = a.dilation === undefined ? [1, 1] : pair(a, 'dilation');
  const kernel = core.permute(weight!, [2, 3, 1, 0]);
  // a dilated kernel is one with zeros between its values
  const dilated = dh === 1 && dw === 1 ? kernel : spread(kernel, dh!, dw!);
  const pad = before.map(([low, high], i) => [low + padding[i]!, high + padding[i]!] as const) as unknown as Sides;
  const groups = Number(a.groups ?? 1);
  if (stride[0] === stride[1]) {
    const even = pad.flat().every((p) => p === pad[0][0]);
    const options = { stride: stride[0], padding: even ? pad[0][0] : pad, groups };
    return toChannelsFirst(conv2d({ weight: dilated, ...(bias ? { bias } : {}) }, toChannelsLast(x!), options));
  }
  const y = core.conv(toChannelsLast(x!), dilated, { stride, pad, groups });
  return toChannelsFirst(bias ? core.add(y, bias) : y);
}
const NONE: Sides = [
  [0, 0],
  [0, 0],
];
export const convolve = (inputs: Inputs, a: Attributes): Tensor => convolution(inputs, a, NONE);
export const padAndConvolve = (inputs: Inputs, a: Attributes): Tensor => convolution(inputs, a, padOf(a));

/** x[n, c, …] with any number of axes after the channels. */
export function normalizedGroups({ x, weight, bias }: Inputs, a: Attributes): Tensor {
  const [n, c] = x!.shape as [number, number];
  const flat = core.reshape(x!, [n, c, -1, 1]);
  const options = { groups: number(a, 'groups'), eps: number(a, 'eps') };
  const p = { weight: weight!, bias: bias! };
  return core.reshape(toChannelsFirst(groupNorm(p, toChannelsLast(flat), options)), x!.shape);
}

/** q, k, v [b, heads, t, d]; values may have another width, the scale may be a number. */
export function headedAttention({ q, k, v }: Inputs, a: Attributes): Tensor {
  const [b, heads, m, width] = q!.shape as [number, number, number, number];
  const causal = a.causal === true;
  if (typeof a.scale === 'number' || v!.shape[3] !== width) {
    if (causal) throw new Error('no check for causal attention with its own scale or width of values');
    const scale = typeof a.scale === 'number' ? a.scale : 1 / Math.sqrt(width);
    return matmul(core.softmax(core.mul(matmul(q!, core.permute(k!, [0, 1, 3, 2])), scale)), v!);
  }
  const beside = (x: Tensor) => core.reshape(core.permute(x, [0, 2, 1, 3]), [b, x.shape[2]!, heads * x.shape[3]!]);
  const o = core.attention(beside(q!), beside(k!), beside(v!), { heads, causal });
  return core.permute(core.reshape(o, [b, m, heads, v!.shape[3]!]), [0, 2, 1, 3]);
}

export const softmaxAlong = (x: Tensor, axis: number): Tensor =>
  core.swap(core.softmax(core.swap(x, axis, -1)), axis, -1);
export function logSoftmax(x: Tensor, axis: number): Tensor {
  const shifted = core.sub(x, core.stopGradient(core.max(x, axis, true)));
  return core.sub(shifted, core.log(core.sum(core.exp(shifted), axis, true)));
}

export function variance(x: Tensor, a: Attributes): Tensor {
  const squares = core.square(core.sub(x, core.mean(x, axes(a), true)));
  const total = core.sum(squares, axes(a), keep(a));
  const count = x.shape.reduce((n, d) => n * d, 1) / total.shape.reduce((n, d) => n * d, 1);
  return core.div(total, count - Number(a.correction ?? 0));
}

/** `approximate: tanh` is GPT's: ½x(1 + tanh(√(2/π)(x + 0.044715x³))). */
export function geluOf(x: Tensor, a: Attributes): Tensor {
  if (a.approximate !== 'tanh') return gelu(x);
  const inner = core.add(x, core.mul(core.mul(core.square(x), x), 0.044715));
  return core.mul(core.mul(x, 0.5), core.add(core.tanh(core.mul(inner, Math.sqrt(2 / Math.PI))), 1));
}

/** Whole exponents by products, for numbers of either sign; others for a > 0. */
export function power(x: Tensor, exponent: number): Tensor {
  if (!Number.isInteger(exponent) || Math.abs(exponent) > 16) return core.pow(x, exponent);
  if (exponent === 0) return core.add(core.mul(x, 0), 1);
  let product = x;
  for (let i = 1; i < Math.abs(exponent); i++) product = core.mul(product, x);
  return exponent < 0 ? core.recip(product) : product;
}

export function clamped(x: Tensor, a: Attributes): Tensor {
  const low = a.min == null ? x : core.maximum(x, number(a, 'min'));
  return a.max == null ? low : core.minimum(low, number(a, 'max'));
}

/** `[:, 1:4, ::2]` in the notation of Python: ranges, single positions, `...` and `None`. */
export function pythonSlice(x: Tensor, text: string): Tensor {
  const parts = text.replace(/[[\]\s]/g, '').split(',');
  const used = parts.filter((part) => part !== 'None' && part !== '...').length;
  const dots = parts.indexOf('...');
  const rest = Array<string>(x.shape.length - used).fill(':');
  const all = dots < 0 ? [...parts, ...rest] : [...parts.slice(0, dots), ...rest, ...parts.slice(dots + 1)];
  const shape: number[] = [];
  const ranges: Parameters<typeof core.slice>[1][] = [];
  let axis = 0;
  for (const part of all) {
    if (part === 'None') {
      shape.push(1);
      continue;
    }
    const n = x.shape[axis]!;
    // as Python: from the end where negative, and never outside
    const place = (s: string | undefined, otherwise: number) => {
      const i = s === undefined || s === '' ? otherwise : Number(s);
      return Math.min(Math.max(i < 0 ? i + n : i, 0), n);
    };
    const [from, to, by] = part.split(':');
    const single = to === undefined;
    const start = place(from, 0);
    const [stop, step] = [single ? start + 1 : place(to, n), by ? Number(by) : 1];
    ranges.push({ axis, start, stop, step });
    if (!single) shape.push(Math.max(0, Math.ceil((stop - start) / step)));
    axis++;
  }
  return core.reshape(core.slice(x, ...ranges), shape);
}

/** Negative widths cut off, as F.pad does. */
export function padded(x: Tensor, a: Attributes): Tensor {
  const sides = a.low_high_per_axis as readonly (readonly [number, number])[];
  const cut = sides.map(([low, high], axis) => ({
    axis,
    start: Math.max(0, -low),
    stop: x.shape[axis]! - Math.max(0, -high),
  }));
  const out = sides.map(([low, high]) => [Math.max(0, low), Math.max(0, high)] as const);
  return core.pad(core.slice(x, ...cut), out, Number(a.value ?? 0));
}

/** −1 keeps an axis as it is, as `expand` has it. */
export function expanded(x: Tensor, shape: readonly number[]): Tensor {
  const own = (i: number) => x.shape[i - shape.length + x.shape.length] ?? 1;
  return core.broadcastTo(
    x,
    shape.map((n, i) => (n === -1 ? own(i) : n)),
  );
}

export const permuted = (x: Tensor, order: readonly number[]): Tensor =>
  core.permute(
    x,
    order.map((axis) => (axis < 0 ? axis + x.shape.length : axis)),
  );

export function splitHeads(x: Tensor, heads: number): Tensor {
  const [b, length, width] = x.shape as [number, number, number];
  return core.permute(core.reshape(x, [b, length, heads, width / heads]), [0, 2, 1, 3]);
}

export function upsampled({ x }: Inputs, a: Attributes): Tensor {
  const [h, w] = x!.shape.slice(2) as [number, number];
  const [toH, toW] = a.size === undefined ? [h * number(a, 'scale'), w * number(a, 'scale')] : numbers(a, 'size');
  return toChannelsFirst(upsampleNearest(toChannelsLast(x!), [toH!, toW!]));
}

/** @throws Error where the longest period is not the models' own */
export function embeddedTimesteps({ timesteps }: Inputs, a: Attributes): Tensor {
  if (a.max_period !== undefined && a.max_period !== 10_000)
    throw new Error(`no check for max_period ${JSON.stringify(a.max_period)}: the models' is 10000`);
  return timestepEmbedding(timesteps!, number(a, 'dim'), {
    dtype: timesteps!.dtype === 'f64' ? 'f64' : 'f32',
    flipSinToCos: a.flip_sin_to_cos === true,
    freqShift: number(a, 'downscale_freq_shift'),
  });
}
