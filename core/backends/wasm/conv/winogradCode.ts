/** Winograd's F(4×4): patches of the input to 36 positions, and products of 36 positions back to patches of the output. */
import {
  type Assembler,
  call,
  type Expr,
  type Func,
  type FunctionBuilder,
  i32,
  type Local,
  memoryFill,
  select,
  v128,
} from '../assembler/assemble.ts';
import { kernel, words } from '../kernel.ts';
import { digit } from '../loops/digits.ts';
import { storeLanes } from '../loops/tails.ts';
import { alongInput, alongOutput, POSITIONS, range, type V128 } from './transforms.ts';

/** bytes of a list of pointers in scratch */
const LIST = 256;

type I32 = Local<'i32'>;
/** the picture of a patch, and the patch's first row and column in the output */
const patchAt = (f: FunctionBuilder, patch: Expr<'i32'>, patchRows: I32, patchColumns: I32) => {
  const image = f.let(patch);
  const column = digit(f, image, patchColumns);
  const row = digit(f, image, patchRows);
  return { image, y: f.let(i32.shl(row, 2)), x: f.let(i32.shl(column, 2)) };
};

const inputWords = words([
  'x xImage xRow xPixel h w padTop padLeft channels',
  'patchRows patchColumns firstPatch v vPatch vPosition',
]);
/** v[position][patch][channel] = Bᵀ d B; unit = patch. Channels are stored by fours. */
export const inputTransform = kernel('winogradInput', inputWords, ({ f, start, end, scratch, locals }) => {
  const w = locals();
  const bytes = f.let(i32.shl(w.channels, 2));
  const zeros = f.let(i32.add(scratch, LIST));
  f.emit(memoryFill(zeros, 0, i32.add(bytes, 16)));
  const keep = (e: Expr<'v128'>): V128 => f.let(e);
  const [unit, c] = f.locals('i32');
  f.for(unit, start, end, 1, () => {
    const { image, y, x } = patchAt(f, i32.add(w.firstPatch, unit), w.patchRows, w.patchColumns);
    const y0 = f.let(i32.sub(y, w.padTop));
    const x0 = f.let(i32.sub(x, w.padLeft));
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
        return alongInput(column, keep).map(keep);
      });
      const to = f.let(i32.add(target, c));
      for (const i of range(6))
        for (const value of alongInput(
          half.map((column) => column[i]!),
          keep,
        )) {
          f.emit(v128.store(to, value));
          f.set(to, i32.add(to, w.vPosition));
        }
    });
  });
});

/**
 * output(patch, from, mPosition, columns in bytes, y, yPixel, oh, ow, patchRows, patchColumns, scratch): y = AᵀmA of a patch, m
 * from `from` on, `mPosition` bytes from position to position
 */
export const outputFunction = (m: Assembler): Func => {
  const params = Array.from({ length: 11 }, () => 'i32' as const);
  return m.func('', params, 'void', (f, ...words) => {
    const [patch, from, mPosition, bytes, y, yPixel] = words as unknown as [I32, I32, I32, I32, I32, I32];
    const [oh, ow, patchRows, patchColumns, scratch] = words.slice(6) as unknown as [I32, I32, I32, I32, I32];
    const keep = (e: Expr<'v128'>): V128 => f.let(e);
    const column = f.local('i32');
    const { image, y: y0, x: x0 } = patchAt(f, patch, patchRows, patchColumns);
    // where each of the 16 results goes: 0 where the picture has ended
    for (const i of range(4))
      for (const j of range(4)) {
        const inside = i32.and(i32.lt_u(i32.add(y0, i), oh), i32.lt_u(i32.add(x0, j), ow));
        const pixel = f.let(i32.add(i32.mul(i32.add(i32.mul(image, oh), i32.add(y0, i)), ow), i32.add(x0, j)));
        const to = select(inside, i32.add(y, i32.mul(pixel, yPixel)), i32.const(0));
        f.emit(i32.store(scratch, to, (i * 4 + j) * 4));
      }
    f.for(column, 0, bytes, 16, () => {
      const at = f.let(i32.add(from, column));
      const loaded = range(POSITIONS).map(() => {
        const value = f.let(v128.load(at));
        f.set(at, i32.add(at, mPosition));
        return value;
      });
      const half = range(6).map((j) =>
        alongOutput(
          range(6).map((i) => loaded[i * 6 + j]!),
          keep,
        ).map(keep),
      );
      const left = f.let(i32.sub(bytes, column));
      for (const i of range(4)) {
        const values = alongOutput(
          half.map((rows) => rows[i]!),
          keep,
        );
        for (const [j, sum] of values.entries()) {
          const to = f.let(i32.load(scratch, (i * 4 + j) * 4));
          f.if(to, () => storeLanes(f, i32.add(to, column), f.let(sum), left));
        }
      }
    });
  });
};

const outputWords = words(['m mPatch mPosition columns y yPixel oh ow patchRows patchColumns firstPatch']);
/** y = AᵀmA for a block of columns; unit = patch */
export const outputTransform = kernel('winogradOutput', outputWords, ({ f, m, start, end, scratch, locals }) => {
  const output = outputFunction(m);
  const w = locals();
  const unit = f.local('i32');
  const bytes = f.let(i32.shl(w.columns, 2));
  f.for(unit, start, end, 1, () => {
    const from = i32.add(w.m, i32.mul(unit, w.mPatch));
    const target = [w.y, w.yPixel, w.oh, w.ow, w.patchRows, w.patchColumns] as const;
    f.emit(call(output, [i32.add(w.firstPatch, unit), from, w.mPosition, bytes, ...target, scratch]));
  });
});
