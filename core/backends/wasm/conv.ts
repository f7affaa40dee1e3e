/**
 * Convolution on the WASM machine, channels last: y[n, oh, ow, o] = Σ x[n, h, w, c]·w[kh, kw, c / groups, o], and its two
 * gradients. All three are products of the register tile; see `convKernel.ts` and `convKernelGradient.ts`.
 *
 * @example
 * const shape = { n: 8, h: 28, w: 28, c: 64, kh: 3, kw: 3, o: 64, stride: [1, 1], pad: [[1, 1], [1, 1]], groups: 1 } as const;
 * const workspace = machine.alloc(convWorkspace(machine, shape));
 * machine.run(machine.prepare(conv(machine, shape, { x, w, y, bias, workspace })));
 */
import { type ConvMode, convModule, convName, convWords } from './convKernel.ts';
import { kernelGradientModule, kernelGradientName, kernelGradientWords } from './convKernelGradient.ts';
import { reduceCommand } from './gemm.ts';
import type { Epilogue } from './gemmKernel.ts';
import type { Command, Machine } from './machine.ts';
import {
  chooseTile,
  divide,
  ensure,
  packCommand,
  panelBytes,
  roundUp,
  SERIAL_WORK,
  tapBlocks,
  wantedUnits,
} from './plan.ts';
import { columns, type Tile } from './tile.ts';

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
}

/** addresses of a forward convolution */
export interface ConvOperands {
  readonly x: number;
  readonly w: number;
  readonly y: number;
  readonly bias?: number;
  /** laid out like y */
  readonly residual?: number;
  readonly activation?: Epilogue['activation'];
  readonly workspace?: number;
  /** made by {@link packConvWeights} */
  readonly packedW?: number;
}

/** rows and columns of y */
export const outputSize = (s: ConvShape): readonly [number, number] => [
  Math.floor((s.h + s.pad[0][0] + s.pad[0][1] - s.kh) / s.stride[0]) + 1,
  Math.floor((s.w + s.pad[1][0] + s.pad[1][1] - s.kw) / s.stride[1]) + 1,
];
const channelsIn = (s: ConvShape): number => s.c / s.groups;
const channelsOut = (s: ConvShape): number => s.o / s.groups;
const empty = (s: ConvShape): boolean => s.n * s.h * s.w * s.c * s.o === 0 || outputSize(s).some((size) => size <= 0);

type Direction = 'forward' | 'inputGradient';
/** columns of the product and length of a tap */
const product = (s: ConvShape, direction: Direction): { n: number; channels: number } =>
  direction === 'forward'
    ? { n: channelsOut(s), channels: channelsIn(s) }
    : { n: channelsIn(s), channels: channelsOut(s) };

/** bytes of packed weights for {@link conv} or {@link convInputGradient} */
export const packedWeightBytes = (machine: Machine, s: ConvShape, direction: Direction): number => {
  const { n, channels } = product(s, direction);
  return panelBytes(n, s.kh * s.kw * channels, columns(chooseTile(machine, 'taps', n))) * s.groups;
};

/** Commands that pack weights w[kh, kw, c / groups, o] once, for frozen layers. */
export const packConvWeights = (
  machine: Machine,
  s: ConvShape,
  direction: Direction,
  w: number,
  target: number,
): readonly Command[] => {
  const { n, channels } = product(s, direction);
  const [laneStride, kStride] = direction === 'forward' ? [4, s.o * 4] : [s.o * 4, 4];
  return [
    packCommand(machine, columns(chooseTile(machine, 'taps', n)), {
      source: w,
      laneStride,
      kStride,
      groupStride: channelsOut(s) * 4,
      lanes: n,
      k: channels,
      stretches: s.kh * s.kw,
      stretchStride: channelsIn(s) * s.o * 4,
      target,
      groups: s.groups,
    }),
  ];
};

/** bytes of workspace {@link conv} needs without packed weights */
export const convWorkspace = (machine: Machine, s: ConvShape): number => packedWeightBytes(machine, s, 'forward');
/** bytes of workspace {@link convInputGradient} needs without packed weights */
export const convInputGradientWorkspace = (machine: Machine, s: ConvShape): number =>
  packedWeightBytes(machine, s, 'inputGradient');

const packed = (
  machine: Machine,
  s: ConvShape,
  direction: Direction,
  p: { readonly w: number; readonly workspace?: number; readonly packedW?: number },
): { readonly at: number; readonly commands: readonly Command[] } => {
  if (p.packedW !== undefined) return { at: p.packedW, commands: [] };
  if (p.workspace === undefined)
    throw new Error(`wasm conv: needs a workspace of ${packedWeightBytes(machine, s, direction)} bytes`);
  return { at: p.workspace, commands: packConvWeights(machine, s, direction, p.w, p.workspace) };
};

