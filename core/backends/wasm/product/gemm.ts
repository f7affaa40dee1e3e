/**
 * General matrix multiplication on the WASM machine:
 *
 *   C[g][m, n] = act(alpha·A[g][m, k]·B[g][k, n] + bias[g][n] + residual[g][m, n])
 *
 * A and B have any strides (transposes are free), C has contiguous columns. The plan depends on the description alone,
 * never on the number of threads.
 *
 * @example
 * const gemmAt = { m, n, k, a: { address: x, row: k, column: 1 }, b: { address: w, row: n, column: 1 }, c: { address: y, row: n } };
 * const workspace = machine.alloc(gemmWorkspace(machine, gemmAt));
 * machine.run(machine.prepare(gemm(machine, { ...gemmAt, workspace })));
 *
 * Source: K. Goto and R. van de Geijn, Anatomy of high-performance matrix multiplication, 2008.
 */

import type { Command, Machine } from '../machine/machine.ts';
import {
  type Epilogue,
  gemmModule,
  gemmName,
  gemmWords,
  KC,
  type ModeA,
  type ModeB,
  REDUCE_KERNEL,
  reduceModule,
  reduceWords,
} from './gemmCode.ts';
import { type ACTIVATIONS, columns, type Tile } from './tile.ts';
import {
  type Blocks,
  chooseTile,
  divide,
  ensure,
  packCommand,
  panelBytes,
  roundUp,
  SERIAL_WORK,
  splitsOf,
} from './units.ts';

/** a matrix in memory; strides in elements */
export interface Operand {
  readonly address: number;
  /** from row to row */
  readonly row: number;
  /** from column to column */
  readonly column: number;
  /** from group to group; 0 shares the matrix. Default 0 */
  readonly group?: number;
}
export type Output = Omit<Operand, 'column'>;

export interface GemmDescription {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** default 1 */
  readonly groups?: number;
  readonly a: Operand;
  readonly b: Operand;
  readonly c: Output;
  /** default 1 */
  readonly alpha?: number;
  readonly bias?: { readonly address: number; readonly group?: number };
  /** may be C itself (accumulation) */
  readonly residual?: Output;
  readonly activation?: keyof typeof ACTIVATIONS;
  /** block of `gemmWorkspace` bytes; may be left out when that is 0 */
  readonly workspace?: number;
  /** panels of B, as {@link packB} makes them */
  readonly packedB?: number;
  /** elements from the panels of a group to those of the next. Default: one after the other */
  readonly packedGroup?: number;
}

interface Plan {
  readonly tile: Tile;
  readonly modeA: ModeA;
  readonly modeB: ModeB;
  readonly blocks: Blocks;
  readonly splits: number;
  readonly kPerSplit: number;
  /** bytes of packed B and of the partial sums */
  readonly packBytes: number;
  readonly partialBytes: number;
}

/** the residual is C itself */
const accumulates = (d: GemmDescription): boolean => d.residual?.address === d.c.address;

const plan = (machine: Machine, d: GemmDescription): Plan => {
  const { m, n, k, groups = 1, a, b } = d;
  const tile = chooseTile(machine, 'once', n);
  const width = columns(tile);
  const panels = Math.ceil(n / width);
  const modeB: ModeB = d.packedB === undefined && b.column === 1 && m <= 4 * tile.rows ? 'direct' : 'packed';
  const direct = a.column === 1 ? 'rows' : a.row === 1 && (panels <= 3 || m <= tile.rows) ? 'cols' : 'pack';
  const modeA: ModeA = m === 1 && a.column !== 1 ? 'cols' : direct;

  // C is read back for every further block of k, so a scaled sum cannot be added to it in place: the second pass can.
  const scaledInPlace = accumulates(d) && (d.alpha ?? 1) !== 1 && k > KC;
  const wantedSplits = Math.max(splitsOf(groups, m, n, k), scaledInPlace ? 2 : 1);
  const kPerSplit = wantedSplits > 1 ? roundUp(Math.ceil(k / wantedSplits), 4) : k;
  const splits = wantedSplits > 1 ? Math.ceil(k / kPerSplit) : 1;
  const blocks = divide(tile, groups, m, n, k, splits);
  const sharedB = (b.group ?? 0) === 0;
  return {
    tile,
    modeA,
    modeB,
    blocks,
    splits,
    kPerSplit,
    packBytes: modeB === 'packed' && d.packedB === undefined ? panels * width * k * 4 * (sharedB ? 1 : groups) : 0,
    partialBytes: splits > 1 ? roundUp(groups * splits * m * n * 4, 64) : 0,
  };
};

/** bytes of workspace `gemm` needs. O(1) */
export const gemmWorkspace = (machine: Machine, d: GemmDescription): number => {
  const { packBytes, partialBytes } = plan(machine, d);
  return packBytes + partialBytes;
};

/** bytes of the panels of B for `packedB` */
export const packedBBytes = (machine: Machine, d: Pick<GemmDescription, 'n' | 'k' | 'groups' | 'b'>): number => {
  const width = columns(chooseTile(machine, 'once', d.n));
  return panelBytes(d.n, d.k, width) * ((d.b.group ?? 0) === 0 ? 1 : (d.groups ?? 1));
};

