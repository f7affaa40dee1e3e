/** The instructions on v128, relaxed SIMD included. Used through `assemble.ts`. */
import {
  type Expr,
  expr,
  f32Bytes,
  family,
  i32Bytes,
  type Lanes,
  leb,
  load,
  type Num,
  num,
  type Stmt,
  simd,
  stmt,
  vBinary,
  vShift,
  vTernary,
  vUnary,
} from './encode.ts';

export const v128 = {
  load: load('v128', simd(0)),
  load8x8_u: load('v128', simd(2)),
  load16x4_s: load('v128', simd(3)),
  load16x4_u: load('v128', simd(4)),
  load32_splat: load('v128', simd(9)),
  load64_splat: load('v128', simd(10)),
  /** one lane, the others zero */
  load32_zero: load('v128', simd(92)),
  load64_zero: load('v128', simd(93)),
  store: (address: Num<'i32'>, value: Expr<'v128'>, offset = 0): Stmt =>
    stmt(num('i32', address), value.code, simd(11), [0], leb(offset)),
  load32_lane: (address: Num<'i32'>, into: Expr<'v128'>, lane: number, offset = 0): Expr<'v128'> =>
    expr('v128', num('i32', address), into.code, simd(86), [0], leb(offset), [lane]),
  store32_lane: (address: Num<'i32'>, value: Expr<'v128'>, lane: number, offset = 0): Stmt =>
    stmt(num('i32', address), value.code, simd(90), [0], leb(offset), [lane]),
  store64_lane: (address: Num<'i32'>, value: Expr<'v128'>, lane: number, offset = 0): Stmt =>
    stmt(num('i32', address), value.code, simd(91), [0], leb(offset), [lane]),
  not: vUnary('i32x4', 77),
  and: vBinary('i32x4', 78),
  /** a & ~b */
  andnot: vBinary('i32x4', 79),
  or: vBinary('i32x4', 80),
  xor: vBinary('i32x4', 81),
  /** per bit: `mask ? a : b` */
  bitselect: vTernary('i32x4', 82),
  any_true: (x: Expr<'v128'>): Expr<'i32'> => expr('i32', x.code, simd(83)),
  /** lanes 0-3 pick from `a`, 4-7 from `b` (32-bit lanes of `i8x16.shuffle`) */
  shuffle32: (a: Expr<'v128'>, b: Expr<'v128'>, lanes: readonly [number, number, number, number]): Expr<'v128'> =>
    expr(
      'v128',
      a.code,
      b.code,
      simd(13),
      lanes.flatMap((l) => [l * 4, l * 4 + 1, l * 4 + 2, l * 4 + 3]),
    ),
  /** the full byte shuffle; 16 indices, 0-15 from `a`, 16-31 from `b` */
  shuffle8: (a: Expr<'v128'>, b: Expr<'v128'>, bytes: readonly number[]): Expr<'v128'> =>
    expr('v128', a.code, b.code, simd(13), bytes),
  /** bytes of `a` by the numbers in the bytes of `at`; 0 beyond 15 */
  swizzle8: (a: Expr<'v128'>, at: Expr<'v128'>): Expr<'v128'> => expr('v128', a.code, at.code, simd(14)),
} as const;

const vCompare = (lanes: Lanes, first: number) => family('eq ne lt gt le ge', (i) => vBinary(lanes, first + i));
const vFloat = (lanes: 'f32x4' | 'f64x2', first: number) => ({
  abs: vUnary(lanes, first),
  neg: vUnary(lanes, first + 1),
  sqrt: vUnary(lanes, first + 3),
  add: vBinary(lanes, first + 4),
  sub: vBinary(lanes, first + 5),
  mul: vBinary(lanes, first + 6),
  div: vBinary(lanes, first + 7),
  min: vBinary(lanes, first + 8),
  max: vBinary(lanes, first + 9),
  /** `b < a ? b : a`: one instruction, unlike `min` */
  pmin: vBinary(lanes, first + 10),
  /** `a < b ? b : a`: one instruction, unlike `max` */
  pmax: vBinary(lanes, first + 11),
});

