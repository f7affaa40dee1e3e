/**
 * The inner products of attention on packed operands. B comes in panels of 8 columns, [k][8], so that the micro-kernel is
 * always 4 × 8, or 8 × 8, with constant steps; rows are padded to whole tiles by the callers.
 */
import {
  type Assembler,
  type Expr,
  type Func,
  type FunctionBuilder,
  f32,
  f32x4,
  i32,
  type Local,
  v128,
} from '../assembler/assemble.ts';
import { multiplyAdd } from '../assembler/vectorMath.ts';
import type { Machine } from '../machine/machine.ts';

/** keys side by side in the scores' operand kᵀ, and in rows of scores */
export const PANEL = 8;
/** numbers in a row of C that are worked on together */
export const COLUMNS = 8;
const VECTORS = COLUMNS / 4;
/**
 * Rows of scores, or keys, that are worked on together: a register tile has as many sums as registers hold. Joined vectors are
 * half as many, and as many again are in flight (Node 26, heads of 20: 4, 8, 10, 12 rows take 1, .83, .98, 1.08). Each
 * sum is added up in the same order, so the bits are the same.
 */
export type Tile = 4 | 8;
export const tileOf = ({ joins }: Machine): Tile => (joins ? 8 : 4);
type I32 = Local<'i32'>;
type V = Local<'v128'>;

type Accumulators = readonly (readonly V[])[];
const accumulatorsOf = (f: FunctionBuilder, rows: number): Accumulators =>
  Array.from({ length: rows }, () => Array.from({ length: VECTORS }, () => f.local('v128')));

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
interface Strips {
  /** C[tile·tiles, 8] += A·B with A row-major; strides in bytes */
  readonly rows: RowStrip;
  /** C[tile·tiles, 8] = alpha·A·B */
  readonly scores: RowStrip;
  /** C[tile·tiles, 8] += Aᵀ·B with A[k, tile·tiles] row-major, C packed */
  readonly columns: ColumnStrip;
}

/** @param scaled C = alpha·A·B instead of C += A·B, where alpha is 1 */
const rowStrip = (m: Assembler, tile: Tile, scaled: boolean): RowStrip => {
  const params = ['i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'f32'] as const;
  return m.func('', params, 'void', (f, a, aStride, tiles, b, k, c, cStride, alpha) => {
    const acc = accumulatorsOf(f, tile);
    const rows = Array.from({ length: tile }, () => f.local('i32'));
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
        f.inc(at, 4 * COLUMNS);
        f.inc(left, -1);
      });
      each((v, offset) => f.emit(v128.store(to, scale ? f32x4.mul(v, scale) : v, offset)));
      f.set(out, to);
      f.inc(tiles, -1);
    });
  });
};

const columnStrip = (m: Assembler, tile: Tile): ColumnStrip =>
  m.func('', ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'], 'void', (f, a, aStride, tiles, b, k, c) => {
    const acc = accumulatorsOf(f, tile);
    const rowBytes = 4 * COLUMNS;
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
        step(f, acc, at, (r) => v128.load32_splat(row, r * 4));
        f.inc(row, aStride);
        f.inc(at, rowBytes);
        f.inc(left, -1);
      });
      each((v, offset) => f.emit(v128.store(c, v, offset)));
      f.inc(a, 4 * tile);
      f.inc(c, rowBytes * tile);
      f.inc(tiles, -1);
    });
  });

const made = new WeakMap<Assembler, Strips>();
/** the strip functions of a module, which has kernels of one tile; must be made before the first function that calls them */
export const strips = (m: Assembler, tile: Tile): Strips => {
  const known = made.get(m) ?? {
    rows: rowStrip(m, tile, false),
    scores: rowStrip(m, tile, true),
    columns: columnStrip(m, tile),
  };
  made.set(m, known);
  return known;
};
export const one = f32.const(1);

/** tiles that hold `rows` rows */
export const tilesIn = (rows: I32, tile: Tile): Expr<'i32'> => i32.div_u(i32.add(rows, tile - 1), tile);

/** n rounded up to whole panels */
export const padded = (n: number): number => Math.ceil(n / PANEL) * PANEL;