/** Commands that pack B once into `target` ({@link packedBBytes} bytes), for frozen weights. */
export const packB = (
  machine: Machine,
  d: Pick<GemmDescription, 'n' | 'k' | 'groups' | 'b'>,
  target: number,
): readonly Command[] => {
  const groups = (d.b.group ?? 0) === 0 ? 1 : (d.groups ?? 1);
  if (d.n * d.k * groups === 0) return [];
  return [
    packCommand(machine, columns(chooseTile(machine, 'once', d.n)), {
      source: d.b.address,
      laneStride: d.b.column * 4,
      kStride: d.b.row * 4,
      groupStride: (d.b.group ?? 0) * 4,
      lanes: d.n,
      k: d.k,
      stretches: 1,
      stretchStride: 0,
      target,
      groups,
    }),
  ];
};

/**
 * Commands that compute C. Cost: 2·g·m·n·k FLOP.
 *
 * @throws Error when a workspace is needed and missing
 */
export const gemm = (machine: Machine, d: GemmDescription): readonly Command[] => {
  const { m, n, k, groups = 1, a, b, c, bias, residual } = d;
  if (m * n * groups === 0) return [];
  const p = plan(machine, d);
  const { tile, splits } = p;
  const width = columns(tile);
  if (p.packBytes + p.partialBytes > 0 && d.workspace === undefined)
    throw new Error(`wasm gemm: ${m}×${n}×${k} needs a workspace of ${p.packBytes + p.partialBytes} bytes`);
  const partials = d.workspace ?? 0;
  const panels = partials + p.partialBytes;
  const packedAt = d.packedB ?? panels;
  const packing = p.packBytes > 0 ? packB(machine, d, panels) : [];
  const groupOfB = (b.group ?? 0) === 0 ? 0 : (d.packedGroup ?? Math.ceil(n / width) * width * k);
  const epilogue: Epilogue = {
    alpha: d.alpha ?? 1,
    activation: d.activation ?? 'none',
    cStride: c.row * 4,
    residualStride: (residual?.row ?? 0) * 4,
  };
  const ends = {
    bias: bias?.address ?? 0,
    biasGroup: (bias?.group ?? 0) * 4,
    residual: residual?.address ?? 0,
    residualGroup: (residual?.group ?? 0) * 4,
  };
  // Adding to C needs no second operand when nothing scales the sum.
  const accumulate = accumulates(d) && splits === 1 && epilogue.alpha === 1;
  const none = { bias: 0, biasGroup: 0, residual: 0, residualGroup: 0 };
  const target = splits > 1 ? { address: partials, row: n, group: splits * m * n } : c;
  const { rowsPerUnit, panelsPerUnit, rowBlocks, columnBlocks } = p.blocks;
  const grid = groups * rowBlocks * columnBlocks * splits;
  const main: Command = {
    kernel: ensure(machine, gemmName(tile, p.modeA, p.modeB), () => gemmModule(tile, p.modeA, p.modeB)),
    args: gemmWords(splits > 1 ? { alpha: 1, activation: 'none', cStride: n * 4, residualStride: 0 } : epilogue, {
      a: a.address,
      aRow: a.row * 4,
      aK: a.column * 4,
      aGroup: (a.group ?? 0) * 4,
      b: p.modeB === 'packed' ? packedAt : b.address,
      bK: p.modeB === 'packed' ? width * 4 : b.row * 4,
      bPanel: p.modeB === 'packed' ? k * width * 4 : width * 4,
      bGroup: (p.modeB === 'packed' ? groupOfB : (b.group ?? 0)) * 4,
      c: target.address,
      cGroup: (target.group ?? 0) * 4,
      ...(splits > 1 ? none : ends),
      ...(accumulate && { residual: 0 }),
      m,
      n,
      k,
      rowsPerUnit,
      panelsPerUnit,
      rowBlocks,
      columnBlocks,
      splits,
      kPerSplit: p.kPerSplit,
      splitStride: m * n * 4,
      kBlock: KC,
      accumulate: accumulate ? 1 : 0,
    }),
    grid,
    ...(groups * m * n * k < SERIAL_WORK && { chunk: grid }),
  };
  if (splits === 1) return [...packing, main];
  return [...packing, main, reduceCommand(machine, { m, n, groups, splits, partials, c, ends, epilogue })];
};

interface Reduction {
  readonly m: number;
  readonly n: number;
  readonly groups: number;
  readonly splits: number;
  /** address of partial sums [group][split][m][n] */
  readonly partials: number;
  readonly c: Output;
  readonly ends: {
    readonly bias: number;
    readonly biasGroup: number;
    readonly residual: number;
    readonly residualGroup: number;
  };
  readonly epilogue: Epilogue;
}
/** Command that adds up the partial sums of a split contraction and applies its epilogue. */
export const reduceCommand = (machine: Machine, r: Reduction): Command => ({
  kernel: ensure(machine, REDUCE_KERNEL, reduceModule),
  args: reduceWords(r.epilogue, {
    partials: r.partials,
    splits: r.splits,
    splitStride: r.m * r.n * 4,
    group: r.splits * r.m * r.n * 4,
    c: r.c.address,
    cGroup: (r.c.group ?? 0) * 4,
    ...r.ends,
    m: r.m,
    n: r.n,
  }),
  grid: r.groups * r.m,
  ...(r.groups * r.m * r.n * r.splits < SERIAL_WORK / 4 && { chunk: r.groups * r.m }),
});
