/**
 * The convolution kernel: an indirect GEMM. For every output pixel and tap of the kernel it lists the address of the
 * input pixel (or of zeros outside of the image); the register tile follows the list. No im2col copy is made.
 *
 * - `forward`: rows are output pixels in order, input pixel = pixel·stride - pad + tap. The input gradient for stride 1
 *   is the same with the taps in reverse.
 * - `transposed`: the input gradient for any stride. A unit holds the pixels of one image row whose column has the same
 *   remainder modulo the stride, so that they use the same taps.
 *
 * Source: M. Dukhan, The indirect convolution algorithm, 2019.
 */
import { type Expr, f32x4, i32, i32x4, type Local, memoryFill, select, v128 } from '../assembler/assemble.ts';
import { kernel, words } from '../kernel.ts';
import { digit, min } from '../loops/digits.ts';
import { columns, emitTile, type Tile, type TileVariant, tapBytes, tileFunctions, tileName } from '../product/tile.ts';

export type ConvMode = 'forward' | 'transposed';

/** strides in bytes; `forward`: x is read, y written; h, w, oh, ow are of x and y */
const directWords = words([
  'x xImage xRow xPixel xGroup h w oh ow strideY strideX padTop padLeft kw taps channels',
  'b bGroup firstTap tapStep y yPixel yGroup m n',
  'rowsPerUnit panelsPerUnit rowBlocks columnBlocks tapsPerBlock channelBlock',
]);

type I32 = Local<'i32'>;
type V128 = Local<'v128'>;

