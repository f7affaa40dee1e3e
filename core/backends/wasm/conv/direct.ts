/** Convolution as an indirect GEMM: packing of the weights and the command. Any shape. The kernel is in `directCode.ts`. */

import { readers } from '../loops/halves.ts';
import { pack } from '../product/pack.ts';
import { columns } from '../product/tile.ts';
import { chooseTile, divide, panelBytes, SERIAL_WORK, tapBlocks } from '../product/units.ts';
import { type ConvMode, directKernel } from './directCode.ts';
import { type ConvAlgorithm, channelsIn, channelsOut, unitStride } from './shape.ts';

export const directConv: ConvAlgorithm = (machine, d) => {
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
  const { bytes } = readers[d.from?.type ?? 'f32'];
  const [laneStride, kStride] = d.direction === 'forward' ? [bytes, shape.o * bytes] : [shape.o * bytes, bytes];
  const packing = pack(columns(tile), {
    source: d.w,
    from: d.from,
    laneStride,
    kStride,
    groupStride: channelsOut(shape) * bytes,
    lanes: n,
    k: channels,
    stretches: taps,
    stretchStride: channelsIn(shape) * shape.o * bytes,
    target: d.workspace,
    groups,
  });
  const values = {
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
    yPixel: outPixel * step * 4,
    yGroup: n * 4,
    m,
    n,
    rowsPerUnit: blocks.rowsPerUnit,
    panelsPerUnit: blocks.panelsPerUnit,
    rowBlocks,
    columnBlocks: blocks.columnBlocks,
    tapsPerBlock,
    channelBlock,
  };
  const main = directKernel(tile, mode).command(values, grid, groups * m * n * taps * channels < SERIAL_WORK);
  return { bytes: panelBytes(n, taps * channels, columns(tile)) * groups, commands: [packing, main] };
};
