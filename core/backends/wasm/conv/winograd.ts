/**
 * Convolution by Winograd's F(4×4, 3×3): patches are transformed to v[36][patch][channel], the weights of some columns to
 * panels u[36][panel][channel][lane], 36 products give m[36][patch][column], which is transformed back. Two divisions, with
 * the same bits:
 *
 * - few patches: the weights are most of the work. One kernel takes some columns all the way (`winogradFused.ts`), so that u and
 *   m never leave the second-level cache.
 * - many: a kernel for each step. The columns are taken in blocks whose u stays in the last cache, so that it never meets
 *   memory; patches, where there are very many, too. The kernels are in `winogradCode.ts` and `winogradWeights.ts`.
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
  type ConvWork,
  channelsIn,
  contraction,
  type Direction,
  outputSize,
  unitStride,
} from './shape.ts';
import { POSITIONS } from './transforms.ts';
import { inputTransform, outputTransform } from './winogradCode.ts';
import { fusedKernel } from './winogradFused.ts';
import { weightTransform } from './winogradWeights.ts';

/** with fewer channels the transforms cost what the multiplications save */
const MIN_CHANNELS = 16;

/** whether a convolution may go through the transform */
export const winogradApplies = (s: ConvShape, direction: Direction): boolean => {
  const { n, channels } = contraction(s, direction);
  const possible = s.kh === 3 && s.kw === 3 && unitStride(s) && s.groups === 1;
  const isAsked = s.algorithm !== undefined && s.algorithm !== 'direct';
  if (isAsked && !possible)
    throw new Error(`wasm conv: no Winograd transform for a ${s.kh} × ${s.kw} kernel with stride ${s.stride}`);
  if (s.algorithm) return isAsked;
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
const patchesOf = (s: ConvShape, direction: Direction): number => {
  const [rows, columns] = patchGrid(s, direction);
  return s.n * rows * columns;
};

/** multiplications for a pair of channels */
export const winogradWork = (s: ConvShape, direction: Direction): number => POSITIONS * patchesOf(s, direction);

/** what both ways of division share: patches transformed, and how the weights are read */
const winogradParts = (d: ConvWork, patchesAtOnce: number) => {
  const { shape: s, direction, channels } = d;
  const [patchRows, patchColumns] = patchGrid(s, direction);
  const row = roundUp(channels, 4);
  const vPosition = apart(patchesAtOnce * row * 4);
  const v = d.workspace;
  const vBytes = POSITIONS * vPosition;
  const { type, outside = false }: Source = d.from ?? { type: 'f32' };
  const { bytes } = readers[type];
  const tap = channelsIn(s) * s.o * bytes;
  // read in pieces too small to fetch one by one
  const fetched = outside ? 9 * tap : 0;
  const weights = outside ? plus(v, vBytes) : d.w;
  const patch = { vPatch: row * 4, vPosition, patchRows, patchColumns };

  /** the input of some patches */
  const input = (firstPatch: number, count: number): KernelCommand => {
    const [h, w, pixel] = d.size;
    const [xPixel, xRow, xImage] = [pixel * 4, w * pixel * 4, h * w * pixel * 4];
    const from = { x: d.x, xImage, xRow, xPixel, h, w, padTop: d.pad[0], padLeft: d.pad[1], channels };
    const values = { ...from, ...patch, firstPatch, v };
    return inputTransform.command(values, count, count * row * 4 * POSITIONS < SERIAL_WORK);
  };
  const forward = direction === 'forward';
  const kernelWords = {
    // the input gradient reads the taps from the last to the first
    w: plus(weights, forward ? 0 : 8 * tap),
    rowStride: forward ? 3 * tap : -3 * tap,
    columnStride: forward ? tap : -tap,
    kStride: forward ? s.o * bytes : bytes,
    laneStride: forward ? bytes : s.o * bytes,
    k: channels,
  };
  const [oh, ow, pixel] = d.out;
  const output = { y: d.y, yPixel: pixel * 4, oh, ow, patchRows, patchColumns };
  return {
    type,
    row,
    v,
    patch,
    kernelWords,
    output,
    input,
    fetch: outside ? [fetchCommand(d.w, weights, fetched)] : [],
    /** where the rest of the workspace begins */
    bytes: vBytes + roundUp(fetched, 64),
  };
};

/** patches up to which a unit takes its columns from their weights to their pixels */
const MOST_FUSED = 100;
/** columns of such a unit, and steps of k at a time: 36 positions of both are 300 kB */
const [LEAST_COLUMNS, MOST_COLUMNS, STEPS] = [16, 32, 64];
/** wanted number of units */
const UNITS = 16;

const fused: ConvAlgorithm = (machine, d) => {
  const { n, channels } = d;
  const tile = chooseTile(machine, 'once', n);
  const patches = patchesOf(d.shape, d.direction);
  const { type, v, patch, kernelWords, output, input, fetch, bytes } = winogradParts(d, patches);
  const wanted = roundUp(Math.ceil(n / UNITS), columns(tile));
  const lanesPerUnit = Math.max(LEAST_COLUMNS, Math.min(MOST_COLUMNS, wanted));
  const rowsPerTile = Math.ceil(patches / Math.ceil(patches / tile.rows));
  const sizes = { n, patches, rowsPerTile, lanesPerUnit, kPerBlock: STEPS };
  const main = fusedKernel(tile, type).command(
    { ...kernelWords, ...output, ...patch, ...sizes, v },
    Math.ceil(n / lanesPerUnit),
    patches * n * channels * POSITIONS < SERIAL_WORK,
  );
  return { bytes, commands: [...fetch, input(0, patches), main] };
};

/** the patches and the columns in blocks, step after step */
const blocked: ConvAlgorithm = (machine, d) => {
  const { n, channels } = d;
  const tile = chooseTile(machine, 'once', n);
  const width = columns(tile);
  const patches = patchesOf(d.shape, d.direction);
  const columnBytes = POSITIONS * channels * 4;
  const patchesPerBlock = part(patches, Math.floor(PATCH_BYTES / columnBytes), 1);
  const fitting = Math.floor(WEIGHT_BYTES / columnBytes / MIN_COLUMNS) * MIN_COLUMNS;
  const columnsPerBlock = Math.min(n, part(n, Math.max(MIN_COLUMNS, fitting), width));
  const { type, row, v, patch, kernelWords, output, input, fetch, bytes } = winogradParts(d, patchesPerBlock);
  // bytes from position to position
  const uPosition = apart(panelBytes(columnsPerBlock, channels, width));
  const mPosition = apart(patchesPerBlock * roundUp(columnsPerBlock, 4) * 4);
  const u = plus(d.workspace, bytes);
  const m = plus(u, POSITIONS * uPosition);

  const transformWeights = (firstColumn: number, count: number): KernelCommand => {
    const w = plus(kernelWords.w, firstColumn * kernelWords.laneStride);
    const values = { ...kernelWords, w, lanes: count, kPerUnit: WEIGHT_STEPS, u, uPosition };
    const grid = Math.ceil(channels / WEIGHT_STEPS);
    return weightTransform(width, type).command(values, grid, count * channels * POSITIONS < SERIAL_WORK);
  };
  const products = (count: number, columns: number): readonly KernelCommand[] =>
    gemm(machine, {
      groups: POSITIONS,
      m: count,
      n: columns,
      k: channels,
      a: { address: v, row, column: 1, group: patch.vPosition / 4 },
      b: { address: u, row: 1, column: 1, group: 1 },
      packedB: { at: u, tile },
      packedGroup: uPosition / 4,
      c: { address: m, row: roundUp(columns, 4), group: mPosition / 4 },
      // so many groups are never split: they need none
      workspace: m,
    }).commands;
  const transformBack = (firstPatch: number, count: number, firstColumn: number, columns: number): KernelCommand => {
    const y = plus(output.y, firstColumn * 4);
    const values = { ...output, y, m, mPatch: roundUp(columns, 4) * 4, mPosition, columns, firstPatch };
    return outputTransform.command(values, count, count * columns * POSITIONS < SERIAL_WORK);
  };

  const commands: KernelCommand[] = [...fetch];
  for (let firstPatch = 0; firstPatch < patches; firstPatch += patchesPerBlock) {
    const count = Math.min(patchesPerBlock, patches - firstPatch);
    commands.push(input(firstPatch, count));
    for (let firstColumn = 0; firstColumn < n; firstColumn += columnsPerBlock) {
      const columns = Math.min(columnsPerBlock, n - firstColumn);
      commands.push(
        transformWeights(firstColumn, columns),
        ...products(count, columns),
        transformBack(firstPatch, count, firstColumn, columns),
      );
    }
  }
  return { bytes: bytes + POSITIONS * (uPosition + mPosition), commands };
};

export const winogradConv: ConvAlgorithm = (machine, d) => {
  const few = d.shape.algorithm !== 'winograd in blocks' && patchesOf(d.shape, d.direction) <= MOST_FUSED;
  return (few ? fused : blocked)(machine, d);
};
