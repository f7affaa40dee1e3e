/**
 * The convolution trio. All three are partial derivatives of one trilinear form
 *   ⟨conv(x, w), g⟩ = Σ x[n, h·s+i−p, …, c]·w[i, j, c, o]·g[n, h, w, o]
 * so each is bilinear and the derivatives of each are the other two: the set is closed under differentiation.
 * Channels last: x[n,h,w,c], w[kh,kw,c/groups,o], y[n,h',w',o].
 */
import { shapeError } from '../ir/errors.ts';
import { checkDtypes, checkWhole } from '../ir/rules.ts';
import { bind, type Nd, type Primitive, type Shape, type Tensor } from '../ir/tensor.ts';
import { fold, repeat, unfold } from './batching.ts';
import { permute, reshape } from './layout.ts';
import { padTo } from './slice.ts';

/** What a convolution is beside its two inputs: stride, padding, groups. */
export interface ConvAttrs {
  /** pixels from one window to the next: down, right */
  readonly stride: readonly [number, number];
  /** zeros put around the picture: [[top, bottom], [left, right]] */
  readonly pad: readonly [readonly [number, number], readonly [number, number]];
  /** parts of the channels that are convolved by themselves */
  readonly groups: number;
}
/** `size` is the spatial size of the result: [h, w] of x for convInput, [kh, kw] of w for convKernel. */
export interface ConvSizedAttrs extends ConvAttrs {
  readonly size: readonly [number, number];
}

/** stride, padding and groups are whole; the operands floats of one dtype */
function checkConv(op: string, inputs: readonly Tensor[], a: ConvAttrs): void {
  checkWhole(op, inputs, 'strides', a.stride, 1);
  checkWhole(op, inputs, 'pads', a.pad.flat());
  checkWhole(op, inputs, 'groups', [a.groups], 1);
  checkDtypes(op, inputs, 'float');
}
/** that y of a sized convolution is what conv would make of x and w */
function checkSized(op: string, inputs: readonly Tensor[], a: ConvSizedAttrs, x: Shape, w: Shape, y: Shape): void {
  checkConv(op, inputs, a);
  checkWhole(op, inputs, 'size', a.size);
  const fits =
    x[0] === y[0] &&
    w[2]! * a.groups === x[3] &&
    w[3] === y[3] &&
    y[3]! % a.groups === 0 &&
    [0, 1].every((i) => outSize(x[i + 1]!, w[i]!, a.stride[i]!, a.pad[i]!) === y[i + 1]);
  if (!fits)
    throw shapeError(op, inputs, `x[${x}], w[${w}] and g[${y}] are not those of one convolution of ${a.groups} groups`);
}

const outSize = (n: number, k: number, s: number, p: readonly [number, number]): number =>
  Math.floor((n + p[0] + p[1] - k) / s) + 1;

/**
 * Calls `at` for every pixel of y, kernel position and group that meet inside the picture, with the positions of the
 * first channel of x, of the first weight and of the first channel of y.
 */
function everyTap(x: Nd, w: Nd, y: Nd, a: ConvAttrs, at: (x0: number, w0: number, y0: number) => void): void {
  const [n, h, wd] = x.shape as [number, number, number];
  const [kh, kw, cg] = w.shape as [number, number, number];
  const [, oh, ow, o] = y.shape as [number, number, number, number];
  for (let b = 0; b < n; b++)
    for (let r = 0; r < oh; r++)
      for (let s = 0; s < ow; s++)
        for (let i = 0; i < kh; i++) {
          const row = r * a.stride[0] + i - a.pad[0][0];
          if (row < 0 || row >= h) continue;
          for (let j = 0; j < kw; j++) {
            const column = s * a.stride[1] + j - a.pad[1][0];
            if (column < 0 || column >= wd) continue;
            for (let g = 0; g < a.groups; g++)
              at(
                x.offset + b * x.stride[0]! + row * x.stride[1]! + column * x.stride[2]! + g * cg * x.stride[3]!,
                w.offset + i * w.stride[0]! + j * w.stride[1]! + ((g * o) / a.groups) * w.stride[3]!,
                y.offset + b * y.stride[0]! + r * y.stride[1]! + s * y.stride[2]! + ((g * o) / a.groups) * y.stride[3]!,
              );
          }
        }
}
/** The trilinear form of the trio, one of whose three operands is the result: `total` has its layout, in f64. */
function accumulate(
  result: 'x' | 'w' | 'y',
  { x, w, y }: { readonly x: Nd; readonly w: Nd; readonly y: Nd },
  a: ConvAttrs,
): void {
  const out = { x, w, y }[result];
  const total = new Float64Array(out.data.length);
  const [xs, ws, wo, ys] = [x.stride[3]!, w.stride[2]!, w.stride[3]!, y.stride[3]!];
  const [cg, og] = [w.shape[2]!, y.shape[3]! / a.groups];
  const [xd, wd, yd] = [x.data, w.data, y.data];
  everyTap(x, w, y, a, (x0, w0, y0) => {
    for (let q = 0; q < cg; q++) {
      const xq = x0 + q * xs;
      const wq = w0 + q * ws;
      if (result === 'y') for (let f = 0; f < og; f++) total[y0 + f * ys]! += xd[xq]! * wd[wq + f * wo]!;
      else if (result === 'w') for (let f = 0; f < og; f++) total[wq + f * wo]! += xd[xq]! * yd[y0 + f * ys]!;
      else for (let f = 0; f < og; f++) total[xq]! += yd[y0 + f * ys]! * wd[wq + f * wo]!;
    }
  });
  for (let i = 0; i < total.length; i++) out.data[i] = total[i]!;
}
const flops = (w: readonly number[], y: readonly number[]): number =>
  2 * y.reduce((p, n) => p * n, 1) * w[0]! * w[1]! * w[2]!;

