/**
 * Convolution by Winograd's F(4×4, 3×3) in separate steps: patches are transformed to v[36][patch][channel], the weights of
 * some columns to panels u[36][panel][channel][lane], 36 products give m[36][patch][column], which is transformed back. The
 * columns are taken in blocks whose u stays in the last cache, so that it never meets memory; patches, where there are very
 * many, too. The kernels are in `winogradCode.ts` and `winogradWeights.ts`.
 */

import type { Command, Machine } from '../machine/machine.ts';
import { type GemmDescription, gemm } from '../product/gemm.ts';
import { columns } from '../product/tile.ts';
import { chooseTile, ensure, panelBytes, roundUp, SERIAL_WORK } from '../product/units.ts';
import {
  type ConvAlgorithm,
  type ConvShape,
  type ConvWork,
  channelsIn,
  type Direction,
  outputSize,
  product,
  unitStride,
} from './shape.ts';
import { POSITIONS } from './transforms.ts';
import { INPUT_KERNEL, inputModule, inputWords, OUTPUT_KERNEL, outputModule, outputWords } from './winogradCode.ts';
import { weightKernel, weightModule, weightWords } from './winogradWeights.ts';

/** with fewer channels the transforms cost what the multiplications save */
const MIN_CHANNELS = 16;

/** whether a convolution may go through the transform */
export const winogradApplies = (s: ConvShape, direction: Direction): boolean => {
  const { n, channels } = product(s, direction);
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

interface Plan {
  readonly width: number;
  readonly channels: number;
  readonly n: number;
  readonly patches: number;
  readonly patchRows: number;
  readonly patchColumns: number;
  readonly patchesPerBlock: number;
  readonly columnsPerBlock: number;
  /** bytes from position to position of v, u and m */
  readonly v: number;
  readonly u: number;
  readonly m: number;
}
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

const planOf = (machine: Machine, s: ConvShape, direction: Direction): Plan => {
  const { n, channels } = product(s, direction);
  const width = columns(chooseTile(machine, 'once', n));
  const [patchRows, patchColumns] = patchGrid(s, direction);
  const patches = s.n * patchRows * patchColumns;
  const columnBytes = POSITIONS * channels * 4;
  const patchesPerBlock = part(patches, Math.floor(PATCH_BYTES / columnBytes), 1);
  const fitting = Math.floor(WEIGHT_BYTES / columnBytes / MIN_COLUMNS) * MIN_COLUMNS;
  const columnsPerBlock = Math.min(n, part(n, Math.max(MIN_COLUMNS, fitting), width));
  return {
    width,
    channels,
    n,
    patches,
    patchRows,
    patchColumns,
    patchesPerBlock,
    columnsPerBlock,
    v: apart(patchesPerBlock * roundUp(channels, 4) * 4),
    u: apart(panelBytes(columnsPerBlock, channels, width)),
    m: apart(patchesPerBlock * roundUp(columnsPerBlock, 4) * 4),
  };
};
/** one block of patches and of columns */
interface Block {
  readonly firstPatch: number;
  readonly patches: number;
  readonly firstColumn: number;
  readonly columns: number;
}
const serial = (work: number, grid: number): Pick<Command, 'chunk'> => (work < SERIAL_WORK ? { chunk: grid } : {});

const addresses = (
  { workspace }: ConvWork,
  { v, u }: Plan,
): { readonly v: number; readonly u: number; readonly m: number } => ({
  v: workspace,
  u: workspace + POSITIONS * v,
  m: workspace + POSITIONS * (v + u),
});

const transformPatches = (machine: Machine, d: ConvWork, p: Plan, { firstPatch, patches }: Block): Command => {
  const [h, w, pixel] = d.size;
  const row = roundUp(p.channels, 4) * 4;
  return {
    kernel: ensure(machine, INPUT_KERNEL, inputModule),
    args: inputWords({
      x: d.x,
      xImage: h * w * pixel * 4,
      xRow: w * pixel * 4,
      xPixel: pixel * 4,
      h,
      w,
      padTop: d.pad[0],
      padLeft: d.pad[1],
      channels: p.channels,
      patchRows: p.patchRows,
      patchColumns: p.patchColumns,
      firstPatch,
      v: addresses(d, p).v,
      vPatch: row,
      vPosition: p.v,
    }),
    grid: patches,
    ...serial(patches * row * 36, patches),
  };
};
const transformWeights = (machine: Machine, d: ConvWork, p: Plan, { firstColumn, columns }: Block): Command => {
  const { shape: s, direction } = d;
  const tap = channelsIn(s) * s.o * 4;
  const forward = direction === 'forward';
  const laneStride = forward ? 4 : s.o * 4;
  const grid = Math.ceil(p.channels / WEIGHT_STEPS);
  return {
    kernel: ensure(machine, weightKernel(p.width), () => weightModule(p.width)),
    args: weightWords({
      // the input gradient reads the taps from the last to the first
      w: (forward ? d.w : d.w + 8 * tap) + firstColumn * laneStride,
      rowStride: forward ? 3 * tap : -3 * tap,
      columnStride: forward ? tap : -tap,
      kStride: forward ? s.o * 4 : 4,
      laneStride,
      lanes: columns,
      k: p.channels,
      kPerUnit: WEIGHT_STEPS,
      u: addresses(d, p).u,
      uPosition: p.u,
    }),
    grid,
    ...serial(columns * p.channels * 36, grid),
  };
};
const products = (machine: Machine, d: ConvWork, p: Plan, { patches, columns }: Block): readonly Command[] => {
  const [row, width] = [roundUp(p.channels, 4), roundUp(columns, 4)];
  const { v, u, m } = addresses(d, p);
  const description: GemmDescription = {
    groups: POSITIONS,
    m: patches,
    n: columns,
    k: p.channels,
    a: { address: v, row, column: 1, group: p.v / 4 },
    b: { address: u, row: 1, column: 1, group: 1 },
    packedB: u,
    packedGroup: p.u / 4,
    c: { address: m, row: width, group: p.m / 4 },
  };
  return gemm(machine, description);
};
const transformBack = (machine: Machine, d: ConvWork, p: Plan, block: Block): Command => {
  const { patches, firstColumn, columns } = block;
  const [oh, ow, pixel] = d.out;
  const width = roundUp(columns, 4) * 4;
  const from = (address: number): number => (address === 0 ? 0 : address + firstColumn * 4);
  return {
    kernel: ensure(machine, OUTPUT_KERNEL, outputModule),
    args: outputWords(
      { alpha: 1, activation: d.activation, cStride: pixel * 4, residualStride: pixel * 4 },
      {
        m: addresses(d, p).m,
        mPatch: width,
        mPosition: p.m,
        columns,
        y: from(d.y),
        oh,
        ow,
        patchRows: p.patchRows,
        patchColumns: p.patchColumns,
        firstPatch: block.firstPatch,
        bias: from(d.bias),
        residual: from(d.residual),
      },
    ),
    grid: patches,
    ...serial(patches * columns * 36, patches),
  };
};

export const winogradConv: ConvAlgorithm = {
  workspaceBytes: (machine, s, direction) => {
    const { v, u, m } = planOf(machine, s, direction);
    return POSITIONS * (v + u + m);
  },
  commands: (machine, d) => {
    const p = planOf(machine, d.shape, d.direction);
    const commands: Command[] = [];
    for (let firstPatch = 0; firstPatch < p.patches; firstPatch += p.patchesPerBlock) {
      const patches = Math.min(p.patchesPerBlock, p.patches - firstPatch);
      for (let firstColumn = 0; firstColumn < p.n; firstColumn += p.columnsPerBlock) {
        const block = { firstPatch, patches, firstColumn, columns: Math.min(p.columnsPerBlock, p.n - firstColumn) };
        if (firstColumn === 0) commands.push(transformPatches(machine, d, p, block));
        commands.push(
          transformWeights(machine, d, p, block),
          ...products(machine, d, p, block),
          transformBack(machine, d, p, block),
        );
      }
    }
    return commands;
  },
};
