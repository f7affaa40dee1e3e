/**
 * The GEMM kernel: for a unit (group, rows block, columns block, split of k) it walks k in blocks, packs its rows of A
 * where that pays, and runs the register tile over the block.
 */
import { call, f32x4, i32, select, v128 } from '../assembler/assemble.ts';
import { kernel, words } from '../kernel.ts';
import { digit, min } from '../loops/digits.ts';
import { storeLanes } from '../loops/tails.ts';
import { packPanelFunction } from './pack.ts';
import { columns, emitTile, type Tile, type TileVariant, tileFunctions, tileName } from './tile.ts';

/** How A is read: straight from memory with k or the rows contiguous, or packed into scratch first. */
export type ModeA = 'rows' | 'cols' | 'pack';
/** How B is read: in packed panels, or straight from memory with n contiguous. */
export type ModeB = 'packed' | 'direct';

/** strides in bytes */
const gemmWords = words([
  'a aRow aK aGroup b bK bPanel bGroup c cRow cGroup m n k',
  'rowsPerUnit panelsPerUnit rowBlocks columnBlocks splits kPerSplit splitStride kBlock',
]);

export const gemmKernel = (tile: Tile, modeA: ModeA, modeB: ModeB) => {
  const width = columns(tile);
  const variant: TileVariant = {
    tile,
    a: modeA === 'rows' ? { kind: 'rows' } : { kind: 'cols', step: modeA === 'pack' ? tile.rows * 4 : undefined },
    bStep: modeB === 'packed' ? width * 4 : undefined,
    stretches: 'once',
  };
  return kernel(`gemm${tileName(tile)}_${modeA}_${modeB}`, gemmWords, ({ f, m, start, end, scratch, locals }) => {
    const functions = tileFunctions(m, variant);
    const packPanel = modeA === 'pack' ? packPanelFunction(m, tile.rows) : undefined;
    const w = locals();
    const [u, k0, panel, row] = f.locals('i32');
    // Scratch: one spare tile, then the packed rows.
    const packed = f.let(i32.add(scratch, tile.rows * width * 4));
    f.for(u, start, end, 1, () => {
      const unit = f.let(u);
      const split = digit(f, unit, w.splits);
      const columnBlock = digit(f, unit, w.columnBlocks);
      const rowBlock = digit(f, unit, w.rowBlocks);
      const firstRow = f.let(i32.mul(rowBlock, w.rowsPerUnit));
      const firstPanel = f.let(i32.mul(columnBlock, w.panelsPerUnit));
      const endRow = f.let(i32.add(firstRow, w.rowsPerUnit));
      f.set(endRow, min(endRow, w.m));
      const endPanel = f.let(i32.add(firstPanel, w.panelsPerUnit));
      const panels = f.let(i32.div_u(i32.add(w.n, width - 1), width));
      f.set(endPanel, min(endPanel, panels));
      const kEnd = f.let(i32.mul(i32.add(split, 1), w.kPerSplit));
      f.set(kEnd, min(kEnd, w.k));
      const a = f.let(i32.add(w.a, i32.mul(unit, w.aGroup)));
      const b = f.let(i32.add(w.b, i32.mul(unit, w.bGroup)));
      const c = f.let(i32.add(i32.add(w.c, i32.mul(unit, w.cGroup)), i32.mul(split, w.splitStride)));
      const firstK = f.let(i32.mul(split, w.kPerSplit));
      // Once even for k = 0: C is 0 then.
      f.for(k0, firstK, f.let(i32.add(kEnd, i32.eqz(kEnd))), w.kBlock, () => {
        const kc = f.let(i32.sub(kEnd, k0));
        f.set(kc, min(kc, w.kBlock));
        const aBlock = f.let(i32.add(a, i32.mul(k0, w.aK)));
        const panelStride = f.let(i32.mul(kc, tile.rows * 4));
        const rows = f.local('i32');
        if (packPanel) {
          const to = f.let(packed);
          f.for(row, firstRow, endRow, tile.rows, () => {
            f.emit(
              call(packPanel, [to, i32.add(aBlock, i32.mul(row, w.aRow)), i32.sub(endRow, row), kc, w.aRow, w.aK]),
            );
            f.set(to, i32.add(to, panelStride));
          });
        }
        f.for(panel, firstPanel, endPanel, 1, () => {
          const column = f.let(i32.mul(panel, width));
          const valid = f.let(i32.sub(w.n, column));
          const bAt = f.let(i32.add(i32.add(b, i32.mul(panel, w.bPanel)), i32.mul(k0, w.bK)));
          const aAt = f.let(packPanel ? packed : i32.add(aBlock, i32.mul(firstRow, w.aRow)));
          const aStep = f.let(packPanel ? panelStride : i32.mul(w.aRow, tile.rows));
          const cAt = f.let(i32.add(i32.add(c, i32.shl(column, 2)), i32.mul(firstRow, w.cRow)));
          const cStep = f.let(i32.mul(w.cRow, tile.rows));
          f.for(row, firstRow, endRow, tile.rows, () => {
            f.set(rows, i32.sub(endRow, row));
            f.if(i32.gt_u(rows, tile.rows), () => f.set(rows, tile.rows));
            emitTile(f, variant, functions, rows, valid, scratch, {
              a: aAt,
              aStride: modeA === 'rows' ? w.aRow : w.aK,
              b: bAt,
              bStride: w.bK,
              k: kc,
              count: 1,
              out: cAt,
              outStride: w.cRow,
              previous: select(i32.gt_u(k0, firstK), cAt, i32.const(0)),
            });
            f.set(aAt, i32.add(aAt, aStep));
            f.set(cAt, i32.add(cAt, cStep));
          });
        });
      });
    });
  });
};

/**
 * Second pass of a split contraction: C[g][i] = Σ_s partials[g][s][i], in the order of s. Unit = row g·m + i; partials are
 * [g][s][m][n] without gaps.
 */
export const sumSplits = kernel(
  'sumSplits',
  words(['partials splits splitStride group c cRow cGroup m n']),
  ({ f, start, end, locals }) => {
    const w = locals();
    const [u, j, s] = f.locals('i32');
    const rowBytes = f.let(i32.shl(w.n, 2));
    f.for(u, start, end, 1, () => {
      const group = f.let(i32.div_u(u, w.m));
      const i = f.let(i32.sub(u, i32.mul(group, w.m)));
      const from = f.let(i32.add(i32.add(w.partials, i32.mul(group, w.group)), i32.mul(i, rowBytes)));
      const to = f.let(i32.add(i32.add(w.c, i32.mul(group, w.cGroup)), i32.mul(i, w.cRow)));
      f.for(j, 0, rowBytes, 16, () => {
        const at = f.let(i32.add(from, j));
        const sum = f.let(v128.load(at));
        f.for(s, 1, w.splits, 1, () => {
          f.set(at, i32.add(at, w.splitStride));
          f.set(sum, f32x4.add(sum, v128.load(at)));
        });
        storeLanes(f, i32.add(to, j), sum, i32.sub(rowBytes, j));
      });
    });
  },
);
