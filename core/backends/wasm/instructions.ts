/**
 * The WebAssembly instructions the kernels use, as typed functions named like the text format: `i32.add(a, b)`,
 * `f32x4.mul(x, 0.5)`, `v128.load(p, 16)`. Each returns an {@link Expr} (code that leaves one value) or a {@link Stmt}
 * (code that leaves none). A JS number stands for a constant; for `f32x4`/`i32x4` it is repeated in every lane.
 *
 * An `Expr` is code, not a value: used twice it is computed twice. Keep shared values in a local (`f.let(expr)`).
 *
 * Source: WebAssembly core specification 2.0, chapter 5.4, with the threads and relaxed-SIMD proposals.
 */

export type ValType = 'i32' | 'i64' | 'f32' | 'f64' | 'v128';
export interface Expr<T extends ValType> {
  readonly type: T;
  readonly code: readonly number[];
}
export interface Stmt {
  readonly type: 'void';
  readonly code: readonly number[];
}
/** a scalar operand: an expression or a constant */
export type Num<T extends ValType> = Expr<T> | number;
/** a vector operand: an expression or a constant for every lane */
export type Vec = Expr<'v128'> | number;

/** unsigned LEB128 of `n` */
export const leb = (n: number): number[] => {
  const out: number[] = [];
  let rest = n >>> 0;
  do {
    const low = rest & 0x7f;
    rest >>>= 7;
    out.push(rest ? low | 0x80 : low);
  } while (rest);
  return out;
};

/** signed LEB128 of `n` */
export const sleb = (n: bigint | number): number[] => {
  const out: number[] = [];
  let rest = BigInt(n);
  for (;;) {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    const done = (rest === 0n && !(low & 0x40)) || (rest === -1n && (low & 0x40) !== 0);
    out.push(done ? low : low | 0x80);
    if (done) return out;
  }
};

const f32Bytes = (x: number): number[] => [...new Uint8Array(Float32Array.of(x).buffer)];
const i32Bytes = (x: number): number[] => [...new Uint8Array(Int32Array.of(x).buffer)];
const f64Bytes = (x: number): number[] => [...new Uint8Array(Float64Array.of(x).buffer)];

const SIMD = 0xfd;
const ATOMIC = 0xfe;
const simd = (n: number): number[] => [SIMD, ...leb(n)];

const constants = {
  i32: (x: number) => [0x41, ...sleb(x | 0)],
  i64: (x: number) => [0x42, ...sleb(BigInt.asIntN(64, BigInt(x)))],
  f32: (x: number) => [0x43, ...f32Bytes(x)],
  f64: (x: number) => [0x44, ...f64Bytes(x)],
} as const;
type Scalar = keyof typeof constants;
type Lanes = 'f32x4' | 'i32x4' | 'f64x2';

const num = (type: Scalar, x: Num<Scalar>): readonly number[] => (typeof x === 'number' ? constants[type](x) : x.code);
const laneBytes: Record<Lanes, (x: number) => number[]> = {
  f32x4: (x) => [...f32Bytes(x), ...f32Bytes(x), ...f32Bytes(x), ...f32Bytes(x)],
  i32x4: (x) => [...i32Bytes(x), ...i32Bytes(x), ...i32Bytes(x), ...i32Bytes(x)],
  f64x2: (x) => [...f64Bytes(x), ...f64Bytes(x)],
};
const vec = (lanes: Lanes, x: Vec): readonly number[] =>
  typeof x === 'number' ? [...simd(12), ...laneBytes[lanes](x)] : x.code;

const expr = <T extends ValType>(type: T, ...parts: (readonly number[])[]): Expr<T> => ({ type, code: parts.flat() });
const stmt = (...parts: (readonly number[])[]): Stmt => ({ type: 'void', code: parts.flat() });

// Families of instructions with one signature.
const unary =
  <A extends Scalar, R extends ValType>(from: A, to: R, ...op: number[]) =>
  (x: Num<A>): Expr<R> =>
    expr(to, num(from, x), op);
const binary =
  <A extends Scalar, R extends ValType>(from: A, to: R, ...op: number[]) =>
  (a: Num<A>, b: Num<A>): Expr<R> =>
    expr(to, num(from, a), num(from, b), op);
const vUnary =
  (lanes: Lanes, n: number) =>
  (x: Vec): Expr<'v128'> =>
    expr('v128', vec(lanes, x), simd(n));
const vBinary =
  (lanes: Lanes, n: number) =>
  (a: Vec, b: Vec): Expr<'v128'> =>
    expr('v128', vec(lanes, a), vec(lanes, b), simd(n));
const vTernary =
  (lanes: Lanes, n: number) =>
  (a: Vec, b: Vec, c: Vec): Expr<'v128'> =>
    expr('v128', vec(lanes, a), vec(lanes, b), vec(lanes, c), simd(n));
const vShift =
  (n: number) =>
  (a: Vec, count: Num<'i32'>): Expr<'v128'> =>
    expr('v128', vec('i32x4', a), num('i32', count), simd(n));
