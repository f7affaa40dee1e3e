/** The steps of attention that work on one row of scores or of a head, between the products. */
import {
  type Assembler,
  type Expr,
  type FunctionBuilder,
  f32x4,
  i32,
  type Local,
  v128,
} from '../assembler/assemble.ts';
import { exp2BoundedF32x4, logF32x4 } from '../assembler/vectorMath.ts';
import { alongRow, maxRow, sumRow } from '../loops/rows.ts';
import { COLUMNS } from './tiles.ts';

type I32 = Local<'i32'>;

/** s[0 … length) → 2^(s − max); 1/sum and log-sum-exp to their addresses */
export const softmaxRow = (
  f: FunctionBuilder,
  m: Assembler,
  s: I32,
  length: I32,
  sumAt: Expr<'i32'>,
  lseAt: Expr<'i32'>,
): void => {
  // where all scores are −∞, their exponentials are 0 and the sum's logarithm −∞
  const top = f.let(f32x4.pmax(maxRow(f, m, length, s), -3e38));
  const p = f.let(s);
  const total = sumRow(f, m, 2, length, [p], (v) => {
    const e = exp2BoundedF32x4(f, f32x4.sub(v.load(p), top));
    f.emit(v.store(p, e));
    return v.mask(e);
  });
  f.emit(v128.store32_lane(sumAt, f32x4.div(1, total), 0));
  f.emit(v128.store32_lane(lseAt, f32x4.add(logF32x4(f, total), f32x4.mul(top, Math.LN2)), 0));
};

/** Σ g·o of one row, in every lane */
export const rowProduct = (f: FunctionBuilder, m: Assembler, g: I32, o: I32, d: I32): Local<'v128'> => {
  const [x, y] = [f.let(g), f.let(o)];
  return sumRow(f, m, 2, d, [x, y], (v) => f32x4.mul(v.load(x), v.load(y)));
};

/** s → p = 2^(s − log₂e·lse), dp → scale·p·(dp − product) */
export const scoreRow = (
  f: FunctionBuilder,
  m: Assembler,
  scores: I32,
  slopes: I32,
  length: I32,
  product: Local<'v128'>,
  lseAt: I32,
  scale: Local<'f32'>,
): void => {
  const lse = f.let(f32x4.mul(v128.load32_splat(lseAt), Math.LOG2E));
  const k = f.let(f32x4.splat(scale));
  const [s, t] = [f.let(scores), f.let(slopes)];
  alongRow(f, m, 2, length, [s, t], (v) => {
    const e = exp2BoundedF32x4(f, f32x4.sub(v.load(s), lse));
    f.emit(v.store(s, e));
    f.emit(v.store(t, f32x4.mul(f32x4.mul(e, k), f32x4.sub(v.load(t), product))));
  });
};

/** panels [⌈d/8⌉][n][8] → rows of d numbers */
export const unpack = (
  f: FunctionBuilder,
  m: Assembler,
  panels: I32,
  panelBytes: I32,
  n: I32,
  d: I32,
  out: Expr<'i32'>,
  rowBytes: I32,
): void => {
  const [panel, column, i] = [f.let(panels), f.local('i32'), f.local('i32')];
  const base = f.let(out);
  f.for(column, 0, d, COLUMNS, () => {
    const width = f.let(i32.sub(d, column));
    f.if(i32.gt_u(width, COLUMNS), () => f.set(width, COLUMNS));
    const [from, to] = [f.let(panel), f.let(base)];
    f.for(i, 0, n, 1, () => {
      const [x, y] = [f.let(from), f.let(to)];
      alongRow(f, m, 1, width, [x, y], (v) => f.emit(v.store(y, v.loadPadded(x))));
      f.inc(from, COLUMNS * 4);
      f.inc(to, rowBytes);
    });
    f.inc(panel, panelBytes);
    f.inc(base, COLUMNS * 4);
  });
};
