/**
 * The inner products of attention on packed operands. B comes in panels of 8 columns, [k][8], so that the micro-kernel is
 * always 4 × 8 with constant steps; rows are padded to whole tiles by the callers.
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

export const ROWS = 4;
export const PANEL = 8;
const PANEL_BYTES = PANEL * 4;
type I32 = Local<'i32'>;
type V = Local<'v128'>;

type Accumulators = readonly (readonly V[])[];
const tile = (f: FunctionBuilder): Accumulators =>
  Array.from({ length: ROWS }, () => [f.local('v128'), f.local('v128')]);

/**
 * acc[r] += a(r)·b for one k. Not unrolled: V8 would hoist the loads of later steps above the multiplications and spill
 * (60 → 36 GFLOP/s).
 */
const step = (
  f: FunctionBuilder,
  acc: Accumulators,
  b: I32,
  a: (row: number) => Expr<'v128'>,
  [b0, b1, splat]: readonly [V, V, V],
): void => {
  f.set(b0, v128.load(b));
  f.set(b1, v128.load(b, 16));
  for (const [r, [left, right]] of acc.entries()) {
    f.set(splat, a(r));
    f.set(left!, multiplyAdd(splat, b0, left!));
    f.set(right!, multiplyAdd(splat, b1, right!));
  }
};

/** (a, aStride, tiles, b, k, c, cStride, alpha) */
type RowStrip = Func<'void'>;
/** (a, aStride, tiles, b, k, c) */
type ColumnStrip = Func<'void'>;
interface Strips {
  /** C[4·tiles, 8] = alpha·A·B with A row-major; strides in bytes */
  readonly rows: RowStrip;
  /** C[4·tiles, 8] += Aᵀ·B with A[k, 4·tiles] row-major, C packed */
  readonly columns: ColumnStrip;
}

const rowStrip = (m: Assembler): RowStrip =>
  m.func(
    '',
    ['i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'f32'],
    'void',
    (f, a, aStride, tiles, b, k, c, cStride, alpha) => {
      const acc = tile(f);
      const rows = Array.from({ length: ROWS }, () => f.local('i32'));
      const [at, left] = f.locals('i32');
      const registers = [f.local('v128'), f.local('v128'), f.local('v128')] as const;
      const scale = f.let(f32x4.splat(alpha));
      const base = f.let(a);
      const out = f.let(c);
      f.while(tiles, () => {
        for (const [r, p] of rows.entries()) f.set(p, r === 0 ? base : i32.add(rows[r - 1]!, aStride));
        f.set(base, i32.add(rows[ROWS - 1]!, aStride));
        for (const v of acc.flat()) f.set(v, f32x4.const(0, 0, 0, 0));
        f.set(at, b);
        f.set(left, k);
        f.while(left, () => {
          step(f, acc, at, (r) => v128.load32_splat(rows[r]!), registers);
          for (const p of rows) f.inc(p, 4);
          f.inc(at, PANEL_BYTES);
          f.inc(left, -1);
        });
        for (const [v0, v1] of acc) {
          f.emit(v128.store(out, f32x4.mul(v0!, scale)), v128.store(out, f32x4.mul(v1!, scale), 16));
          f.inc(out, cStride);
        }
        f.inc(tiles, -1);
      });
    },
  );

const columnStrip = (m: Assembler): ColumnStrip =>
  m.func('', ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'], 'void', (f, a, aStride, tiles, b, k, c) => {
    const acc = tile(f);
    const [row, at, left] = f.locals('i32');
    const registers = [f.local('v128'), f.local('v128'), f.local('v128')] as const;
    f.while(tiles, () => {
      for (const [r, [v0, v1]] of acc.entries()) {
        f.set(v0!, v128.load(c, r * PANEL_BYTES));
        f.set(v1!, v128.load(c, r * PANEL_BYTES + 16));
      }
      f.set(row, a);
      f.set(at, b);
      f.set(left, k);
      f.while(left, () => {
        step(f, acc, at, (r) => v128.load32_splat(row, r * 4), registers);
        f.inc(row, aStride);
        f.inc(at, PANEL_BYTES);
        f.inc(left, -1);
      });
      for (const [r, [v0, v1]] of acc.entries())
        f.emit(v128.store(c, v0!, r * PANEL_BYTES), v128.store(c, v1!, r * PANEL_BYTES + 16));
      f.inc(a, 4 * ROWS);
      f.inc(c, PANEL_BYTES * ROWS);
      f.inc(tiles, -1);
    });
  });

const made = new WeakMap<Assembler, Strips>();
/** the strip functions of a module; must be made before the first function that calls them */
export const strips = (m: Assembler): Strips => {
  const known = made.get(m) ?? { rows: rowStrip(m), columns: columnStrip(m) };
  made.set(m, known);
  return known;
};
export const one = f32.const(1);

/** n rounded up to whole panels */
export const padded = (n: number): number => Math.ceil(n / PANEL) * PANEL;
