/**
 * Encoding of instructions: the types of code, LEB128 numbers, and families of instructions with one signature.
 *
 * Source: WebAssembly core specification 2.0, chapter 5.
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

export const f32Bytes = (x: number): number[] => [...new Uint8Array(Float32Array.of(x).buffer)];
export const i32Bytes = (x: number): number[] => [...new Uint8Array(Int32Array.of(x).buffer)];
const f64Bytes = (x: number): number[] => [...new Uint8Array(Float64Array.of(x).buffer)];

const SIMD = 0xfd;
export const ATOMIC = 0xfe;
export const simd = (n: number): number[] => [SIMD, ...leb(n)];

export const constants = {
  i32: (x: number) => [0x41, ...sleb(x | 0)],
  i64: (x: number) => [0x42, ...sleb(BigInt.asIntN(64, BigInt(x)))],
  f32: (x: number) => [0x43, ...f32Bytes(x)],
  f64: (x: number) => [0x44, ...f64Bytes(x)],
} as const;
export type Scalar = keyof typeof constants;
export type Lanes = 'f32x4' | 'i32x4' | 'f64x2';

export const num = (type: Scalar, x: Num<Scalar>): readonly number[] =>
  typeof x === 'number' ? constants[type](x) : x.code;
const laneBytes: Record<Lanes, (x: number) => number[]> = {
  f32x4: (x) => [...f32Bytes(x), ...f32Bytes(x), ...f32Bytes(x), ...f32Bytes(x)],
  i32x4: (x) => [...i32Bytes(x), ...i32Bytes(x), ...i32Bytes(x), ...i32Bytes(x)],
  f64x2: (x) => [...f64Bytes(x), ...f64Bytes(x)],
};

/** a place in memory that holds the 32 bits of a number, or none */
export type Constants = (bits: number) => number | undefined;
let held: Constants | undefined;
/**
 * Writes code in which constant vectors come from memory. Engines that join vectors to wider ones make a constant anew at
 * every use, in three instructions; spread from memory it is one.
 */
export const withConstants = <T>(constants: Constants | undefined, write: () => T): T => {
  const before = held;
  held = constants;
  try {
    return write();
  } finally {
    held = before;
  }
};
/** all lanes from four bytes in memory; undefined where that is no gain or there is no place */
const spreadFrom = (lane: readonly number[]): readonly number[] | undefined => {
  const bits = new DataView(Uint8Array.from(lane).buffer).getInt32(0, true);
  // made of nothing, in one instruction
  if (bits === 0 || bits === -1) return undefined;
  const address = held?.(bits);
  return address === undefined ? undefined : [...constants.i32(address), ...simd(9), 2, 0];
};
export const vec = (lanes: Lanes, x: Vec): readonly number[] => {
  if (typeof x !== 'number') return x.code;
  const bytes = laneBytes[lanes](x);
  const spread = held && lanes !== 'f64x2' ? spreadFrom(bytes.slice(0, 4)) : undefined;
  return spread ?? [...simd(12), ...bytes];
};

export const expr = <T extends ValType>(type: T, ...parts: (readonly number[])[]): Expr<T> => ({
  type,
  code: parts.flat(),
});
export const stmt = (...parts: (readonly number[])[]): Stmt => ({ type: 'void', code: parts.flat() });

/** the names in a text, one blank apart */
export type Names<S extends string> = S extends `${infer First} ${infer Rest}` ? First | Names<Rest> : S;
/** instructions whose opcodes follow one another, by name */
export const family = <S extends string, I>(names: S, at: (i: number) => I): Readonly<Record<Names<S>, I>> =>
  Object.fromEntries(names.split(' ').map((name, i) => [name, at(i)])) as Record<Names<S>, I>;

// Families of instructions with one signature.
export const unary =
  <A extends Scalar, R extends ValType>(from: A, to: R, ...op: number[]) =>
  (x: Num<A>): Expr<R> =>
    expr(to, num(from, x), op);
export const binary =
  <A extends Scalar, R extends ValType>(from: A, to: R, ...op: number[]) =>
  (a: Num<A>, b: Num<A>): Expr<R> =>
    expr(to, num(from, a), num(from, b), op);
export const vUnary =
  (lanes: Lanes, n: number) =>
  (x: Vec): Expr<'v128'> =>
    expr('v128', vec(lanes, x), simd(n));
export const vBinary =
  (lanes: Lanes, n: number) =>
  (a: Vec, b: Vec): Expr<'v128'> =>
    expr('v128', vec(lanes, a), vec(lanes, b), simd(n));
export const vTernary =
  (lanes: Lanes, n: number) =>
  (a: Vec, b: Vec, c: Vec): Expr<'v128'> =>
    expr('v128', vec(lanes, a), vec(lanes, b), vec(lanes, c), simd(n));
export const vShift =
  (n: number) =>
  (a: Vec, count: Num<'i32'>): Expr<'v128'> =>
    expr('v128', vec('i32x4', a), num('i32', count), simd(n));
export const load =
  <T extends ValType>(type: T, op: readonly number[], align = 0) =>
  (address: Num<'i32'>, offset = 0): Expr<T> =>
    expr(type, num('i32', address), op, [align], leb(offset));
export const store =
  <T extends Scalar>(type: T, op: readonly number[], align = 0) =>
  (address: Num<'i32'>, value: Num<T>, offset = 0): Stmt =>
    stmt(num('i32', address), num(type, value), op, [align], leb(offset));
export const atomicRmw =
  (op: number) =>
  (address: Num<'i32'>, value: Num<'i32'>, offset = 0): Expr<'i32'> =>
    expr('i32', num('i32', address), num('i32', value), [ATOMIC, op, 2], leb(offset));
