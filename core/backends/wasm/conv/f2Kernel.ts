/**
 * 3 × 3 convolution with stride 1 by Winograd's minimal filtering F(2×2, 3×3): a 4 × 4 patch d of the input gives a
 * 2 × 2 patch of the output with 16 multiplications for each pair of channels instead of 36,
 *
 *   y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A
 *
 * where the sums over channels are 16 matrix products. A unit is a block of patches: it transforms them into scratch,
 * multiplies there with the register tile and transforms back, so that nothing but x, y and the weights meets memory.
 *
 * Source: A. Lavin and S. Gray, Fast algorithms for convolutional neural networks, 2016.
 */
import { assembler, call, type Expr, f32x4, i32, type Local, memoryFill, select, v128 } from '../assembler/assemble.ts';
import { siluF32x4 } from '../assembler/vectorMath.ts';
import { type Epilogue, epilogueWords, loadWords, min, orAbsent } from '../product/gemmCode.ts';
import {
  columns,
  EPILOGUE,
  storeLanes,
  type Tile,
  type TileVariant,
  tileFunctions,
  tileName,
} from '../product/tile.ts';

type I32 = Local<'i32'>;
type V128 = Local<'v128'>;

/** columns of the product a unit keeps at once */
export const BLOCK_COLUMNS = 64;

/** Words of the command; strides in bytes. */
const WORDS = [
  'x',
  'xImage',
  'xRow',
  'xPixel',
  'h',
  'w',
  'padTop',
  'padLeft',
  'channels',
  'u',
  'uPosition',
  'y',
  'oh',
  'ow',
  'n',
  'bias',
  'residual',
  'patchRows',
  'patchColumns',
  'patches',
  'patchesPerUnit',
] as const;
type Word = (typeof WORDS)[number];
export const winogradWords = (epilogue: Epilogue, words: Readonly<Record<Word, number>>): readonly number[] => [
  ...epilogueWords(epilogue),
  ...WORDS.map((word) => words[word]),
];
export const winogradName = (tile: Tile): string => `winograd${tileName(tile)}`;

/** bytes of scratch a unit of `patches` patches needs */
export const winogradScratch = (patches: number, channels: number): number =>
  4 * (channels + 4) + 64 + 64 * patches * (channels + 4 + BLOCK_COLUMNS);

/** Bᵀ v: the input transform of four values */
const inputTransform = ([a, b, c, d]: readonly [V128, V128, V128, V128]): readonly Expr<'v128'>[] => [
  f32x4.sub(a, c),
  f32x4.add(b, c),
  f32x4.sub(c, b),
  f32x4.sub(b, d),
];
/** Aᵀ v: the output transform of four values */
const outputTransform = ([a, b, c, d]: readonly [V128, V128, V128, V128]): readonly Expr<'v128'>[] => [
  f32x4.add(f32x4.add(a, b), c),
  f32x4.sub(f32x4.sub(b, c), d),
];
type Four = readonly [V128, V128, V128, V128];
const range = (n: number): readonly number[] => Array.from({ length: n }, (_, i) => i);