const load =
  <T extends ValType>(type: T, op: readonly number[], align = 0) =>
  (address: Num<'i32'>, offset = 0): Expr<T> =>
    expr(type, num('i32', address), op, [align], leb(offset));
const store =
  <T extends Scalar>(type: T, op: readonly number[], align = 0) =>
  (address: Num<'i32'>, value: Num<T>, offset = 0): Stmt =>
    stmt(num('i32', address), num(type, value), op, [align], leb(offset));
const atomicRmw =
  (op: number) =>
  (address: Num<'i32'>, value: Num<'i32'>, offset = 0): Expr<'i32'> =>
    expr('i32', num('i32', address), num('i32', value), [ATOMIC, op, 2], leb(offset));

const compare = <T extends Scalar>(type: T, first: number) => {
  const at = (i: number) => binary(type, 'i32', first + i);
  return { eq: at(0), ne: at(1), lt: at(2), gt: at(3), le: at(4), ge: at(5) };
};
const compareInt = <T extends Scalar>(type: T, first: number) => {
  const at = (i: number) => binary(type, 'i32', first + i);
  return {
    eq: at(0),
    ne: at(1),
    lt_s: at(2),
    lt_u: at(3),
    gt_s: at(4),
    gt_u: at(5),
    le_s: at(6),
    le_u: at(7),
    ge_s: at(8),
    ge_u: at(9),
  };
};
const intArithmetic = <T extends 'i32' | 'i64'>(type: T, first: number) => {
  const at = (i: number) => binary(type, type, first + i);
  return {
    add: at(0),
    sub: at(1),
    mul: at(2),
    div_s: at(3),
    div_u: at(4),
    rem_s: at(5),
    rem_u: at(6),
    and: at(7),
    or: at(8),
    xor: at(9),
    shl: at(10),
    shr_s: at(11),
    shr_u: at(12),
    rotl: at(13),
    rotr: at(14),
  };
};
const floatArithmetic = <T extends 'f32' | 'f64'>(type: T, first: number) => {
  const one = (i: number) => unary(type, type, first + i);
  const two = (i: number) => binary(type, type, first + i);
  return {
    abs: one(0),
    neg: one(1),
    ceil: one(2),
    floor: one(3),
    trunc: one(4),
    nearest: one(5),
    sqrt: one(6),
    add: two(7),
    sub: two(8),
    mul: two(9),
    div: two(10),
    min: two(11),
    max: two(12),
    copysign: two(13),
  };
};

export const i32 = {
  const: (x: number): Expr<'i32'> => expr('i32', constants.i32(x)),
  eqz: unary('i32', 'i32', 0x45),
  ...compareInt('i32', 0x46),
  clz: unary('i32', 'i32', 0x67),
  ctz: unary('i32', 'i32', 0x68),
  popcnt: unary('i32', 'i32', 0x69),
  ...intArithmetic('i32', 0x6a),
  wrap_i64: unary('i64', 'i32', 0xa7),
  /** saturating: NaN gives 0, no trap */
  trunc_sat_f32_s: unary('f32', 'i32', 0xfc, 0),
  trunc_sat_f32_u: unary('f32', 'i32', 0xfc, 1),
  trunc_sat_f64_s: unary('f64', 'i32', 0xfc, 2),
  trunc_sat_f64_u: unary('f64', 'i32', 0xfc, 3),
  reinterpret_f32: unary('f32', 'i32', 0xbc),
  load: load('i32', [0x28]),
  load8_s: load('i32', [0x2c]),
  load8_u: load('i32', [0x2d]),
  load16_s: load('i32', [0x2e]),
  load16_u: load('i32', [0x2f]),
  store: store('i32', [0x36]),
  store8: store('i32', [0x3a]),
  store16: store('i32', [0x3b]),
  atomic: {
    load: load('i32', [ATOMIC, 0x10], 2),
    store: store('i32', [ATOMIC, 0x17], 2),
    /** each returns the value before */
    add: atomicRmw(0x1e),
    sub: atomicRmw(0x25),
    and: atomicRmw(0x2c),
    or: atomicRmw(0x33),
    xchg: atomicRmw(0x41),
    /** replaces `expected` by `value`, returns the value before */
    cmpxchg: (address: Num<'i32'>, expected: Num<'i32'>, value: Num<'i32'>, offset = 0): Expr<'i32'> =>
      expr('i32', num('i32', address), num('i32', expected), num('i32', value), [ATOMIC, 0x48, 2], leb(offset)),
    /** wakes up to `count` waiters, returns how many */
    notify: (address: Num<'i32'>, count: Num<'i32'>, offset = 0): Expr<'i32'> =>
      expr('i32', num('i32', address), num('i32', count), [ATOMIC, 0x00, 2], leb(offset)),
    /** sleeps while the word equals `expected`; timeout in ns (-1: none). Traps on a browser's main thread. */
    wait: (address: Num<'i32'>, expected: Num<'i32'>, timeout: Num<'i64'>, offset = 0): Expr<'i32'> =>
      expr('i32', num('i32', address), num('i32', expected), num('i64', timeout), [ATOMIC, 0x01, 2], leb(offset)),
  },
} as const;