const sampleSizes = (pick: (lo: number, hi: number) => number) => {
  const groups = pick(1, 2);
  const k = pick(1, 3);
  const pad = [[pick(0, 1), pick(0, 1)] as const, [pick(0, 1), pick(0, 1)] as const] as const;
  const a: ConvAttrs = { stride: [pick(1, 2), pick(1, 2)], pad, groups };
  const x = [pick(1, 2), pick(k, 5), pick(k, 4), groups * pick(1, 2)];
  const w = [k, k, x[3]! / groups, groups * pick(1, 2)];
  const y = [x[0]!, outSize(x[1]!, k, a.stride[0], pad[0]), outSize(x[2]!, k, a.stride[1], pad[1]), w[3]!];
  return { a, x, w, y };
};

// Batching: mapped pictures fold into n; mapped kernels over shared pictures fold into o (or c); both ⇒ more groups.
/** [B,n,h,w,c] → [n,h,w,B·c] */
const toChannels = (x: Tensor): Tensor =>
  reshape(permute(x, [1, 2, 3, 0, 4]), [...x.shape.slice(1, 4), x.shape[0]! * x.shape[4]!]);
/** [n,h,w,B·c] → [B,n,h,w,c] */
const fromChannels = (x: Tensor, size: number): Tensor =>
  permute(reshape(x, [...x.shape.slice(0, 3), size, x.shape[3]! / size]), [3, 0, 1, 2, 4]);
const share = (x: Tensor, size: number, mapped: boolean): Tensor => (mapped ? x : repeat(x, size));

/**
 * conv: 2-D convolution (cross-correlation)     x[n,h,w,c] · w[kh,kw,c/groups,o] → y[n,h',w',o], h' = ⌊(h + p − kh)/s⌋ + 1
 * @throws ShapeError when channels, groups or the kernel's size do not fit
 * cost  2·n·h'·w'·kh·kw·(c/groups)·o flop.  Source: torch.nn.functional.conv2d, channels last.
 */
