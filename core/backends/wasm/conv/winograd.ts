/**
 * Convolution by Winograd's F(4×4, 3×3) in separate steps: patches are transformed to v[36][patch][channel], the weights of
 * some columns to panels u[36][panel][channel][lane], 36 products give m[36][patch][column], which is transformed back. The
 * columns are taken in blocks whose u stays in the last cache, so that it never meets memory; patches, where there are very
 * many, too. The kernels are in `winogradCode.ts` and `winogradWeights.ts`.
 */

import { type KernelCommand, plus } from '../kernel.ts';
import { readers } from '../loops/halves.ts';
import { fetchCommand } from '../product/fetch.ts';
import { gemm } from '../product/gemm.ts';
import type { Source } from '../product/pack.ts';
import { columns } from '../product/tile.ts';
import { chooseTile, panelBytes, roundUp, SERIAL_WORK } from '../product/units.ts';
import {
  type ConvAlgorithm,
  type ConvShape,
  channelsIn,
  contraction,
  type Direction,
  outputSize,
  unitStride,
} from './shape.ts';
import { POSITIONS } from './transforms.ts';
import { inputTransform, outputTransform } from './winogradCode.ts';
import { weightTransform } from './winogradWeights.ts';

/** with fewer channels the transforms cost what the multiplications save */
const MIN_CHANNELS = 16;

/** whether a convolution may go through the transform */
export const winogradApplies = (s: ConvShape, direction: Direction): boolean => {
  const { n, channels } = contraction(s, direction);
  const possible = s.kh === 3 && s.kw === 3 && unitStride(s) && s.groups === 1;
  if (s.algorithm === 'winograd' && !possible)
    throw new Error(`wasm conv: no Winograd transform for a ${s.kh} × ${s.kw} kernel with stride ${s.stride}`);
  if (s.algorithm) return s.algorithm === 'winograd';
  // With more padding some results are sums of nothing: 0 exactly, which the transform only comes near to.
  const padded = s.pad.flat().every((pad) => pad <= 2);
  return possible && padded && Math.min(n, channels) >= MIN_CHANNELS;
};

/** bytes of transformed weights at a time */
const WEIGHT_BYTES = 12 * 2 ** 20;
/** bytes of transformed patches at a time */
const PATCH_BYTES = 64 * 2 ** 20;
/** columns at a time at least: the patches are read anew for every block */
const MIN_COLUMNS = 32;
/** steps of k in a unit of the weights' transform: a cache line */
const WEIGHT_STEPS = 16;
/**
 * Bytes from position to position: the transforms write 36 places at once, which must not fall into the same sets of the
 * caches as they would at multiples of a page.
 */
const apart = (bytes: number): number => roundUp(bytes, 4096) + 64;

/** equal parts of at most `most`, multiples of `step` */
const part = (total: number, most: number, step: number): number =>
  total === 0 ? step : roundUp(Math.ceil(total / Math.ceil(total / Math.max(step, most))), step);

const patchGrid = (s: ConvShape, direction: Direction): readonly [number, number] => {
  const [oh, ow] = direction === 'forward' ? outputSize(s) : [s.h, s.w];
  return [Math.ceil(oh / 4), Math.ceil(ow / 4)];
};
/** number of 4 × 4 patches of all pictures */
export const patchesOf = (s: ConvShape, direction: Direction): number => {
  const [rows, columns] = patchGrid(s, direction);
  return s.n * rows * columns;
};