/** Commands that compute y. Cost: 2·n·oh·ow·kh·kw·(c / groups)·o FLOP. */
export const conv = (machine: Machine, s: ConvShape, p: ConvOperands): readonly Command[] => {
  const [oh, ow] = outputSize(s);
  if (s.n * s.o * oh * ow === 0) return [];
  const weights = packed(machine, s, 'forward', p);
  const [[padTop], [padLeft]] = s.pad;
  return [
    ...weights.commands,
    direct(machine, 'forward', {
      ...product(s, 'forward'),
      images: s.n,
      groups: s.groups,
      x: p.x,
      size: [s.h, s.w, s.c],
      out: [oh, ow, s.o],
      stride: s.stride,
      kernel: [s.kh, s.kw],
      pad: [padTop, padLeft],
      flip: false,
      b: weights.at,
      y: p.y,
      bias: p.bias ?? 0,
      residual: p.residual ?? 0,
      activation: p.activation ?? 'none',
    }),
  ];
};

/** addresses of an input gradient: reads dy and w, writes dx */
export interface InputGradientOperands {
  readonly dy: number;
  readonly w: number;
  readonly dx: number;
  readonly workspace?: number;
  readonly packedW?: number;
}

/** Commands that compute dx[n, h, w, c] from dy. Cost: as the forward pass. */
export const convInputGradient = (machine: Machine, s: ConvShape, p: InputGradientOperands): readonly Command[] => {
  if (s.n * s.h * s.w * s.c === 0) return [];
  const [oh, ow] = outputSize(s);
  const weights = packed(machine, s, 'inputGradient', p);
  const unitStride = s.stride[0] === 1 && s.stride[1] === 1;
  const [[padTop], [padLeft]] = s.pad;
  return [
    ...weights.commands,
    direct(machine, unitStride ? 'forward' : 'transposed', {
      ...product(s, 'inputGradient'),
      images: s.n,
      groups: s.groups,
      x: p.dy,
      size: [Math.max(0, oh), Math.max(0, ow), s.o],
      out: [s.h, s.w, s.c],
      stride: s.stride,
      kernel: [s.kh, s.kw],
      pad: unitStride ? [s.kh - 1 - padTop, s.kw - 1 - padLeft] : [padTop, padLeft],
      flip: unitStride,
      b: weights.at,
      y: p.dx,
      bias: 0,
      residual: 0,
      activation: 'none',
    }),
  ];
};

interface Direct {
  readonly images: number;
  readonly groups: number;
  /** columns and length of a tap, per group */
  readonly n: number;
  readonly channels: number;
  readonly x: number;
  /** [rows, columns, channels] of what is read and of what is written */
  readonly size: readonly [number, number, number];
  readonly out: readonly [number, number, number];
  readonly stride: readonly [number, number];
  readonly kernel: readonly [number, number];
  readonly pad: readonly [number, number];
  readonly flip: boolean;
  readonly b: number;
  readonly y: number;
  readonly bias: number;
  readonly residual: number;
  readonly activation: Epilogue['activation'];
}
const direct = (machine: Machine, mode: ConvMode, d: Direct): Command => {
  const { n, channels, groups, images } = d;
  const tile = chooseTile(machine, 'taps', n);
  const taps = d.kernel[0] * d.kernel[1];
  const [h, w, pixel] = d.size;
  const [oh, ow, outPixel] = d.out;
  const m = images * oh * ow;
  const blocks = divide(tile, groups, m, n, taps * channels);
  const rowBlocks = mode === 'forward' ? blocks.rowBlocks : images * oh * d.stride[1];
  const { channelBlock, tapsPerBlock } = tapBlocks(channels, taps);
  const grid = groups * rowBlocks * blocks.columnBlocks;
  const step = mode === 'forward' ? 1 : d.stride[1];
  return {
    kernel: ensure(machine, convName(tile, mode), () => convModule(tile, mode)),
    args: convWords(
      { alpha: 1, activation: d.activation, cStride: outPixel * step * 4, residualStride: outPixel * step * 4 },
      {
        x: d.x,
        xImage: h * w * pixel * 4,
        xRow: w * pixel * 4,
        xPixel: pixel * 4,
        xGroup: channels * 4,
        h,
        w,
        oh,
        ow,
        strideY: d.flip ? 1 : d.stride[0],
        strideX: d.flip ? 1 : d.stride[1],
        padTop: d.pad[0],
        padLeft: d.pad[1],
        kw: d.kernel[1],
        taps,
        channels,
        b: d.b,
        bGroup: panelBytes(n, taps * channels, columns(tile)),
        firstTap: d.flip ? taps - 1 : 0,
        tapStep: d.flip ? -1 : 1,
        y: d.y,
        yGroup: n * 4,
        bias: d.bias,
        biasGroup: n * 4,
        residual: d.residual,
        residualGroup: n * 4,
        m,
        n,
        rowsPerUnit: blocks.rowsPerUnit,
        panelsPerUnit: blocks.panelsPerUnit,
        rowBlocks,
        columnBlocks: blocks.columnBlocks,
        tapsPerBlock,
        channelBlock,
      },
    ),
    grid,
    ...(groups * m * n * taps * channels < SERIAL_WORK && { chunk: grid }),
  };
};

/** addresses of a kernel gradient: reads x and dy, writes dw[kh, kw, c / groups, o] */
export interface KernelGradientOperands {
  readonly x: number;
  readonly dy: number;
  readonly dw: number;
  readonly workspace: number;
}

