/**
 * The kernel gradient of a convolution: for every tap a GEMM dW[c, o] = Σ_pixels x[c, pixel shifted by the tap]·dy[pixel, o].
 * x and dy are packed into panels once; for a tap the sum runs over stretches of image rows ("runs") that lie inside.
 */
import { assembler, i32, type Local, select } from '../assembler/assemble.ts';
import { digit, epilogueWords, KC, loadWords, min } from '../product/gemmCode.ts';
import {
  columns,
  EPILOGUE,
  emitTile,
  RUN_BYTES,
  type Tile,
  type TileVariant,
  tileFunctions,
  tileName,
} from '../product/tile.ts';

/** Words of a kernel-gradient command; strides in bytes. */
const WORDS = [
  'x',
  'xPanel',
  'xGroup',
  'dy',
  'dyPanel',
  'dyGroup',
  'h',
  'w',
  'oh',
  'ow',
  'strideY',
  'strideX',
  'padTop',
  'padLeft',
  'kw',
  'taps',
  'channels',
  'n',
  'lines',
  'splits',
  'linesPerSplit',
  'channelsPerUnit',
  'channelBlocks',
  'dw',
  'dwGroup',
  'splitStride',
] as const;
type Word = (typeof WORDS)[number];
export const kernelGradientWords = (rowStride: number, words: Readonly<Record<Word, number>>): readonly number[] => [
  ...epilogueWords({ alpha: 1, activation: 'none', cStride: rowStride, residualStride: 0 }),
  ...WORDS.map((word) => words[word]),
];
export const kernelGradientName = (tile: Tile, unitStride: boolean): string =>
  `convKernelGradient${tileName(tile)}${unitStride ? '' : '_strided'}`;

/** Module with the one kernel `kernelGradientName(tile, unitStride)`; `unitStride`: the convolution steps by one column. */
export const kernelGradientModule = (tile: Tile, unitStride: boolean): Uint8Array<ArrayBuffer> => {
  const m = assembler();
  const width = columns(tile);
  const variant: TileVariant = {
    tile,
    a: { kind: 'cols', step: unitStride ? tile.rows * 4 : undefined },
    bStep: width * 4,
    walk: 'runs',
  };
  const functions = tileFunctions(m, variant);

  m.kernel(kernelGradientName(tile, unitStride), (f, { args, start, end, scratch }) => {
    const w = loadWords(f, args, WORDS);
    const local = (): Local<'i32'> => f.local('i32');
    const [u, line, at, panel, channel, rows] = [local(), local(), local(), local(), local(), local()];
    const runs = f.let(i32.add(scratch, tile.rows * width * 4));
    const dwStride = f.let(i32.load(args, EPILOGUE.cStride));
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
          i32.add(i32.mul(split, w.splitStride), i32.mul(i32.add(i32.mul(tap, w.channels), firstChannel), dwStride)),
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
              args,
              a: xAt,
              aStride: runs,
              b: dyAt,
              bStride: 0,
              k: i32.mul(w.strideX, pixel),
              count,
              out: dwAt,
              outStride: dwStride,
              previous: select(i32.gt_u(line, firstLine), dwAt, i32.const(0)),
              bias: i32.const(0),
              residual: i32.const(0),
              finish: i32.const(0),
            });
            f.set(xAt, i32.add(xAt, w.xPanel));
            f.set(dwAt, i32.add(dwAt, i32.mul(dwStride, tile.rows)));
          });
        });
      });
    });
  });
  return m.bytes();
};