/** Module with the kernel `winogradName(tile)`; unit = a block of patches. */
export const winogradModule = (tile: Tile): Uint8Array<ArrayBuffer> => {
  const m = assembler();
  const width = columns(tile);
  const panelsPerBlock = BLOCK_COLUMNS / width;
  const variant: TileVariant = { tile, a: { kind: 'rows' }, bStep: width * 4, walk: 'once' };
  const { multiply } = tileFunctions(m, variant);
  const silu = m.func('', ['v128'], 'v128', (f, x) => f.return(siluF32x4(f, x)));

  /** inputPatch(pointers of 16 pixels, bytes of channels, target, bytes from position to position) */
  const inputPatch = m.func('', ['i32', 'i32', 'i32', 'i32'], 'void', (f, list, bytes, target, position) => {
    const pixels = range(16).map((i) => f.let(i32.load(list, i * 4)));
    const c = f.local('i32');
    const to = f.local('i32');
    f.for(c, 0, bytes, 16, () => {
      const rows = range(4).map((i) => range(4).map((j) => f.let(v128.load(i32.add(pixels[i * 4 + j]!, c)))));
      const half = range(4).map((j) =>
        inputTransform(rows.map((row) => row[j]!) as unknown as Four).map((e) => f.let(e)),
      );
      f.set(to, i32.add(target, c));
      for (const i of range(4))
        for (const value of inputTransform(half.map((column) => column[i]!) as unknown as Four)) {
          f.emit(v128.store(to, value));
          f.set(to, i32.add(to, position));
        }
    });
  });

  m.kernel(winogradName(tile), (f, { args, start, end, scratch }) => {
    const w = loadWords(f, args, WORDS);
    const local = (): I32 => f.local('i32');
    const [unit, patch, position, panel, row, rows, column] = range(7).map(local) as [
      I32,
      I32,
      I32,
      I32,
      I32,
      I32,
      I32,
    ];
    const [image, patchY, patchX] = [local(), local(), local()];
    const channelBytes = f.let(i32.and(i32.add(i32.shl(w.channels, 2), 15), -16));
    const zeros = f.let(i32.add(scratch, 64));
    f.emit(memoryFill(zeros, 0, channelBytes));
    const v = f.let(i32.add(zeros, channelBytes));
    const vPosition = f.let(i32.mul(channelBytes, w.patchesPerUnit));
    const product = f.let(i32.add(v, i32.shl(vPosition, 4)));
    const productPosition = f.let(i32.mul(w.patchesPerUnit, BLOCK_COLUMNS * 4));
    const panels = f.let(i32.div_u(i32.add(w.n, width - 1), width));
    const panelBytes = f.let(i32.mul(w.channels, width * 4));
    const yPixel = f.let(i32.load(args, EPILOGUE.cStride));
    const residualPixel = f.let(i32.load(args, EPILOGUE.residualStride));
    const activation = f.let(i32.load(args, EPILOGUE.activation));

    const startPatches = (first: I32): void => {
      const perImage = f.let(i32.mul(w.patchRows, w.patchColumns));
      f.set(image, i32.div_u(first, perImage));
      const rest = f.let(i32.sub(first, i32.mul(image, perImage)));
      f.set(patchY, i32.div_u(rest, w.patchColumns));
      f.set(patchX, i32.sub(rest, i32.mul(patchY, w.patchColumns)));
    };
    const nextPatch = (): void => {
      f.inc(patchX, 1);
      f.if(i32.eq(patchX, w.patchColumns), () => {
        f.set(patchX, 0);
        f.inc(patchY, 1);
        f.if(i32.eq(patchY, w.patchRows), () => {
          f.set(patchY, 0);
          f.inc(image, 1);
        });
      });
    };

    f.for(unit, start, end, 1, () => {
      const first = f.let(i32.mul(unit, w.patchesPerUnit));
      const count = f.let(i32.sub(w.patches, first));
      f.set(count, min(count, w.patchesPerUnit));

      startPatches(first);
      const target = f.let(v);
      f.for(patch, 0, count, 1, () => {
        const y0 = f.let(i32.sub(i32.shl(patchY, 1), w.padTop));
        const x0 = f.let(i32.sub(i32.shl(patchX, 1), w.padLeft));
        const base = f.let(
          i32.add(i32.add(w.x, i32.mul(image, w.xImage)), i32.add(i32.mul(y0, w.xRow), i32.mul(x0, w.xPixel))),
        );
        const insideX = range(4).map((j) => f.let(i32.lt_u(i32.add(x0, j), w.w)));
        for (const i of range(4)) {
          const insideY = f.let(i32.lt_u(i32.add(y0, i), w.h));
          const pixel = f.let(base);
          for (const j of range(4)) {
            f.emit(i32.store(scratch, select(i32.and(insideY, insideX[j]!), pixel, zeros), (i * 4 + j) * 4));
            f.set(pixel, i32.add(pixel, w.xPixel));
          }
          f.set(base, i32.add(base, w.xRow));
        }
        f.emit(call(inputPatch, [scratch, channelBytes, target, vPosition]));
        f.set(target, i32.add(target, channelBytes));
        nextPatch();
      });

      const firstPanel = local();
      f.for(firstPanel, 0, panels, panelsPerBlock, () => {
        const endPanel = f.let(i32.add(firstPanel, panelsPerBlock));
        f.set(endPanel, min(endPanel, panels));
        f.for(position, 0, 16, 1, () => {
          const u = f.let(i32.add(w.u, i32.add(i32.mul(position, w.uPosition), i32.mul(firstPanel, panelBytes))));
          const out = f.let(i32.add(product, i32.mul(position, productPosition)));
          f.for(panel, firstPanel, endPanel, 1, () => {
            const a = f.let(i32.add(v, i32.mul(position, vPosition)));
            const c = f.let(out);
            f.for(row, 0, count, tile.rows, () => {
              f.set(rows, i32.sub(count, row));
              const run = (n: number): void => {
                const go = (): void =>
                  f.emit(
                    call(multiply[n]!, [a, channelBytes, u, width * 4, w.channels, 1, c, BLOCK_COLUMNS * 4, 0, 0]),
                  );
                if (n === 1) go();
                else f.if(i32.ge_u(rows, n), go, () => run(n - 1));
              };
              run(tile.rows);
              f.set(a, i32.add(a, i32.mul(channelBytes, tile.rows)));
              f.inc(c, BLOCK_COLUMNS * 4 * tile.rows);
            });
            f.set(u, i32.add(u, panelBytes));
            f.inc(out, width * 4);
          });
        });

        startPatches(first);
        const firstColumn = f.let(i32.mul(firstPanel, width));
        const blockBytes = f.let(i32.shl(i32.sub(w.n, firstColumn), 2));
        f.if(i32.gt_u(blockBytes, BLOCK_COLUMNS * 4), () => f.set(blockBytes, BLOCK_COLUMNS * 4));
        const from = f.let(product);
        const bias = orAbsent(f, w.bias, i32.shl(firstColumn, 2));
        f.for(patch, 0, count, 1, () => {
          const oy = f.let(i32.shl(patchY, 1));
          const ox = f.let(i32.shl(patchX, 1));
          const pixel = f.let(i32.add(i32.mul(i32.add(i32.mul(image, w.oh), oy), w.ow), ox));
          const hasRow = f.let(i32.lt_u(i32.add(oy, 1), w.oh));
          const hasColumn = f.let(i32.lt_u(i32.add(ox, 1), w.ow));
          const hasBoth = f.let(i32.and(hasRow, hasColumn));
          const places = [
            { at: i32.const(0), valid: undefined },
            { at: i32.const(1), valid: hasColumn },
            { at: w.ow, valid: hasRow },
            { at: i32.add(w.ow, 1), valid: hasBoth },
          ].map(({ at, valid }) => {
            const index = f.let(i32.add(pixel, at));
            const address = i32.add(i32.add(w.y, i32.shl(firstColumn, 2)), i32.mul(index, yPixel));
            const extra = i32.add(i32.shl(firstColumn, 2), i32.mul(index, residualPixel));
            return { valid, y: f.let(address), residual: orAbsent(f, w.residual, extra) };
          });
          f.for(column, 0, blockBytes, 16, () => {
            const at = f.let(i32.add(from, column));
            const half = range(4).map(() => [f.local('v128'), f.local('v128')] as const);
            // Aᵀ along the rows of positions: two sums for each of the four columns.
            const loaded = range(16).map(() => {
              const value = f.let(v128.load(at));
              f.set(at, i32.add(at, productPosition));
              return value;
            });
            for (const j of range(4)) {
              const sums = outputTransform(range(4).map((i) => loaded[i * 4 + j]!) as unknown as Four);
              for (const [i, sum] of sums.entries()) f.set(half[j]![i as 0 | 1], sum);
            }
            const added = f.let(f32x4.splat(0));
            f.if(bias, () => f.set(added, v128.load(i32.add(bias, column))));
            const left = f.let(i32.sub(blockBytes, column));
            for (const i of [0, 1] as const) {
              const values = outputTransform(half.map((pair) => pair[i]) as unknown as Four);
              for (const [j, sum] of values.entries()) {
                const place = places[i * 2 + j]!;
                const value = f.let(f32x4.add(sum, added));
                const write = (): void => {
                  f.if(place.residual, () =>
                    f.set(value, f32x4.add(value, v128.load(i32.add(place.residual, column)))),
                  );
                  f.if(activation, () => f.set(value, call(silu, [value])));
                  storeLanes(f, i32.add(place.y, column), value, left);
                };
                if (place.valid) f.if(place.valid, write);
                else write();
              }
            }
          });
          f.inc(from, BLOCK_COLUMNS * 4);
          nextPatch();
        });
      });
    });
  });
  return m.bytes();
};
