/** Planning of the kernel gradient of a convolution; the kernel is in `weightsCode.ts`. */

import { nothing, type Plan, plus, type Word } from '../kernel.ts';
import type { Machine } from '../machine/machine.ts';
import { addSplits } from '../product/gemm.ts';
import { pack } from '../product/pack.ts';
import { columns } from '../product/tile.ts';
import { chooseTile, panelBytes, roundUp, SERIAL_WORK, wantedUnits } from '../product/units.ts';
import { type ConvShape, channelsIn, channelsOut, outputSize } from './shape.ts';
import { weightsKernel } from './weightsCode.ts';

/** what a kernel gradient reads, and dw[kh, kw, c / groups, o], which it writes */
export interface KernelGradientOperands {
  readonly x: Word;
  readonly dy: Word;
  readonly dw: Word;
  /** packed copies of x and dy, partial sums */
  readonly workspace: Word;
}

/** channels of a unit at least: fewer would read dy too often */
const MIN_CHANNELS = 16;

/** dw. Cost: as the forward pass. */
export const kernelGradient = (machine: Machine, s: ConvShape, at: KernelGradientOperands): Plan => {
  const [oh, ow] = outputSize(s);
  if (s.n * s.h * s.w * s.c * s.o === 0 || oh <= 0 || ow <= 0) return nothing;
  const [cg, og] = [channelsIn(s), channelsOut(s)];
  const tile = chooseTile(machine, 'runs', og);
  const width = columns(tile);
  const taps = s.kh * s.kw;
  const lines = s.n * oh;
  const [pixels, outPixels] = [s.n * s.h * s.w, lines * ow];
  const wanted = wantedUnits(s.groups * taps, outPixels * taps * cg * og);
  const wantedBlocks = Math.max(1, Math.min(Math.ceil(wanted), Math.floor(cg / MIN_CHANNELS)));
  const channelsPerUnit = roundUp(Math.ceil(cg / wantedBlocks), tile.rows);
  const channelBlocks = Math.ceil(cg / channelsPerUnit);
  const linesPerSplit = Math.ceil(lines / Math.max(1, Math.min(lines, Math.round(wanted / wantedBlocks))));
  const splits = Math.ceil(lines / linesPerSplit);
  const split = splits > 1;

  const xBytes = roundUp(panelBytes(cg, pixels, tile.rows) * s.groups, 64);
  const dyBytes = roundUp(panelBytes(og, outPixels, width) * s.groups, 64);
  const partialBytes = split ? s.groups * splits * taps * cg * og * 4 : 0;
  const x = at.workspace;
  const dy = plus(x, xBytes);
  const partials = plus(dy, dyBytes);
  const panels = (lanes: number, source: Word, channels: number, k: number, target: Word) =>
    pack(lanes, {
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
  const m = taps * cg;
  const values = {
    x,
    xPanel: pixels * tile.rows * 4,
    xGroup: panelBytes(cg, pixels, tile.rows),
    dy,
    dyPanel: outPixels * width * 4,
    dyGroup: panelBytes(og, outPixels, width),
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
    lines,
    splits,
    linesPerSplit,
    channelsPerUnit,
    channelBlocks,
    dw: split ? partials : at.dw,
    dwRow: (split ? og : s.o) * 4,
    dwGroup: split ? splits * m * og * 4 : og * 4,
    splitStride: m * og * 4,
  };
  const grid = s.groups * splits * taps * channelBlocks;
  const alone = s.groups * m * og * outPixels < SERIAL_WORK;
  const c = { address: at.dw, row: s.o, group: og };
  return {
    bytes: xBytes + dyBytes + partialBytes,
    commands: [
      panels(tile.rows, at.x, cg, pixels, x),
      panels(width, at.dy, og, outPixels, dy),
      weightsKernel(tile, s.stride[1] === 1).command(values, grid, alone),
      ...(split ? [addSplits({ m, n: og, groups: s.groups, splits, partials, c })] : []),
    ],
  };
};