interface KernelGradientPlan {
  readonly tile: Tile;
  readonly channelsPerUnit: number;
  readonly channelBlocks: number;
  readonly splits: number;
  readonly linesPerSplit: number;
  readonly xBytes: number;
  readonly dyBytes: number;
  readonly partialBytes: number;
}
/** channels of a unit at least: fewer would read dy too often */
const MIN_CHANNELS = 16;
const planKernelGradient = (machine: Machine, s: ConvShape): KernelGradientPlan => {
  const [oh, ow] = outputSize(s);
  const [cg, og] = [channelsIn(s), channelsOut(s)];
  const tile = chooseTile(machine, 'runs', og);
  const taps = s.kh * s.kw;
  const lines = s.n * oh;
  const wanted = wantedUnits(s.groups * taps, lines * ow * taps * cg * og);
  const wantedBlocks = Math.max(1, Math.min(Math.ceil(wanted), Math.floor(cg / MIN_CHANNELS)));
  const channelsPerUnit = roundUp(Math.ceil(cg / wantedBlocks), tile.rows);
  const linesPerSplit = Math.ceil(lines / Math.max(1, Math.min(lines, Math.round(wanted / wantedBlocks))));
  const splits = Math.ceil(lines / linesPerSplit);
  return {
    tile,
    channelsPerUnit,
    channelBlocks: Math.ceil(cg / channelsPerUnit),
    splits,
    linesPerSplit,
    xBytes: roundUp(panelBytes(cg, s.n * s.h * s.w, tile.rows) * s.groups, 64),
    dyBytes: roundUp(panelBytes(og, lines * ow, columns(tile)) * s.groups, 64),
    partialBytes: splits > 1 ? s.groups * splits * taps * cg * og * 4 : 0,
  };
};

/** bytes of workspace {@link convKernelGradient} needs: packed copies of x and dy, partial sums */
export const convKernelGradientWorkspace = (machine: Machine, s: ConvShape): number => {
  if (empty(s)) return 0;
  const p = planKernelGradient(machine, s);
  return p.xBytes + p.dyBytes + p.partialBytes;
};

/** Commands that compute dw. Cost: as the forward pass. */
export const convKernelGradient = (machine: Machine, s: ConvShape, at: KernelGradientOperands): readonly Command[] => {
  const [oh, ow] = outputSize(s);
  const [cg, og] = [channelsIn(s), channelsOut(s)];
  const taps = s.kh * s.kw;
  const p = planKernelGradient(machine, s);
  const { tile, splits } = p;
  const [x, dy] = [at.workspace, at.workspace + p.xBytes];
  const partials = dy + p.dyBytes;
  const [pixels, outPixels] = [s.n * s.h * s.w, s.n * oh * ow];
  const pack = (width: number, source: number, channels: number, k: number, target: number): Command =>
    packCommand(machine, width, {
      source,
      laneStride: 4,
      kStride: channels * s.groups * 4,
      groupStride: channels * 4,
      lanes: channels,
      k,
      stretches: 1,
      stretchStride: 0,
      target,
      groups: s.groups,
    });
  const split = splits > 1;
  const m = taps * cg;
  const grid = s.groups * splits * taps * p.channelBlocks;
  const unitStride = s.stride[1] === 1;
  const main: Command = {
    kernel: ensure(machine, kernelGradientName(tile, unitStride), () => kernelGradientModule(tile, unitStride)),
    args: kernelGradientWords((split ? og : s.o) * 4, {
      x,
      xPanel: pixels * tile.rows * 4,
      xGroup: panelBytes(cg, pixels, tile.rows),
      dy,
      dyPanel: outPixels * columns(tile) * 4,
      dyGroup: panelBytes(og, outPixels, columns(tile)),
      h: s.h,
      w: s.w,
      oh,
      ow,
      strideY: s.stride[0],
      strideX: s.stride[1],
      padTop: s.pad[0][0],
      padLeft: s.pad[1][0],
      kw: s.kw,
      taps,
      channels: cg,
      n: og,
      lines: s.n * oh,
      splits,
      linesPerSplit: p.linesPerSplit,
      channelsPerUnit: p.channelsPerUnit,
      channelBlocks: p.channelBlocks,
      dw: split ? partials : at.dw,
      dwGroup: split ? splits * m * og * 4 : og * 4,
      splitStride: m * og * 4,
    }),
    grid,
    ...(s.groups * m * og * outPixels < SERIAL_WORK && { chunk: grid }),
  };
  const commands = [pack(tile.rows, at.x, cg, pixels, x), pack(columns(tile), at.dy, og, outPixels, dy), main];
  if (!split) return commands;
  return [
    ...commands,
    reduceCommand(machine, {
      m,
      n: og,
      groups: s.groups,
      splits,
      partials,
      c: { address: at.dw, row: s.o, group: og },
      ends: { bias: 0, biasGroup: 0, residual: 0, residualGroup: 0 },
      epilogue: { alpha: 1, activation: 'none', cStride: s.o * 4, residualStride: 0 },
    }),
  ];
};
