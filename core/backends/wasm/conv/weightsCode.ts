/**
 * The kernel gradient of a convolution: for every tap a GEMM dW[c, o] = Σ_pixels x[c, pixel shifted by the tap]·dy[pixel, o].
 * x and dy are packed into panels once; for a tap the sum runs over stretches of image rows ("runs") that lie inside.
 */
import { i32, select } from '../assembler/assemble.ts';
import { kernel, words } from '../kernel.ts';
import { digit, min } from '../loops/digits.ts';
import { columns, emitTile, RUN_BYTES, type Tile, type TileVariant, tileFunctions, tileName } from '../product/tile.ts';
import { KC } from '../product/units.ts';

/** strides in bytes */
const weightsWords = words([
  'x xPanel xGroup dy dyPanel dyGroup h w oh ow strideY strideX padTop padLeft kw taps channels n',
  'lines splits linesPerSplit channelsPerUnit channelBlocks dw dwRow dwGroup splitStride',
]);

/** `unitStride`: the convolution steps by one column */
export const weightsKernel = (tile: Tile, unitStride: boolean) => {
  const width = columns(tile);
  const variant: TileVariant = {
    tile,
    a: { kind: 'cols', step: unitStride ? tile.rows * 4 : undefined },
    bStep: width * 4,
    stretches: 'runs',
  };
  const name = `convKernelGradient${tileName(tile)}${unitStride ? '' : '_strided'}`;
  return kernel(name, weightsWords, ({ f, m, start, end, scratch, locals }) => {
    const functions = tileFunctions(m, variant);
    const w = locals();
    const [u, line, at, panel, channel, rows] = f.locals('i32');
    const runs = f.let(i32.add(scratch, tile.rows * width * 4));
    const pixel = tile.rows * 4;
    const linesPerBlock = f.let(i32.div_u(KC, w.ow));
    f.if(i32.eqz(linesPerBlock), () => f.set(linesPerBlock, 1));
    f.for(u, start, end, 1, () => {
      const unit = f.let(u);
      const channelBlock = digit(f, unit, w.channelBlocks);
      const tap = digit(f, unit, w.taps);
      const split = digit(f, unit, w.splits);
      const firstChannel = f.let(i32.mul(channelBlock, w.channelsPerUnit));
      const endChannel = f.let(i32.add(firstChannel, w.channelsPerUnit));
      f.set(endChannel, min(endChannel, w.channels));
      const firstLine = f.let(i32.mul(split, w.linesPerSplit));
      const endLine = f.let(i32.add(firstLine, w.linesPerSplit));
      f.set(endLine, min(endLine, w.lines));
      // Columns of the output whose input column is inside: shift + stride·ox in [0, w).
      const ky = f.let(i32.div_u(tap, w.kw));
      const shift = f.let(i32.sub(i32.sub(tap, i32.mul(ky, w.kw)), w.padLeft));
      const firstX = f.let(i32.const(0));
      f.if(i32.lt_s(shift, 0), () =>
        f.set(firstX, i32.div_u(i32.add(i32.sub(0, shift), i32.sub(w.strideX, 1)), w.strideX)),
      );
      const endX = f.let(i32.const(0));
      f.if(i32.lt_s(shift, w.w), () => f.set(endX, i32.add(i32.div_u(i32.sub(i32.sub(w.w, 1), shift), w.strideX), 1)));
      f.set(endX, min(endX, w.ow));
      const length = f.let(select(i32.lt_u(firstX, endX), i32.sub(endX, firstX), i32.const(0)));
      const x = f.let(i32.add(w.x, i32.mul(unit, w.xGroup)));
      const dy = f.let(i32.add(w.dy, i32.mul(unit, w.dyGroup)));
      const dw = f.let(
        i32.add(
          i32.add(w.dw, i32.mul(unit, w.dwGroup)),
          i32.add(i32.mul(split, w.splitStride), i32.mul(i32.add(i32.mul(tap, w.channels), firstChannel), w.dwRow)),
        ),
      );
      f.for(line, firstLine, endLine, linesPerBlock, () => {
        const blockEnd = f.let(i32.add(line, linesPerBlock));
        f.set(blockEnd, min(blockEnd, endLine));
        const count = f.let(i32.const(0));
        const list = f.let(runs);
        f.if(length, () =>
          f.for(at, line, blockEnd, 1, () => {
            const image = f.let(i32.div_u(at, w.oh));
            const y = f.let(i32.sub(i32.add(i32.mul(i32.sub(at, i32.mul(image, w.oh)), w.strideY), ky), w.padTop));
            f.if(i32.lt_u(y, w.h), () => {
              const column = i32.add(shift, i32.mul(firstX, w.strideX));
              const input = i32.add(i32.mul(i32.add(i32.mul(image, w.h), y), w.w), column);
              f.emit(
                i32.store(list, i32.mul(input, pixel)),
                i32.store(list, i32.mul(i32.add(i32.mul(at, w.ow), firstX), width * 4), 4),
                i32.store(list, length, 8),
              );
              f.inc(list, RUN_BYTES);
              f.inc(count, 1);
            });
          }),
        );
        const panels = i32.div_u(i32.add(w.n, width - 1), width);
        f.for(panel, 0, panels, 1, () => {
          const valid = f.let(i32.sub(w.n, i32.mul(panel, width)));
          const dyAt = f.let(i32.add(dy, i32.mul(panel, w.dyPanel)));
          const dwAt = f.let(i32.add(dw, i32.mul(panel, width * 4)));
          const xAt = f.let(i32.add(x, i32.mul(i32.div_u(firstChannel, tile.rows), w.xPanel)));
          f.for(channel, firstChannel, endChannel, tile.rows, () => {
            f.set(rows, i32.sub(endChannel, channel));
            f.if(i32.gt_u(rows, tile.rows), () => f.set(rows, tile.rows));
            emitTile(f, variant, functions, rows, valid, scratch, {
              a: xAt,
              aStride: runs,
              b: dyAt,
              bStride: 0,
              k: i32.mul(w.strideX, pixel),
              count,
              out: dwAt,
              outStride: w.dwRow,
              previous: select(i32.gt_u(line, firstLine), dwAt, i32.const(0)),
            });
            f.set(xAt, i32.add(xAt, w.xPanel));
            f.set(dwAt, i32.add(dwAt, i32.mul(w.dwRow, tile.rows)));
          });
        });
      });
    });
  });
};