export const convOp: Primitive<ConvAttrs> = {
  kind: 'primitive',
  name: 'conv',
  doc: '2-D convolution (cross-correlation), channels last; of floats only, as no backend multiplies integers in it: cast them',
  formula: 'y[n,h,w,o] = Σ_{i,j,c} x[n, h·s+i−p, w·s+j−p, c]·w[i,j,c,o]',
  form: { kind: 'kernel' },
  whenEmpty: () => 0,
  shape(inputs, a) {
    const [x, w] = inputs;
    checkWhole('conv', inputs, 'groups', [a.groups], 1);
    if (x!.shape.length !== 4 || w!.shape.length !== 4)
      throw shapeError('conv', inputs, 'operands must be x[n,h,w,c] and w[kh,kw,c/groups,o]');
    const [n, h, wd, c] = x!.shape as [number, number, number, number];
    const [kh, kw, cg, o] = w!.shape as [number, number, number, number];
    if (cg * a.groups !== c || o % a.groups !== 0)
      throw shapeError(
        'conv',
        inputs,
        `needs c = ${a.groups}·w.shape[2] and o divisible by ${a.groups} groups: c ${c}, w[2] ${cg}, o ${o}`,
      );
    checkConv('conv', inputs, a);
    const size = [outSize(h, kh, a.stride[0], a.pad[0]), outSize(wd, kw, a.stride[1], a.pad[1])] as const;
    if (size[0] < 1 || size[1] < 1)
      throw shapeError('conv', inputs, `kernel ${kh}×${kw} is larger than the padded picture`);
    return { shape: [n, size[0], size[1], o], dtype: x!.dtype };
  },
  vjp: ([g], [x, w], a) => [
    convInput(g!, w!, { ...a, size: [x!.shape[1]!, x!.shape[2]!] }),
    convKernel(x!, g!, { ...a, size: [w!.shape[0]!, w!.shape[1]!] }),
  ],
  batch(size, [x, w], [xMapped, wMapped], a) {
    if (!wMapped) return [unfold(bind(convOp, [fold(x!), w!], a), size)];
    const wide = reshape(permute(w!, [1, 2, 3, 0, 4]), [...w!.shape.slice(1, 4), size * w!.shape[4]!]);
    if (!xMapped && a.groups === 1) return [fromChannels(bind(convOp, [x!, wide], a), size)];
    return [
      fromChannels(
        bind(convOp, [toChannels(share(x!, size, xMapped!)), wide], { ...a, groups: a.groups * size }),
        size,
      ),
    ];
  },
  cpu([x, w], a, [y]) {
    accumulate('y', { x: x!, w: w!, y: y! }, a);
  },
  flops: ([x, w], a) =>
    flops(w!.shape, [
      x!.shape[0]!,
      outSize(x!.shape[1]!, w!.shape[0]!, a.stride[0], a.pad[0]),
      outSize(x!.shape[2]!, w!.shape[1]!, a.stride[1], a.pad[1]),
      w!.shape[3]!,
    ]),
  sample(pick) {
    const { a, x, w } = sampleSizes(pick);
    return { operands: [{ shape: x }, { shape: w }], attrs: a };
  },
};

/**
 * convInput: derivative of conv by its picture, a transposed convolution     g[n,h',w',o] · w[kh,kw,c/groups,o] → x[n,h,w,c]
 * @throws ShapeError when ranks or output channels differ.  cost as conv
 */
export const convInputOp: Primitive<ConvSizedAttrs> = {
  kind: 'primitive',
  name: 'convInput',
  doc: 'derivative of conv by its picture (a transposed convolution)',
  formula: 'x[n,h,w,c] = Σ_{i,j,o} g[n, (h+p−i)/s, (w+p−j)/s, o]·w[i,j,c,o]',
  form: { kind: 'kernel' },
  whenEmpty: () => 0,
  shape(inputs, a) {
    const [g, w] = inputs;
    if (g!.shape.length !== 4 || w!.shape.length !== 4 || g!.shape[3] !== w!.shape[3])
      throw shapeError('convInput', inputs, 'operands must be g[n,h,w,o] and w[kh,kw,c/groups,o]');
    const x = [g!.shape[0]!, ...a.size, w!.shape[2]! * a.groups];
    checkSized('convInput', inputs, a, x, w!.shape, g!.shape);
    return { shape: x, dtype: g!.dtype };
  },
  // ⟨convInput(g, w), t⟩ = ⟨g, conv(t, w)⟩
  vjp: ([t], [g, w], a) => [conv(t!, w!, a), convKernel(t!, g!, { ...a, size: [w!.shape[0]!, w!.shape[1]!] })],
  batch(size, [g, w], [gMapped, wMapped], a) {
    if (!wMapped) return [unfold(convInput(fold(g!), w!, a), size)];
    const wide = reshape(permute(w!, [1, 2, 3, 0, 4]), [...w!.shape.slice(1, 4), size * w!.shape[4]!]);
    return [
      fromChannels(convInput(toChannels(share(g!, size, gMapped!)), wide, { ...a, groups: a.groups * size }), size),
    ];
  },
  cpu([g, w], a, [x]) {
    accumulate('x', { x: x!, w: w!, y: g! }, a);
  },
  flops: ([g, w]) => flops(w!.shape, g!.shape),
  sample(pick) {
    const { a, x, w, y } = sampleSizes(pick);
    return { operands: [{ shape: y }, { shape: w }], attrs: { ...a, size: [x[1]!, x[2]!] } };
  },
};

