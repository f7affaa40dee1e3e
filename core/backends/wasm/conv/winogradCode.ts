/** Winograd's F(4×4): patches of the input to 36 positions, and products of 36 positions back to patches of the output. */
import { assembler, call, type Expr, f32x4, i32, memoryFill, select, v128 } from '../assembler/assemble.ts';
import { siluF32x4 } from '../assembler/vectorMath.ts';
import { type Epilogue, epilogueWords, loadWords } from '../product/gemmCode.ts';
import { EPILOGUE, storeLanes } from '../product/tile.ts';
import { inputTransform, noEpilogue, outputTransform, POSITIONS, range, type V128 } from './transforms.ts';

const INPUT_WORDS = [
  'x',
  'xImage',
  'xRow',
  'xPixel',
  'h',
  'w',
  'padTop',
  'padLeft',
  'channels',
  'patchRows',
  'patchColumns',
  'firstPatch',
  'v',
  'vPatch',
  'vPosition',
] as const;
export const inputWords = (words: Readonly<Record<(typeof INPUT_WORDS)[number], number>>): readonly number[] => [
  ...epilogueWords(noEpilogue),
  ...INPUT_WORDS.map((word) => words[word]),
];
export const INPUT_KERNEL = 'winogradInput';

/** bytes of a list of pointers in scratch */
const LIST = 256;

/** Module with `winogradInput`: v[position][patch][channel] = Bᵀ d B; unit = patch. Channels are stored by fours. */
export const inputModule = (): Uint8Array<ArrayBuffer> => {
  const m = assembler();
  m.kernel(INPUT_KERNEL, (f, { args, start, end, scratch }) => {
    const w = loadWords(f, args, INPUT_WORDS);
    const bytes = f.let(i32.shl(w.channels, 2));
    const zeros = f.let(i32.add(scratch, LIST));
    f.emit(memoryFill(zeros, 0, i32.add(bytes, 16)));
    const keep = (e: Expr<'v128'>): V128 => f.let(e);
    const [unit, c] = [f.local('i32'), f.local('i32')];
    const perImage = f.let(i32.mul(w.patchRows, w.patchColumns));
    f.for(unit, start, end, 1, () => {
      const patch = f.let(i32.add(w.firstPatch, unit));
      const image = f.let(i32.div_u(patch, perImage));
      const rest = f.let(i32.sub(patch, i32.mul(image, perImage)));
      const row = f.let(i32.div_u(rest, w.patchColumns));
      const y0 = f.let(i32.sub(i32.shl(row, 2), w.padTop));
      const x0 = f.let(i32.sub(i32.shl(i32.sub(rest, i32.mul(row, w.patchColumns)), 2), w.padLeft));
      const base = f.let(
        i32.add(i32.add(w.x, i32.mul(image, w.xImage)), i32.add(i32.mul(y0, w.xRow), i32.mul(x0, w.xPixel))),
      );
      for (const i of range(6)) {
        const insideY = f.let(i32.lt_u(i32.add(y0, i), w.h));
        const pixel = f.let(base);
        for (const j of range(6)) {
          const inside = i32.and(insideY, i32.lt_u(i32.add(x0, j), w.w));
          f.emit(i32.store(scratch, select(inside, pixel, zeros), (i * 6 + j) * 4));
          f.set(pixel, i32.add(pixel, w.xPixel));
        }
        f.set(base, i32.add(base, w.xRow));
      }
      const target = f.let(i32.add(w.v, i32.mul(unit, w.vPatch)));
      f.for(c, 0, bytes, 16, () => {
        const half = range(6).map((j) => {
          const column = range(6).map((i) => f.let(v128.load(i32.add(i32.load(scratch, (i * 6 + j) * 4), c))));
          return inputTransform(column, keep).map(keep);
        });
        const to = f.let(i32.add(target, c));
        for (const i of range(6))
          for (const value of inputTransform(
            half.map((column) => column[i]!),
            keep,
          )) {
            f.emit(v128.store(to, value));
            f.set(to, i32.add(to, w.vPosition));
          }
      });
    });
  });
  return m.bytes();
};

