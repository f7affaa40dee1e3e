/**
 * General matrix multiplication on the WASM machine:
 *
 *   C[g][m, n] = A[g][m, k]·B[g][k, n]
 *
 * A and B have any strides (transposes are free), C has contiguous columns. How it is divided depends on the description
 * alone, never on the number of threads.
 *
 * @example
 * const a = { address: x.at, row: k, column: 1 };
 * const b = { address: w.at, row: n, column: 1 };
 * const { bytes, commands } = gemm(machine, { m, n, k, a, b, c: { address: y.at, row: n }, workspace });
 *
 * Source: K. Goto and R. van de Geijn, Anatomy of high-performance matrix multiplication, 2008.
 */

import { type KernelCommand, nothing, type Plan, plus, type Word } from '../kernel.ts';
import { readers } from '../loops/halves.ts';
import type { Machine } from '../machine/machine.ts';
import type { GemmDescription } from './description.ts';
import { gemmKernel, type ModeA, sumSplits } from './gemmCode.ts';
import { pack } from './pack.ts';
import { shallow } from './shallow.ts';
import { columns } from './tile.ts';
import { chooseTile, divide, KC, panelBytes, roundUp, SERIAL_WORK, splitsOf } from './units.ts';

/** C. Cost: 2·g·m·n·k FLOP. */
export const gemm = (machine: Machine, d: GemmDescription): Plan => {
  const { m, n, k, groups = 1, a, b, c, workspace, fromB = { type: 'f32' } } = d;
  const { bytes: sizeB } = readers[fromB.type];
  if (m * n * groups === 0) return nothing;
  const tile = d.packedB?.tile ?? chooseTile(machine, 'once', n);
  const few = shallow(d, tile.fma);
  if (few) return { bytes: 0, commands: [few] };
  const width = columns(tile);
  const panels = Math.ceil(n / width);
  const stored = fromB.type !== 'f32';
  const packed = d.packedB !== undefined || stored || b.column !== 1 || m > 4 * tile.rows;
  const direct = a.column === 1 ? 'rows' : a.row === 1 && (panels <= 3 || m <= tile.rows) ? 'cols' : 'pack';
  const modeA: ModeA = m === 1 && a.column !== 1 ? 'cols' : direct;

  const wantedSplits = splitsOf(groups, m, n, k);
  const kPerSplit = wantedSplits > 1 ? roundUp(Math.ceil(k / wantedSplits), 4) : k;
  const splits = wantedSplits > 1 ? Math.ceil(k / kPerSplit) : 1;
  const split = splits > 1;
  const { rowsPerUnit, panelsPerUnit, rowBlocks, columnBlocks } = divide(tile, groups, m, n, k, splits);
  const sharedB = (b.group ?? 0) === 0;
  const packBytes = packed && d.packedB === undefined ? panelBytes(n, k, width) * (sharedB ? 1 : groups) : 0;
  const partialBytes = split ? roundUp(groups * splits * m * n * 4, 64) : 0;
  // the partial sums, then B in panels
  const partials = workspace;
  const packedB = d.packedB?.at ?? plus(workspace, partialBytes);
  const commands: KernelCommand[] = [];
  if (packBytes > 0)
    commands.push(
      pack(width, {
        source: b.address,
        from: fromB,
        laneStride: b.column * sizeB,
        kStride: b.row * sizeB,
        groupStride: (b.group ?? 0) * sizeB,
        lanes: n,
        k,
        stretches: 1,
        stretchStride: 0,
        target: packedB,
        groups: sharedB ? 1 : groups,
      }),
    );
  const panelsOfGroup = sharedB ? 0 : (d.packedGroup ?? panelBytes(n, k, width) / 4);
  const values = {
    a: a.address,
    aRow: a.row * 4,
    aK: a.column * 4,
    aGroup: (a.group ?? 0) * 4,
    b: packed ? packedB : b.address,
    bK: packed ? width * 4 : b.row * 4,
    bPanel: packed ? k * width * 4 : width * 4,
    bGroup: (packed ? panelsOfGroup : (b.group ?? 0)) * 4,
    c: split ? partials : c.address,
    cRow: (split ? n : c.row) * 4,
    cGroup: (split ? splits * m * n : (c.group ?? 0)) * 4,
    m,
    n,
    k,
    rowsPerUnit,
    panelsPerUnit,
    rowBlocks,
    columnBlocks,
    splits,
    kPerSplit,
    splitStride: m * n * 4,
    kBlock: KC,
  };
  const grid = groups * rowBlocks * columnBlocks * splits;
  commands.push(
    gemmKernel(tile, modeA, packed ? 'packed' : 'direct').command(values, grid, groups * m * n * k < SERIAL_WORK),
  );
  if (split) commands.push(addSplits({ m, n, groups, splits, partials, c }));
  return { bytes: packBytes + partialBytes, commands };
};

/** Command that adds up the sums [group][split][m][n] of a split contraction. */
export const addSplits = ({
  m,
  n,
  groups,
  splits,
  partials,
  c,
}: Pick<Required<GemmDescription>, 'm' | 'n' | 'groups' | 'c'> & {
  readonly splits: number;
  readonly partials: Word;
}): KernelCommand =>
  sumSplits.command(
    {
      partials,
      splits,
      splitStride: m * n * 4,
      group: splits * m * n * 4,
      c: c.address,
      cRow: c.row * 4,
      cGroup: (c.group ?? 0) * 4,
      m,
      n,
    },
    groups * m,
    groups * m * n * splits < SERIAL_WORK / 4,
  );
