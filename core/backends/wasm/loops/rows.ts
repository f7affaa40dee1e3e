/** Loops along contiguous rows of f32: whole vectors, then the last 1–3 numbers without touching what lies beyond. */
import {
  type Assembler,
  type Expr,
  type FunctionBuilder,
  f32,
  f32x4,
  i32,
  type Local,
  type Stmt,
  v128,
} from '../assembler/assemble.ts';
import { laneMask, loadTail, storeTail } from './tails.ts';

type Code = Expr<'v128'>;
type I32 = Local<'i32'>;

/** how one vector of a row is read and written */
export interface RowVector {
  /** accumulator to use, 0 … unroll − 1 */
  readonly u: number;
  load(pointer: I32): Code;
  /** at a pointer into padded memory, where a whole vector may always be read or written */
  loadPadded(pointer: I32): Code;
  store(pointer: I32, value: Code): Stmt;
  storePadded(pointer: I32, value: Code): Stmt;
  /** `value` with the lanes beyond the row replaced by 0 or `neutral` */
  mask(value: Code, neutral?: Code): Code;
}

/** the u-th whole vector from the pointers on */
export const wholeVector = (u: number): RowVector => ({
  u,
  load: (p) => v128.load(p, 16 * u),
  loadPadded: (p) => v128.load(p, 16 * u),
  store: (p, value) => v128.store(p, value, 16 * u),
  storePadded: (p, value) => v128.store(p, value, 16 * u),
  mask: (value) => value,
});
/** the last 1–3 numbers of a row, of which `left` are there */
export const lastVector = (m: Assembler, left: I32): RowVector => ({
  ...wholeVector(0),
  load: (p) => loadTail(m, p, left),
  store: (p, value) => storeTail(m, p, value, left),
  mask: (value, neutral) =>
    neutral ? v128.bitselect(value, neutral, laneMask(left)) : v128.and(value, laneMask(left)),
});

/**
 * Visits `length` numbers from the pointers on, `unroll` vectors in a round. The pointers end up behind the last whole
 * vector; give copies.
 */
export const alongRow = (
  f: FunctionBuilder,
  m: Assembler,
  unroll: number,
  length: Expr<'i32'>,
  pointers: readonly I32[],
  visit: (vector: RowVector) => void,
): void => {
  const left = f.let(length);
  const round = (vectors: number): void => {
    for (let u = 0; u < vectors; u++) visit(wholeVector(u));
    for (const p of pointers) f.inc(p, 16 * vectors);
    f.inc(left, -4 * vectors);
  };
  if (unroll > 1) f.while(i32.ge_u(left, 4 * unroll), () => round(unroll));
  f.while(i32.ge_u(left, 4), () => round(1));
  f.if(left, () => visit(lastVector(m, left)));
};

/** accumulators of a row loop, combined pairwise in fixed order */
export const accumulators = (f: FunctionBuilder, count: number, start: Code): Local<'v128'>[] =>
  Array.from({ length: count }, () => f.let(start));
/** the combination of all lanes of all accumulators, in every lane */
export const combineAll = (
  f: FunctionBuilder,
  sums: readonly Local<'v128'>[],
  combine: (a: Code, b: Code) => Code,
): Local<'v128'> => {
  for (let step = 1; step < sums.length; step *= 2)
    for (let u = 0; u + step < sums.length; u += 2 * step) f.set(sums[u]!, combine(sums[u]!, sums[u + step]!));
  const total = f.let(sums[0]!);
  f.set(total, combine(total, v128.shuffle32(total, total, [2, 3, 0, 1])));
  f.set(total, combine(total, v128.shuffle32(total, total, [1, 0, 3, 2])));
  return total;
};

/** `value` of all vectors of a row combined, in every lane; of the last one it must leave the lanes beyond as `start` */
const foldRow =
  (start: Code, combine: (a: Code, b: Code) => Code) =>
  (
    f: FunctionBuilder,
    m: Assembler,
    unroll: number,
    length: Expr<'i32'>,
    pointers: readonly I32[],
    value: (vector: RowVector) => Code,
  ): Local<'v128'> => {
    const all = accumulators(f, unroll, start);
    alongRow(f, m, unroll, length, pointers, (v) => f.set(all[v.u]!, combine(all[v.u]!, value(v))));
    return combineAll(f, all, combine);
  };
const LOW = f32x4.const(-Infinity, -Infinity, -Infinity, -Infinity);
export const ZERO = f32x4.const(0, 0, 0, 0);
export const sumRow = foldRow(ZERO, f32x4.add);
/** the maximum of a row; passes over NaN */
export const maxRow = (f: FunctionBuilder, m: Assembler, length: Expr<'i32'>, row: I32): Local<'v128'> => {
  const x = f.let(row);
  return foldRow(LOW, f32x4.pmax)(f, m, 4, length, [x], (v) => v.mask(v.load(x), LOW));
};

/** 1/n of an unsigned number in all lanes */
export const reciprocal = (n: Expr<'i32'>): Code => f32x4.splat(f32.div(1, f32.convert_i32_u(n)));