/**
 * convKernel: derivative of conv by its kernel     x[n,h,w,c] · g[n,h',w',o] → w[kh,kw,c/groups,o]
 * @throws ShapeError when ranks or the number of pictures differ.  cost as conv
 */
export const convKernelOp: Primitive<ConvSizedAttrs> = {
  kind: 'primitive',
  name: 'convKernel',
  doc: 'derivative of conv by its kernel',
  formula: 'w[i,j,c,o] = Σ_{n,h,w} x[n, h·s+i−p, w·s+j−p, c]·g[n,h,w,o]',
  form: { kind: 'kernel' },
  whenEmpty: () => 0,
  shape(inputs, a) {
    const [x, g] = inputs;
    if (x!.shape.length !== 4 || g!.shape.length !== 4 || x!.shape[0] !== g!.shape[0])
      throw shapeError('convKernel', inputs, 'operands must be x[n,h,w,c] and g[n,h,w,o] with equal n');
    const w = [...a.size, x!.shape[3]! / a.groups, g!.shape[3]!];
    checkSized('convKernel', inputs, a, x!.shape, w, g!.shape);
    return { shape: w, dtype: x!.dtype };
  },
  // ⟨convKernel(x, g), t⟩ = ⟨conv(x, t), g⟩
  vjp: ([t], [x, g], a) => [convInput(g!, t!, { ...a, size: [x!.shape[1]!, x!.shape[2]!] }), conv(x!, t!, a)],
  batch(size, [x, g], [xMapped, gMapped], a) {
    // one kernel gradient per sample: samples become groups of channels
    const y = convKernel(toChannels(share(x!, size, xMapped!)), toChannels(share(g!, size, gMapped!)), {
      ...a,
      groups: a.groups * size,
    });
    return [fromChannels(y, size)];
  },
  cpu([x, g], a, [w]) {
    accumulate('w', { x: x!, w: w!, y: g! }, a);
  },
  flops: ([x, g], a) => flops([...a.size, x!.shape[3]! / a.groups, g!.shape[3]!], g!.shape),
  sample(pick) {
    const { a, x, w, y } = sampleSizes(pick);
    return { operands: [{ shape: x }, { shape: y }], attrs: { ...a, size: [w[0]!, w[1]!] } };
  },
};

/** What `conv` may be told; left out: stride 1, no padding, one group, neighbouring taps. */
export interface ConvOptions extends Partial<ConvAttrs> {
  /** distance between the taps of the kernel, down and across */
  readonly dilation?: readonly [number, number];
}
const none = [
  [0, 0],
  [0, 0],
] as const;
/**
 * 2-D convolution, channels last: y[n,h,w,o] = Σ_{i,j,c} x[n, h·s+i·d−p, w·s+j·d−p, c]·w[i,j,c,o]. A dilated kernel is
 * one with zeros between its taps.
 * @throws ShapeError when channels, groups or the kernel's size do not fit. Cost: 2·n·h'·w'·kh·kw·(c/groups)·o flop, the zeros included.
 * @example conv(x, w, { pad: [[1, 1], [1, 1]] }) // x[1,8,8,3], w[3,3,3,16] → [1,8,8,16]
 */
export function conv(x: Tensor, w: Tensor, a: ConvOptions = {}): Tensor {
  const { stride = [1, 1], pad = none, groups = 1, dilation = [1, 1] } = a;
  checkWhole('conv', [x, w], 'dilations', dilation, 1);
  const zero = w.shape.map(() => 0);
  const interior = zero.map((_, i) => (i < 2 ? dilation[i]! - 1 : 0));
  const apart = padTo(w, { low: zero, high: zero, interior, value: 0 });
  return bind(convOp, [x, apart], { stride, pad, groups });
}
/** `convInput(g[1,8,8,16], w[3,3,3,16], { …, size: [8, 8] })` → [1,8,8,3]; `size` is h, w of the picture. */
export const convInput = (g: Tensor, w: Tensor, a: ConvSizedAttrs): Tensor => bind(convInputOp, [g, w], a);
/** `convKernel(x[1,8,8,3], g[1,8,8,16], { …, size: [3, 3] })` → [3,3,3,16]; `size` is kh, kw. */
export const convKernel = (x: Tensor, g: Tensor, a: ConvSizedAttrs): Tensor => bind(convKernelOp, [x, g], a);
