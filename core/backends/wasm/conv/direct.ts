/** Convolution as an indirect GEMM: packing of the weights and the command. Any shape. The kernel is in `directCode.ts`. */

import type { Command, Machine } from '../machine/machine.ts';
import { columns } from '../product/tile.ts';
import { chooseTile, divide, ensure, packCommand, panelBytes, SERIAL_WORK, tapBlocks } from '../product/units.ts';
import { type ConvMode, convModule, convName, convWords } from './directCode.ts';
import { type ConvAlgorithm, type ConvWork, channelsIn, channelsOut, product, unitStride } from './shape.ts';

const command = (machine: Machine, d: ConvWork): Command => {
  const { n, channels, shape } = d;
  const { groups, n: images, kh, kw } = shape;
  // The input gradient for stride 1 is a convolution with the taps in reverse.
  const flip = d.direction === 'inputGradient' && unitStride(shape);
  const mode: ConvMode = d.direction === 'forward' || flip ? 'forward' : 'transposed';
  const [strideY, strideX] = flip ? [1, 1] : shape.stride;
  const tile = chooseTile(machine, 'taps', n);
  const taps = kh * kw;
  const [h, w, pixel] = d.size;
  const [oh, ow, outPixel] = d.out;
  const m = images * oh * ow;
  const blocks = divide(tile, groups, m, n, taps * channels);
  const rowBlocks = mode === 'forward' ? blocks.rowBlocks : images * oh * strideX;
  const { channelBlock, tapsPerBlock } = tapBlocks(channels, taps);
  const grid = groups * rowBlocks * blocks.columnBlocks;
  const step = mode === 'forward' ? 1 : strideX;
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
        strideY,
        strideX,
        padTop: d.pad[0],
        padLeft: d.pad[1],
        kw,
        taps,
        channels,
        b: d.workspace,
        bGroup: panelBytes(n, taps * channels, columns(tile)),
        firstTap: flip ? taps - 1 : 0,
        tapStep: flip ? -1 : 1,
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

const packWeights = (machine: Machine, { shape: s, direction, w, workspace }: ConvWork): Command => {
  const { n, channels } = product(s, direction);
  const [laneStride, kStride] = direction === 'forward' ? [4, s.o * 4] : [s.o * 4, 4];
  return packCommand(machine, columns(chooseTile(machine, 'taps', n)), {
    source: w,
    laneStride,
    kStride,
    groupStride: channelsOut(s) * 4,
    lanes: n,
    k: channels,
    stretches: s.kh * s.kw,
    stretchStride: channelsIn(s) * s.o * 4,
    target: workspace,
    groups: s.groups,
  });
};

export const directConv: ConvAlgorithm = {
  workspaceBytes: (machine, s, direction) => {
    const { n, channels } = product(s, direction);
    return panelBytes(n, s.kh * s.kw * channels, columns(chooseTile(machine, 'taps', n))) * s.groups;
  },
  commands: (machine, work) => [packWeights(machine, work), command(machine, work)],
};