export const directKernel = (tile: Tile, mode: ConvMode) => {
  const width = columns(tile);
  const variant: TileVariant = { tile, a: { kind: 'rows' }, bStep: width * 4, stretches: 'taps' };
  const lanes = Array.from({ length: Math.ceil(tile.rows / 4) }, (_, i) => i);
  const entry = tapBytes(tile);

  return kernel(`conv${tileName(tile)}_${mode}`, directWords, ({ f, m, start, end, scratch, locals }) => {
    const functions = tileFunctions(m, variant);
    const w = locals();
    const [u, row, tap, tap0, channel0, panel, rows] = f.locals('i32');
    const [image, oy, ox, ky, kx, tapOffset, bOffset, list, count, any] = f.locals('i32');
    const ys = lanes.map(() => f.local('v128'));
    const xs = lanes.map(() => f.local('v128'));
    const bases = lanes.map(() => f.local('v128'));

    // Scratch: a spare tile, zeros for pixels outside, the tap lists of the unit's row tiles.
    const zeros = f.let(i32.add(scratch, tile.rows * width * 4));
    const lists = f.let(i32.add(zeros, i32.add(i32.shl(w.channels, 2), 64)));
    f.emit(memoryFill(zeros, 0, i32.add(i32.shl(w.channels, 2), 64)));
    const listBytes = f.let(i32.add(i32.mul(w.tapsPerBlock, entry), 4));
    const tapBytesOfB = f.let(i32.mul(w.channels, width * 4));
    const zeroVector = f.let(i32x4.splat(zeros));
    const laneIndex = f.let(i32x4.const(0, 1, 2, 3));

    /** adds a tap to the list unless all its pixels are outside */
    const addTap = (inside: readonly V128[], addresses: readonly Expr<'v128'>[]): void => {
      f.set(any, v128.any_true(inside.reduce<Expr<'v128'>>((a, b) => v128.or(a, b), f32x4.const(0, 0, 0, 0))));
      f.if(any, () => {
        f.emit(i32.store(list, bOffset));
        for (const [q, address] of addresses.entries())
          f.emit(v128.store(list, v128.bitselect(address, zeroVector, inside[q]!), 4 + 16 * q));
        f.inc(list, entry);
        f.inc(count, 1);
      });
    };
    const eachTap = (tapEnd: I32, body: () => void): void => {
      f.set(ky, i32.div_u(tap0, w.kw));
      f.set(kx, i32.sub(tap0, i32.mul(ky, w.kw)));
      f.set(bOffset, i32.mul(i32.add(w.firstTap, i32.mul(tap0, w.tapStep)), tapBytesOfB));
      f.for(tap, tap0, tapEnd, 1, () => {
        body();
        f.set(bOffset, i32.add(bOffset, i32.mul(w.tapStep, tapBytesOfB)));
        f.inc(kx, 1);
        f.if(i32.eq(kx, w.kw), () => {
          f.set(kx, 0);
          f.inc(ky, 1);
        });
      });
    };
    /** forward: one row tile, starting at the running position (image, oy, ox) */
    const forwardTaps = (tapEnd: I32): void => {
      for (let r = 0; r < tile.rows; r++) {
        const [q, lane] = [r >> 2, r & 3];
        const y = f.let(i32.sub(i32.mul(oy, w.strideY), w.padTop));
        const x = f.let(i32.sub(i32.mul(ox, w.strideX), w.padLeft));
        const base = i32.add(i32.mul(image, w.xImage), i32.add(i32.mul(y, w.xRow), i32.mul(x, w.xPixel)));
        f.set(ys[q]!, i32x4.replace_lane(ys[q]!, lane, y));
        f.set(xs[q]!, i32x4.replace_lane(xs[q]!, lane, x));
        f.set(bases[q]!, i32x4.replace_lane(bases[q]!, lane, base));
        f.inc(ox, 1);
        f.if(i32.eq(ox, w.ow), () => {
          f.set(ox, 0);
          f.inc(oy, 1);
          f.if(i32.eq(oy, w.oh), () => {
            f.set(oy, 0);
            f.inc(image, 1);
          });
        });
      }
      const height = f.let(i32x4.splat(w.h));
      const rowWidth = f.let(i32x4.splat(w.w));
      eachTap(tapEnd, () => {
        f.set(tapOffset, i32.add(x0, i32.add(i32.mul(ky, w.xRow), i32.mul(kx, w.xPixel))));
        const inside = lanes.map((q) =>
          f.let(
            v128.and(
              i32x4.lt_u(i32x4.add(ys[q]!, i32x4.splat(ky)), height),
              i32x4.lt_u(i32x4.add(xs[q]!, i32x4.splat(kx)), rowWidth),
            ),
          ),
        );
        addTap(
          inside,
          lanes.map((q) => i32x4.add(bases[q]!, i32x4.splat(tapOffset))),
        );
      });
    };
    /** transposed: pixels ox + stride·(row … row + 3) of image row oy; y is read at (oy + pad - ky) / stride */
    const transposedTaps = (tapEnd: I32): void => {
      const rowWidth = f.let(i32x4.splat(w.w));
      eachTap(tapEnd, () => {
        const ty = f.let(i32.sub(i32.add(oy, w.padTop), ky));
        const tx = f.let(i32.sub(i32.add(ox, w.padLeft), kx));
        const y = f.let(i32.div_s(ty, w.strideY));
        const x = f.let(i32.div_s(tx, w.strideX));
        const whole = i32.and(i32.eq(i32.mul(y, w.strideY), ty), i32.eq(i32.mul(x, w.strideX), tx));
        f.if(i32.and(whole, i32.lt_u(y, w.h)), () => {
          f.set(tapOffset, i32.add(x0, i32.add(i32.mul(image, w.xImage), i32.mul(y, w.xRow))));
          for (const q of lanes) f.set(xs[q]!, i32x4.add(laneIndex, i32x4.splat(i32.add(i32.add(x, row), q * 4))));
          const inside = lanes.map((q) => f.let(i32x4.lt_u(xs[q]!, rowWidth)));
          addTap(
            inside,
            lanes.map((q) => i32x4.add(i32x4.splat(tapOffset), i32x4.mul(xs[q]!, i32x4.splat(w.xPixel)))),
          );
        });
      });
    };

    const x0 = f.local('i32');
    f.for(u, start, end, 1, () => {
      const unit = f.let(u);
      const columnBlock = digit(f, unit, w.columnBlocks);
      const rowBlock = digit(f, unit, w.rowBlocks);
      const firstPanel = f.let(i32.mul(columnBlock, w.panelsPerUnit));
      const endPanel = f.let(i32.add(firstPanel, w.panelsPerUnit));
      const panels = f.let(i32.div_u(i32.add(w.n, width - 1), width));
      f.set(endPanel, min(endPanel, panels));
      const [firstRow, endRow] = f.locals('i32');
      f.set(x0, i32.add(w.x, i32.mul(unit, w.xGroup)));
      const y = f.let(i32.add(w.y, i32.mul(unit, w.yGroup)));
      if (mode === 'forward') {
        f.set(firstRow, i32.mul(rowBlock, w.rowsPerUnit));
        f.set(endRow, i32.add(firstRow, w.rowsPerUnit));
        f.set(endRow, min(endRow, w.m));
        f.set(y, i32.add(y, i32.mul(firstRow, w.yPixel)));
      } else {
        // rowBlock = (image·oh + oy)·stride + ox; yPixel is stride pixels long.
        const line = f.let(rowBlock);
        f.set(ox, digit(f, line, w.strideX));
        f.set(endRow, i32.div_u(i32.sub(i32.add(w.ow, i32.sub(w.strideX, 1)), ox), w.strideX));
        f.set(
          y,
          i32.add(
            y,
            i32.add(
              i32.mul(i32.mul(line, w.ow), i32.div_u(w.yPixel, w.strideX)),
              i32.mul(ox, i32.div_u(w.yPixel, w.strideX)),
            ),
          ),
        );
        f.set(oy, digit(f, line, w.oh));
        f.set(image, line);
      }
      const b = f.let(i32.add(w.b, i32.mul(unit, w.bGroup)));
      f.for(tap0, 0, w.taps, w.tapsPerBlock, () => {
        const tapEnd = f.let(i32.add(tap0, w.tapsPerBlock));
        f.set(tapEnd, min(tapEnd, w.taps));
        if (mode === 'forward') {
          const position = f.let(firstRow);
          f.set(ox, digit(f, position, w.ow));
          f.set(oy, digit(f, position, w.oh));
          f.set(image, position);
        }
        const at = f.let(lists);
        f.for(row, firstRow, endRow, tile.rows, () => {
          f.set(count, 0);
          f.set(list, i32.add(at, 4));
          if (mode === 'forward') forwardTaps(tapEnd);
          else transposedTaps(tapEnd);
          f.emit(i32.store(at, count));
          f.set(at, i32.add(at, listBytes));
        });
        f.for(channel0, 0, w.channels, w.channelBlock, () => {
          const kc = f.let(i32.sub(w.channels, channel0));
          f.set(kc, min(kc, w.channelBlock));
          const first = f.let(i32.eqz(i32.or(tap0, channel0)));
          const panelBytes = i32.mul(w.taps, tapBytesOfB);
          f.for(panel, firstPanel, endPanel, 1, () => {
            const column = f.let(i32.mul(panel, width));
            const valid = f.let(i32.sub(w.n, column));
            const bAt = f.let(i32.add(i32.add(b, i32.mul(panel, panelBytes)), i32.mul(channel0, width * 4)));
            const yAt = f.let(i32.add(y, i32.shl(column, 2)));
            f.set(at, lists);
            f.for(row, firstRow, endRow, tile.rows, () => {
              f.set(rows, i32.sub(endRow, row));
              f.if(i32.gt_u(rows, tile.rows), () => f.set(rows, tile.rows));
              emitTile(f, variant, functions, rows, valid, scratch, {
                a: i32.add(at, 4),
                aStride: i32.shl(channel0, 2),
                b: bAt,
                bStride: 0,
                k: kc,
                count: i32.load(at),
                out: yAt,
                outStride: w.yPixel,
                previous: select(first, i32.const(0), yAt),
              });
              f.set(at, i32.add(at, listBytes));
              f.set(yAt, i32.add(yAt, i32.mul(w.yPixel, tile.rows)));
            });
          });
        });
      });
    });
  });
};
