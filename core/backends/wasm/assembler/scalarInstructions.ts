/** The instructions on i32, i64, f32 and f64, atomics and memory included. Used through `assemble.ts`. */
import {
  ATOMIC,
  atomicRmw,
  binary,
  constants,
  type Expr,
  expr,
  family,
  leb,
  load,
  type Num,
  num,
  type Scalar,
  type Stmt,
  sleb,
  stmt,
  store,
  unary,
  type ValType,
} from './encode.ts';

const compare = <T extends Scalar>(type: T, first: number) =>
  family('eq ne lt gt le ge', (i) => binary(type, 'i32', first + i));
const compareInt = <T extends Scalar>(type: T, first: number) =>
  family('eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u', (i) => binary(type, 'i32', first + i));
const intArithmetic = <T extends 'i32' | 'i64'>(type: T, first: number) =>
  family('add sub mul div_s div_u rem_s rem_u and or xor shl shr_s shr_u rotl rotr', (i) =>
    binary(type, type, first + i),
  );
const floatArithmetic = <T extends 'f32' | 'f64'>(type: T, first: number) => ({
  ...family('abs neg ceil floor trunc nearest sqrt', (i) => unary(type, type, first + i)),
  ...family('add sub mul div min max copysign', (i) => binary(type, type, first + 7 + i)),
});

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
