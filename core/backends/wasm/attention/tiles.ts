/**
 * The inner products of attention on packed operands. B comes in panels of 8 columns, [k][8], so that the micro-kernel is
 * always 4 × 8 with constant steps; rows are padded to whole tiles by the callers.
 */
import {
  type Assembler,
  call,
  type Expr,
  type Func,
  type FunctionBuilder,
  f32,
  f32x4,
  i32,
  type Local,
  type Stmt,
  v128,
} from '../assembler/assemble.ts';
import { multiplyAdd } from '../assembler/vectorMath.ts';

/** keys side by side in the scores' operand kᵀ, and in rows of scores */
export const PANEL = 8;
/** A register tile: rows of scores, or keys, that are worked on together, and vectors in a row of C. */
export interface Tile {
  readonly rows: number;
  readonly keys: number;
  readonly vectors: number;
}
const WIDE: Tile = { rows: 4, keys: 4, vectors: 2 };
/**
 * For heads of 4 numbers: nothing is multiplied by padding. Seven rows, since V8 loads all their numbers before it
 * multiplies: with eight an accumulator goes through memory.
 */
const NARROW: Tile = { rows: 7, keys: 8, vectors: 1 };
export const NARROW_HEAD = 4;
export const tileOf = (d: number): Tile => (d === NARROW_HEAD ? NARROW : WIDE);
/** numbers in a row of a tile */
export const columnsOf = ({ vectors }: Tile): number => 4 * vectors;
type I32 = Local<'i32'>;
type V = Local<'v128'>;

type Accumulators = readonly (readonly V[])[];
const accumulatorsOf = (f: FunctionBuilder, rows: number, { vectors }: Tile): Accumulators =>
  Array.from({ length: rows }, () => Array.from({ length: vectors }, () => f.local('v128')));

/**
 * acc[r] += a(r)·b for one k. Not unrolled: V8 would hoist the loads of later steps above the multiplications and spill
 * (60 → 36 GFLOP/s).
 */
const step = (f: FunctionBuilder, acc: Accumulators, b: I32, a: (row: number) => Expr<'v128'>): void => {
  const columns = acc[0]!.map((_, i) => f.let(v128.load(b, 16 * i)));
  for (const [r, row] of acc.entries()) {
    const splat = f.let(a(r));
    for (const [i, v] of row.entries()) f.set(v, multiplyAdd(splat, columns[i]!, v));
  }
};

/** (a, aStride, tiles, b, k, c, cStride, alpha) */
type RowStrip = Func<'void'>;
/** (a, aStride, tiles, b, k, c) */
type ColumnStrip = Func<'void'>;
/** (a, rows, b, c, cStride, alpha) */
type ScoreStrip = Func<'void'>;
interface Strips {
  /** C[rows·tiles, columns] += A·B with A row-major; strides in bytes */
  readonly rows: RowStrip;
  /** C[keys·tiles, columns] += Aᵀ·B with A[k, keys·tiles] row-major, C packed */
  readonly columns: ColumnStrip;
  /** C[rows, 8] = alpha·A·B of packed rows of one head */
  scores(x: {
    readonly a: I32;
    readonly rows: I32;
    readonly d: I32;
    readonly b: I32;
    readonly c: I32;
    readonly stride: I32;
    readonly alpha: Expr<'f32'>;
  }): Stmt;
}