export const i64 = {
  const: (x: bigint): Expr<'i64'> => expr('i64', [0x42, ...sleb(BigInt.asIntN(64, x))]),
  eqz: unary('i64', 'i32', 0x50),
  ...compareInt('i64', 0x51),
  ...intArithmetic('i64', 0x7c),
  extend_i32_s: unary('i32', 'i64', 0xac),
  extend_i32_u: unary('i32', 'i64', 0xad),
  load: load('i64', [0x29]),
  store: store('i64', [0x37]),
} as const;

export const f32 = {
  const: (x: number): Expr<'f32'> => expr('f32', constants.f32(x)),
  ...compare('f32', 0x5b),
  ...floatArithmetic('f32', 0x8b),
  convert_i32_s: unary('i32', 'f32', 0xb2),
  convert_i32_u: unary('i32', 'f32', 0xb3),
  demote_f64: unary('f64', 'f32', 0xb6),
  reinterpret_i32: unary('i32', 'f32', 0xbe),
  load: load('f32', [0x2a]),
  store: store('f32', [0x38]),
} as const;

export const f64 = {
  const: (x: number): Expr<'f64'> => expr('f64', constants.f64(x)),
  ...compare('f64', 0x61),
  ...floatArithmetic('f64', 0x99),
  convert_i32_s: unary('i32', 'f64', 0xb7),
  convert_i32_u: unary('i32', 'f64', 0xb8),
  promote_f32: unary('f32', 'f64', 0xbb),
  load: load('f64', [0x2b]),
  store: store('f64', [0x39]),
} as const;

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
} as const;

const vCompare = (lanes: Lanes, first: number) => {
  const at = (i: number) => vBinary(lanes, first + i);
  return { eq: at(0), ne: at(1), lt: at(2), gt: at(3), le: at(4), ge: at(5) };
};
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
  ceil: vUnary('f32x4', 103),
  floor: vUnary('f32x4', 104),
  trunc: vUnary('f32x4', 105),
  nearest: vUnary('f32x4', 106),
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
  ...vFloat('f64x2', 236),
  promote_low_f32x4: vUnary('f32x4', 95),
  convert_low_i32x4_s: vUnary('i32x4', 254),
  convert_low_i32x4_u: vUnary('i32x4', 255),
} as const;

const i32x4Compare = (i: number) => vBinary('i32x4', 55 + i);
export const i32x4 = {
  const: (a: number, b: number, c: number, d: number): Expr<'v128'> =>
    expr('v128', simd(12), i32Bytes(a), i32Bytes(b), i32Bytes(c), i32Bytes(d)),
  splat: (x: Num<'i32'>): Expr<'v128'> => expr('v128', num('i32', x), simd(17)),
  extract_lane: (x: Expr<'v128'>, lane: number): Expr<'i32'> => expr('i32', x.code, simd(27), [lane]),
  replace_lane: (x: Expr<'v128'>, lane: number, value: Num<'i32'>): Expr<'v128'> =>
    expr('v128', x.code, num('i32', value), simd(28), [lane]),
  eq: i32x4Compare(0),
  ne: i32x4Compare(1),
  lt_s: i32x4Compare(2),
  lt_u: i32x4Compare(3),
  gt_s: i32x4Compare(4),
  gt_u: i32x4Compare(5),
  le_s: i32x4Compare(6),
  le_u: i32x4Compare(7),
  ge_s: i32x4Compare(8),
  ge_u: i32x4Compare(9),
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
  min_s: vBinary('i32x4', 182),
  min_u: vBinary('i32x4', 183),
  max_s: vBinary('i32x4', 184),
  max_u: vBinary('i32x4', 185),
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

/** `memory.copy`: may overlap */
export const memoryCopy = (to: Num<'i32'>, from: Num<'i32'>, bytes: Num<'i32'>): Stmt =>
  stmt(num('i32', to), num('i32', from), num('i32', bytes), [0xfc, 0x0a, 0, 0]);
/** `memory.fill` with one byte value */
export const memoryFill = (to: Num<'i32'>, byte: Num<'i32'>, bytes: Num<'i32'>): Stmt =>
  stmt(num('i32', to), num('i32', byte), num('i32', bytes), [0xfc, 0x0b, 0]);
/** `condition ? a : b`, both computed */
export const select = <T extends ValType>(condition: Num<'i32'>, a: Expr<T>, b: Expr<T>): Expr<T> =>
  expr(a.type, a.code, b.code, num('i32', condition), [0x1b]);
/** constant of a scalar type */
export const constant = <T extends Scalar>(type: T, x: number): Expr<T> => expr(type, constants[type](x));
/** code of an operand: a constant where it is a number */
export const operand = num;
