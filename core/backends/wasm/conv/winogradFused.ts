/**
 * Winograd's F(4×4) for few patches, where most of the time goes into transforming the weights: a unit takes some columns
 * from their weights to their pixels. What it makes of some k of the weights is multiplied before it leaves the second-level
 * cache, and the sums of all 36 positions stay there until they are transformed back.
 */
import { call, i32, select } from '../assembler/assemble.ts';
import { kernel, words } from '../kernel.ts';
import { min } from '../loops/digits.ts';
import type { Packable } from '../loops/halves.ts';
import { columns, emitTile, type Tile, type TileVariant, tileFunctions, tileName } from '../product/tile.ts';
import { POSITIONS } from './transforms.ts';
import { outputFunction } from './winogradCode.ts';
import { transformPanel, weightFunction } from './winogradWeights.ts';

/** bytes between positions, so that they do not fall into the same sets of the caches */
const APART = 64;
/** bytes of scratch for the transforms: taps of four steps of four lanes, a list of pixels */
const TRANSFORM_BYTES = 1024;

const fusedWords = words([
  'w rowStride columnStride kStride laneStride n k lanesPerUnit kPerBlock',
  'v vPatch vPosition patches rowsPerTile y yPixel oh ow patchRows patchColumns',
]);

/**
 * y from v[position][patch][channel]; unit = `lanesPerUnit` columns, whole panels. `kPerBlock` is a multiple of 4;
 * `rowsPerTile` at most the tile's.
 */
export const fusedKernel = (tile: Tile, type: Packable) => {
  const width = columns(tile);
  const variant: TileVariant = { tile, a: { kind: 'rows' }, bStep: width * 4, stretches: 'once' };
  return kernel(`winograd${tileName(tile)} ${type}`, fusedWords, ({ f, m, start, end, scratch, locals }) => {
    const functions = tileFunctions(m, variant);
    const transform = weightFunction(m, width, type);
    const output = outputFunction(m);
    const w = locals();
    const [unit, k0, panel, position, row, rows] = f.locals('i32');
    const panelBytes = f.let(i32.mul(w.kPerBlock, width * 4));
    const rowBytes = f.let(i32.shl(w.lanesPerUnit, 2));
    const uPosition = f.let(i32.add(i32.mul(w.kPerBlock, rowBytes), APART));
    const mPosition = f.let(i32.add(i32.mul(w.patches, rowBytes), APART));
    const u = f.let(i32.add(scratch, TRANSFORM_BYTES));
    const sums = f.let(i32.add(u, i32.mul(uPosition, POSITIONS)));
    const lastLane = f.let(i32.sub(w.n, 1));
    f.for(unit, start, end, 1, () => {
      const first = f.let(i32.mul(unit, w.lanesPerUnit));
      const lanes = f.let(i32.sub(w.n, first));
      f.set(lanes, min(lanes, w.lanesPerUnit));
      const panels = f.let(i32.div_u(i32.add(lanes, width - 1), width));
      f.for(k0, 0, w.k, w.kPerBlock, () => {
        const steps = f.let(i32.sub(w.k, k0));
        f.set(steps, min(steps, w.kPerBlock));
        const source = f.let(i32.add(w.w, i32.mul(k0, w.kStride)));
        const strides = [w.rowStride, w.columnStride, w.kStride, w.laneStride] as const;
        f.for(panel, 0, panels, 1, () => {
          const to = f.let(i32.add(u, i32.mul(panel, panelBytes)));
          const lane = f.let(i32.add(first, i32.mul(panel, width)));
          transformPanel(f, transform, width, to, source, lane, [lastLane, steps, ...strides, uPosition, scratch]);
        });
        f.for(position, 0, POSITIONS, 1, () => {
          const v = f.let(i32.add(i32.add(w.v, i32.mul(position, w.vPosition)), i32.shl(k0, 2)));
          const b = f.let(i32.add(u, i32.mul(position, uPosition)));
          const out = f.let(i32.add(sums, i32.mul(position, mPosition)));
          f.for(panel, 0, panels, 1, () => {
            const [a, c] = [f.let(v), f.let(out)];
            f.for(row, 0, w.patches, w.rowsPerTile, () => {
              f.set(rows, i32.sub(w.patches, row));
              f.set(rows, min(rows, w.rowsPerTile));
              emitTile(f, variant, functions, rows, f.let(i32.const(width)), scratch, {
                a,
                aStride: w.vPatch,
                b,
                bStride: width * 4,
                k: steps,
                count: 1,
                out: c,
                outStride: rowBytes,
                previous: select(k0, c, i32.const(0)),
              });
              f.set(a, i32.add(a, i32.mul(w.rowsPerTile, w.vPatch)));
              f.set(c, i32.add(c, i32.mul(w.rowsPerTile, rowBytes)));
            });
            f.set(b, i32.add(b, panelBytes));
            f.inc(out, width * 4);
          });
        });
      });
      const to = f.let(i32.add(w.y, i32.shl(first, 2)));
      const bytes = f.let(i32.shl(lanes, 2));
      const from = f.let(sums);
      const target = [w.yPixel, w.oh, w.ow, w.patchRows, w.patchColumns] as const;
      f.for(row, 0, w.patches, 1, () => {
        f.emit(call(output, [row, from, mPosition, bytes, to, ...target, scratch]));
        f.set(from, i32.add(from, rowBytes));
      });
    });
  });
};