/** @param scaled C = alpha·A·B instead of C += A·B, where alpha is 1 */
const rowStrip = (m: Assembler, shape: Tile, scaled: boolean): RowStrip => {
  const params = ['i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'f32'] as const;
  return m.func('', params, 'void', (f, a, aStride, tiles, b, k, c, cStride, alpha) => {
    const acc = accumulatorsOf(f, shape.rows, shape);
    const rows = Array.from({ length: shape.rows }, () => f.local('i32'));
    const [at, left] = f.locals('i32');
    const scale = scaled ? f.let(f32x4.splat(alpha)) : undefined;
    const [base, out, to] = [f.let(a), f.let(c), f.local('i32')];
    /** the tile of C, with the pointer to each row of it in `to` */
    const each = (visit: (v: V, offset: number) => void): void => {
      f.set(to, out);
      for (const row of acc) {
        for (const [i, v] of row.entries()) visit(v, 16 * i);
        f.inc(to, cStride);
      }
    };
    f.while(tiles, () => {
      for (const [r, p] of rows.entries()) f.set(p, r === 0 ? base : i32.add(rows[r - 1]!, aStride));
      f.set(base, i32.add(rows.at(-1)!, aStride));
      if (scaled) for (const v of acc.flat()) f.set(v, f32x4.const(0, 0, 0, 0));
      else each((v, offset) => f.set(v, v128.load(to, offset)));
      f.set(at, b);
      f.set(left, k);
      f.while(left, () => {
        step(f, acc, at, (r) => v128.load32_splat(rows[r]!));
        for (const p of rows) f.inc(p, 4);
        f.inc(at, 4 * columnsOf(shape));
        f.inc(left, -1);
      });
      each((v, offset) => f.emit(v128.store(to, scale ? f32x4.mul(v, scale) : v, offset)));
      f.set(out, to);
      f.inc(tiles, -1);
    });
  });
};

const columnStrip = (m: Assembler, shape: Tile): ColumnStrip =>
  m.func('', ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'], 'void', (f, a, aStride, tiles, b, k, c) => {
    const acc = accumulatorsOf(f, shape.keys, shape);
    const rowBytes = 4 * columnsOf(shape);
    const each = (visit: (v: V, offset: number) => void): void => {
      for (const [r, row] of acc.entries()) for (const [i, v] of row.entries()) visit(v, r * rowBytes + 16 * i);
    };
    const [row, at, left] = f.locals('i32');
    f.while(tiles, () => {
      each((v, offset) => f.set(v, v128.load(c, offset)));
      f.set(row, a);
      f.set(at, b);
      f.set(left, k);
      f.while(left, () => {
        // V8 loads before it multiplies, but shuffles when it multiplies
        const vectors = shape === NARROW ? [0, 16].map((offset) => f.let(v128.load(row, offset))) : [];
        step(f, acc, at, (r) => {
          const [v, lane] = [vectors[r >> 2], r & 3];
          return v ? v128.shuffle32(v, v, [lane, lane, lane, lane]) : v128.load32_splat(row, r * 4);
        });
        f.inc(row, aStride);
        f.inc(at, rowBytes);
        f.inc(left, -1);
      });
      each((v, offset) => f.emit(v128.store(c, v, offset)));
      f.inc(a, 4 * shape.keys);
      f.inc(c, rowBytes * shape.keys);
      f.inc(tiles, -1);
    });
  });

/** C[rows, 8] = alpha·A·B for heads of 4 numbers: B[4, 8] stays in registers. @param scaled alpha is not 1 */
const scoreStrip = (m: Assembler, scaled: boolean): ScoreStrip =>
  m.func('', ['i32', 'i32', 'i32', 'i32', 'i32', 'f32'], 'void', (f, a, rows, b, c, cStride, alpha) => {
    const scale = scaled ? f.let(f32x4.splat(alpha)) : undefined;
    const [at, out, left] = [f.let(a), f.let(c), f.let(rows)];
    const keys = [0, 1].map((i) =>
      Array.from({ length: NARROW_HEAD }, (_, k) => f.let(v128.load(b, k * PANEL * 4 + 16 * i))),
    );
    const acc = keys.map(() => f.local('v128'));
    f.while(left, () => {
      for (let k = 0; k < NARROW_HEAD; k++) {
        const splat = f.let(v128.load32_splat(at, 4 * k));
        for (const [i, v] of acc.entries()) {
          f.set(v, multiplyAdd(splat, keys[i]![k]!, k === 0 ? f32x4.const(0, 0, 0, 0) : v));
        }
      }
      for (const [i, v] of acc.entries()) f.emit(v128.store(out, scale ? f32x4.mul(v, scale) : v, 16 * i));
      f.inc(at, 4 * NARROW_HEAD);
      f.inc(out, cStride);
      f.inc(left, -1);
    });
  });

const stripsOf = (m: Assembler, tile: Tile): Strips => {
  const [rows, columns] = [rowStrip(m, tile, false), columnStrip(m, tile)];
  if (tile === NARROW) {
    const [scaled, plain] = [scoreStrip(m, true), scoreStrip(m, false)];
    return {
      rows,
      columns,
      scores: ({ a, b, c, stride, alpha, ...x }) =>
        call(alpha === one ? plain : scaled, [a, x.rows, b, c, stride, alpha]),
    };
  }
  const scores = rowStrip(m, tile, true);
  return {
    rows,
    columns,
    scores: ({ a, d, b, c, stride, alpha, ...x }) =>
      call(scores, [a, i32.shl(d, 2), tilesIn(tile, x.rows), b, d, c, stride, alpha]),
  };
};
const made = new WeakMap<Assembler, Map<Tile, Strips>>();
/** the strip functions of a module; must be made before the first function that calls them */
export const strips = (m: Assembler, shape: Tile): Strips => {
  const known = made.get(m) ?? new Map<Tile, Strips>();
  const strip = known.get(shape) ?? stripsOf(m, shape);
  made.set(m, known.set(shape, strip));
  return strip;
};
export const one = f32.const(1);

/** tiles that hold `rows` rows */
export const tilesIn = (tile: Tile, rows: I32): Expr<'i32'> => i32.div_u(i32.add(rows, tile.rows - 1), tile.rows);

/** n rounded up to whole panels */
export const padded = (n: number): number => Math.ceil(n / PANEL) * PANEL;
/** numbers of a head, rounded up to whole rows of its tile */
export const paddedHead = (d: number): number => Math.ceil(d / columnsOf(tileOf(d))) * columnsOf(tileOf(d));