export const f32x4 = {
  const: (a: number, b: number, c: number, d: number): Expr<'v128'> =>
    expr('v128', simd(12), f32Bytes(a), f32Bytes(b), f32Bytes(c), f32Bytes(d)),
  splat: (x: Num<'f32'>): Expr<'v128'> => expr('v128', num('f32', x), simd(19)),
  extract_lane: (x: Expr<'v128'>, lane: number): Expr<'f32'> => expr('f32', x.code, simd(31), [lane]),
  replace_lane: (x: Expr<'v128'>, lane: number, value: Num<'f32'>): Expr<'v128'> =>
    expr('v128', x.code, num('f32', value), simd(32), [lane]),
  ...vCompare('f32x4', 65),
  ...family('ceil floor trunc nearest', (i) => vUnary('f32x4', 103 + i)),
  ...vFloat('f32x4', 224),
  convert_i32x4_s: vUnary('i32x4', 250),
  convert_i32x4_u: vUnary('i32x4', 251),
  demote_f64x2_zero: vUnary('f64x2', 94),
  /** a·b + c, rounded once or twice as the machine likes; needs relaxed SIMD */
  relaxed_madd: vTernary('f32x4', 0x105),
  /** -(a·b) + c; needs relaxed SIMD */
  relaxed_nmadd: vTernary('f32x4', 0x106),
} as const;

export const f64x2 = {
  splat: (x: Num<'f64'>): Expr<'v128'> => expr('v128', num('f64', x), simd(20)),
  extract_lane: (x: Expr<'v128'>, lane: number): Expr<'f64'> => expr('f64', x.code, simd(33), [lane]),
  nearest: vUnary('f64x2', 148),
  ...vFloat('f64x2', 236),
  promote_low_f32x4: vUnary('f32x4', 95),
  convert_low_i32x4_s: vUnary('i32x4', 254),
  convert_low_i32x4_u: vUnary('i32x4', 255),
} as const;

export const i32x4 = {
  const: (a: number, b: number, c: number, d: number): Expr<'v128'> =>
    expr('v128', simd(12), i32Bytes(a), i32Bytes(b), i32Bytes(c), i32Bytes(d)),
  splat: (x: Num<'i32'>): Expr<'v128'> => expr('v128', num('i32', x), simd(17)),
  extract_lane: (x: Expr<'v128'>, lane: number): Expr<'i32'> => expr('i32', x.code, simd(27), [lane]),
  replace_lane: (x: Expr<'v128'>, lane: number, value: Num<'i32'>): Expr<'v128'> =>
    expr('v128', x.code, num('i32', value), simd(28), [lane]),
  ...family('eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u', (i) => vBinary('i32x4', 55 + i)),
  abs: vUnary('i32x4', 160),
  neg: vUnary('i32x4', 161),
  all_true: (x: Expr<'v128'>): Expr<'i32'> => expr('i32', x.code, simd(163)),
  bitmask: (x: Expr<'v128'>): Expr<'i32'> => expr('i32', x.code, simd(164)),
  shl: vShift(171),
  shr_s: vShift(172),
  shr_u: vShift(173),
  add: vBinary('i32x4', 174),
  sub: vBinary('i32x4', 177),
  mul: vBinary('i32x4', 181),
  ...family('min_s min_u max_s max_u', (i) => vBinary('i32x4', 182 + i)),
  /** saturating: NaN gives 0, no trap */
  trunc_sat_f32x4_s: vUnary('f32x4', 248),
  trunc_sat_f32x4_u: vUnary('f32x4', 249),
  trunc_sat_f64x2_s_zero: vUnary('f64x2', 252),
  trunc_sat_f64x2_u_zero: vUnary('f64x2', 253),
  extend_low_i16x8_u: vUnary('i32x4', 169),
  extend_high_i16x8_u: vUnary('i32x4', 170),
  /** 64-bit products of the low (lanes 0, 1) or high lanes: for threefry-like mixing */
  extmul_low_u: vBinary('i32x4', 222),
  extmul_high_u: vBinary('i32x4', 223),
} as const;
