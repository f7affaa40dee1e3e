/** Planning of the kernel gradient of a convolution; the kernel is in `weightsCode.ts`. */

import type { Command, Machine } from '../machine/machine.ts';
import { reduceCommand } from '../product/gemm.ts';
import { columns, type Tile } from '../product/tile.ts';
import { chooseTile, ensure, packCommand, panelBytes, roundUp, SERIAL_WORK, wantedUnits } from '../product/units.ts';
import { type ConvShape, channelsIn, channelsOut, outputSize } from './shape.ts';
import { kernelGradientModule, kernelGradientName, kernelGradientWords } from './weightsCode.ts';

const empty = (s: ConvShape): boolean => s.n * s.h * s.w * s.c * s.o === 0 || outputSize(s).some((size) => size <= 0);

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
