/** Convolution by Winograd's transform: when it applies, the weights and the command. The kernels are in `winogradKernel.ts`. */

import type { Command, Machine } from '../machine/machine.ts';
import { columns } from '../product/tile.ts';
import { chooseTile, ensure, panelBytes, roundUp, SERIAL_WORK } from '../product/units.ts';
import { winogradModule, winogradName, winogradScratch, winogradWords } from './f2Kernel.ts';
import { winogradWeightsModule, winogradWeightsName, winogradWeightsWords } from './f2Weights.ts';
import {
  type ConvAlgorithm,
  type ConvShape,
  type ConvWork,
  channelsIn,
  type Direction,
  product,
  unitStride,
} from './shape.ts';

/** with fewer channels the transforms cost what the multiplications save */
const MIN_CHANNELS = 16;
/** with more the transformed patches outgrow a thread's scratch memory */
export const MAX_CHANNELS = 2048;

/** whether a convolution may go through a transform, F(2×2) or F(4×4) */
export const winogradApplies = (s: ConvShape, direction: Direction): boolean => {
  const { n, channels } = product(s, direction);
  const possible = s.kh === 3 && s.kw === 3 && unitStride(s) && s.groups === 1;
  if (s.algorithm && s.algorithm !== 'direct' && !possible)
    throw new Error(`wasm conv: no Winograd transform for a ${s.kh} × ${s.kw} kernel with stride ${s.stride}`);
  if (s.algorithm) return s.algorithm !== 'direct';
  // With more padding some results are sums of nothing: 0 exactly, which the transform only comes near to.
  const padded = s.pad.flat().every((pad) => pad <= 2);
  return possible && padded && Math.min(n, channels) >= MIN_CHANNELS;
};

/** transformed patches of a unit take this many bytes: a part of the second-level cache */
const UNIT_BYTES = 2 ** 18;
const MIN_PATCHES = 12;
const MAX_PATCHES = 48;
const patchesPerUnit = (channels: number): number => {
  const fitting = Math.floor(UNIT_BYTES / (64 * roundUp(channels, 4)) / MIN_PATCHES) * MIN_PATCHES;
  return Math.max(MIN_PATCHES, Math.min(MAX_PATCHES, fitting));
};

const transformWeights = (machine: Machine, { shape: s, direction, w, workspace }: ConvWork): Command => {
  const { n, channels } = product(s, direction);
  const width = columns(chooseTile(machine, 'once', n));
  const tap = channelsIn(s) * s.o * 4;
  const units = Math.ceil(n / width);
  // The input gradient reads the taps from the last to the first.
  const forward = direction === 'forward';
  return {
    kernel: ensure(machine, winogradWeightsName(width), () => winogradWeightsModule(width)),
    args: winogradWeightsWords({
      w: forward ? w : w + 8 * tap,
      rowStride: forward ? 3 * tap : -3 * tap,
      columnStride: forward ? tap : -tap,
      kStride: forward ? s.o * 4 : 4,
      laneStride: forward ? 4 : s.o * 4,
      lanes: n,
      k: channels,
      u: workspace,
      uPosition: panelBytes(n, channels, width),
    }),
    grid: units,
    ...(n * channels * 16 < SERIAL_WORK && { chunk: units }),
  };
};
const command = (machine: Machine, d: ConvWork): Command => {
  const { n, channels } = d;
  const tile = chooseTile(machine, 'once', n);
  const [h, w, pixel] = d.size;
  const [oh, ow, outPixel] = d.out;
  const [patchRows, patchColumns] = [Math.ceil(oh / 2), Math.ceil(ow / 2)];
  const patches = d.shape.n * patchRows * patchColumns;
  const perUnit = patchesPerUnit(channels);
  if (winogradScratch(perUnit, channels) > machine.scratchBytes)
    throw new Error(`wasm conv: ${channels} channels need more scratch than ${machine.scratchBytes} bytes`);
  const grid = Math.ceil(patches / perUnit);
  return {
    kernel: ensure(machine, winogradName(tile), () => winogradModule(tile)),
    args: winogradWords(
      { alpha: 1, activation: d.activation, cStride: outPixel * 4, residualStride: outPixel * 4 },
      {
        x: d.x,
        xImage: h * w * pixel * 4,
        xRow: w * pixel * 4,
        xPixel: pixel * 4,
        h,
        w,
        padTop: d.pad[0],
        padLeft: d.pad[1],
        channels,
        u: d.workspace,
        uPosition: panelBytes(n, channels, columns(tile)),
        y: d.y,
        oh,
        ow,
        n,
        bias: d.bias,
        residual: d.residual,
        patchRows,
        patchColumns,
        patches,
        patchesPerUnit: perUnit,
      },
    ),
    grid,
    ...(patches * 16 * n * channels < SERIAL_WORK && { chunk: grid }),
  };
};

export const winogradConv: ConvAlgorithm = {
  workspaceBytes: (machine, s, direction) => {
    const { n, channels } = product(s, direction);
    return 16 * panelBytes(n, channels, columns(chooseTile(machine, 'once', n)));
  },
  commands: (machine, work) => [transformWeights(machine, work), command(machine, work)],
};