export const winogradConv: ConvAlgorithm = (machine, d) => {
  const { shape: s, direction, n, channels } = d;
  const width = columns(chooseTile(machine, 'once', n));
  const [patchRows, patchColumns] = patchGrid(s, direction);
  const patches = s.n * patchRows * patchColumns;
  const columnBytes = POSITIONS * channels * 4;
  const patchesPerBlock = part(patches, Math.floor(PATCH_BYTES / columnBytes), 1);
  const fitting = Math.floor(WEIGHT_BYTES / columnBytes / MIN_COLUMNS) * MIN_COLUMNS;
  const columnsPerBlock = Math.min(n, part(n, Math.max(MIN_COLUMNS, fitting), width));
  const row = roundUp(channels, 4);
  // bytes from position to position
  const vPosition = apart(patchesPerBlock * row * 4);
  const uPosition = apart(panelBytes(columnsPerBlock, channels, width));
  const mPosition = apart(patchesPerBlock * roundUp(columnsPerBlock, 4) * 4);
  const v = d.workspace;
  const u = plus(v, POSITIONS * vPosition);
  const m = plus(u, POSITIONS * uPosition);
  // read in pieces too small to fetch one by one
  const { type, outside = false }: Source = d.from ?? { type: 'f32' };
  const { bytes } = readers[type];
  const fetched = outside ? channelsIn(s) * 9 * s.o * bytes : 0;
  const weights = outside ? plus(m, POSITIONS * mPosition) : d.w;

  const transformPatches = (firstPatch: number, count: number): KernelCommand => {
    const [h, w, pixel] = d.size;
    const values = {
      x: d.x,
      xImage: h * w * pixel * 4,
      xRow: w * pixel * 4,
      xPixel: pixel * 4,
      h,
      w,
      padTop: d.pad[0],
      padLeft: d.pad[1],
      channels,
      patchRows,
      patchColumns,
      firstPatch,
      v,
      vPatch: row * 4,
      vPosition,
    };
    return inputTransform.command(values, count, count * row * 4 * POSITIONS < SERIAL_WORK);
  };
  const transformWeights = (firstColumn: number, count: number): KernelCommand => {
    const tap = channelsIn(s) * s.o * bytes;
    const forward = direction === 'forward';
    const laneStride = forward ? bytes : s.o * bytes;
    const values = {
      // the input gradient reads the taps from the last to the first
      w: plus(weights, (forward ? 0 : 8 * tap) + firstColumn * laneStride),
      rowStride: forward ? 3 * tap : -3 * tap,
      columnStride: forward ? tap : -tap,
      kStride: forward ? s.o * bytes : bytes,
      laneStride,
      lanes: count,
      k: channels,
      kPerUnit: WEIGHT_STEPS,
      u,
      uPosition,
    };
    const grid = Math.ceil(channels / WEIGHT_STEPS);
    return weightTransform(width, type).command(values, grid, count * channels * POSITIONS < SERIAL_WORK);
  };
  const products = (count: number, columns: number): readonly KernelCommand[] =>
    gemm(machine, {
      groups: POSITIONS,
      m: count,
      n: columns,
      k: channels,
      a: { address: v, row, column: 1, group: vPosition / 4 },
      b: { address: u, row: 1, column: 1, group: 1 },
      packedB: u,
      packedGroup: uPosition / 4,
      c: { address: m, row: roundUp(columns, 4), group: mPosition / 4 },
      // so many groups are never split: they need none
      workspace: m,
    }).commands;
  const transformBack = (firstPatch: number, count: number, firstColumn: number, columns: number): KernelCommand => {
    const [oh, ow, pixel] = d.out;
    const values = {
      m,
      mPatch: roundUp(columns, 4) * 4,
      mPosition,
      columns,
      y: plus(d.y, firstColumn * 4),
      yPixel: pixel * 4,
      oh,
      ow,
      patchRows,
      patchColumns,
      firstPatch,
    };
    return outputTransform.command(values, count, count * columns * POSITIONS < SERIAL_WORK);
  };

  const commands: KernelCommand[] = outside ? [fetchCommand(d.w, weights, fetched)] : [];
  for (let firstPatch = 0; firstPatch < patches; firstPatch += patchesPerBlock) {
    const count = Math.min(patchesPerBlock, patches - firstPatch);
    for (let firstColumn = 0; firstColumn < n; firstColumn += columnsPerBlock) {
      const columns = Math.min(columnsPerBlock, n - firstColumn);
      if (firstColumn === 0) commands.push(transformPatches(firstPatch, count));
      commands.push(
        transformWeights(firstColumn, columns),
        ...products(count, columns),
        transformBack(firstPatch, count, firstColumn, columns),
      );
    }
  }
  return { bytes: POSITIONS * (vPosition + uPosition + mPosition) + roundUp(fetched, 64), commands };
};