const OUTPUT_WORDS = [
  'm',
  'mPatch',
  'mPosition',
  'columns',
  'y',
  'oh',
  'ow',
  'patchRows',
  'patchColumns',
  'firstPatch',
  'bias',
  'residual',
] as const;
export const outputWords = (
  epilogue: Epilogue,
  words: Readonly<Record<(typeof OUTPUT_WORDS)[number], number>>,
): readonly number[] => [...epilogueWords(epilogue), ...OUTPUT_WORDS.map((word) => words[word])];
export const OUTPUT_KERNEL = 'winogradOutput';

/** Module with `winogradOutput`: y = act(AᵀmA + bias + residual) for a block of columns; unit = patch. */
export const outputModule = (): Uint8Array<ArrayBuffer> => {
  const m = assembler();
  const silu = m.func('', ['v128'], 'v128', (f, x) => f.return(siluF32x4(f, x)));
  m.kernel(OUTPUT_KERNEL, (f, { args, start, end, scratch }) => {
    const w = loadWords(f, args, OUTPUT_WORDS);
    const keep = (e: Expr<'v128'>): V128 => f.let(e);
    const yPixel = f.let(i32.load(args, EPILOGUE.cStride));
    const residualPixel = f.let(i32.load(args, EPILOGUE.residualStride));
    const activation = f.let(i32.load(args, EPILOGUE.activation));
    const [unit, column] = [f.local('i32'), f.local('i32')];
    const perImage = f.let(i32.mul(w.patchRows, w.patchColumns));
    const bytes = f.let(i32.shl(w.columns, 2));
    f.for(unit, start, end, 1, () => {
      const patch = f.let(i32.add(w.firstPatch, unit));
      const image = f.let(i32.div_u(patch, perImage));
      const rest = f.let(i32.sub(patch, i32.mul(image, perImage)));
      const row = f.let(i32.div_u(rest, w.patchColumns));
      const y0 = f.let(i32.shl(row, 2));
      const x0 = f.let(i32.shl(i32.sub(rest, i32.mul(row, w.patchColumns)), 2));
      // where each of the 16 results goes, and what is added: 0 where the picture has ended
      for (const i of range(4))
        for (const j of range(4)) {
          const inside = i32.and(i32.lt_u(i32.add(y0, i), w.oh), i32.lt_u(i32.add(x0, j), w.ow));
          const pixel = f.let(i32.add(i32.mul(i32.add(i32.mul(image, w.oh), i32.add(y0, i)), w.ow), i32.add(x0, j)));
          const at = (i * 4 + j) * 8;
          f.emit(i32.store(scratch, select(inside, i32.add(w.y, i32.mul(pixel, yPixel)), i32.const(0)), at));
          f.emit(i32.store(scratch, i32.add(w.residual, i32.mul(pixel, residualPixel)), at + 4));
        }
      const from = f.let(i32.add(w.m, i32.mul(unit, w.mPatch)));
      f.for(column, 0, bytes, 16, () => {
        const at = f.let(i32.add(from, column));
        const loaded = range(POSITIONS).map(() => {
          const value = f.let(v128.load(at));
          f.set(at, i32.add(at, w.mPosition));
          return value;
        });
        const half = range(6).map((j) =>
          outputTransform(
            range(6).map((i) => loaded[i * 6 + j]!),
            keep,
          ).map(keep),
        );
        const added = f.let(f32x4.splat(0));
        f.if(w.bias, () => f.set(added, v128.load(i32.add(w.bias, column))));
        const left = f.let(i32.sub(bytes, column));
        for (const i of range(4)) {
          const values = outputTransform(
            half.map((rows) => rows[i]!),
            keep,
          );
          for (const [j, sum] of values.entries()) {
            const place = (i * 4 + j) * 8;
            const to = f.let(i32.load(scratch, place));
            f.if(to, () => {
              const value = f.let(f32x4.add(sum, added));
              f.if(w.residual, () =>
                f.set(value, f32x4.add(value, v128.load(i32.add(i32.load(scratch, place + 4), column)))),
              );
              f.if(activation, () => f.set(value, call(silu, [value])));
              storeLanes(f, i32.add(to, column), value, left);
            });
          }
        }
      });
    });
  });
  return m.bytes();
};
