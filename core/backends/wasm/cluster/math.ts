/**
 * The elementwise table as WASM SIMD: four neighbours in one v128. A bool is a mask (all bits) in a register and 0/1 in
 * memory.
 */
import type { DType } from '../../../ir/dtype.ts';
import { type ElementwiseName, table } from '../../../ops/elementwise.ts';
import { type Expr, type FunctionBuilder, f32x4, i32x4, type Local, v128 } from '../assembler/assemble.ts';
import {
  cosF32x4,
  divideI32x4,
  erfF32x4,
  expF32x4,
  isFiniteF32x4,
  logF32x4,
  sigmoidF32x4,
  sinF32x4,
  tanhF32x4,
  type VectorFunction,
} from '../assembler/vectorMath.ts';

export { expF32x4, siluF32x4 } from '../assembler/vectorMath.ts';

type Value = Local<'v128'>;
type Code = Expr<'v128'>;
type Print = (f: FunctionBuilder, x: readonly Value[]) => Code;
/** one printer per kind of operand; a missing kind has no meaning for the function */
interface Row {
  readonly f32?: Print;
  readonly i32?: Print;
  readonly u32?: Print;
  readonly bool?: Print;
}

const floats = (code: (...x: Value[]) => Code): Row => ({ f32: (_f, x) => code(...x) });
const callF32 = (fn: VectorFunction): Row => ({ f32: (f, [x]) => fn(f, x!) });
const integers = (code: (...x: Value[]) => Code): Row => ({ i32: (_f, x) => code(...x), u32: (_f, x) => code(...x) });
const masks = (code: (...x: Value[]) => Code): Row => ({ bool: (_f, x) => code(...x) });
const same: Print = (_f, [x]) => x!;
const select: Print = (_f, [c, a, b]) => v128.bitselect(a!, b!, c!);
const always: Print = () => i32x4.splat(-1);

/** every row of the elementwise table; the kind is that of the last operand (`select` chooses by its values) */
const rows: Readonly<Record<ElementwiseName, Row>> = {
  neg: { ...floats((x) => f32x4.neg(x)), ...integers((x) => i32x4.neg(x)) },
  exp: callF32(expF32x4),
  log: callF32(logF32x4),
  sqrt: floats((x) => f32x4.sqrt(x)),
  rsqrt: floats((x) => f32x4.div(1, f32x4.sqrt(x))),
  recip: floats((x) => f32x4.div(1, x)),
  sin: callF32(sinF32x4),
  cos: callF32(cosF32x4),
  tanh: callF32(tanhF32x4),
  erf: callF32(erfF32x4),
  sigmoid: callF32(sigmoidF32x4),
  floor: { ...floats((x) => f32x4.floor(x)), i32: same, u32: same },
  not: masks((x) => v128.not(x)),
  isFinite: { ...floats((x) => isFiniteF32x4(x)), i32: always, u32: always, bool: always },
  add: { ...floats((a, b) => f32x4.add(a, b)), ...integers((a, b) => i32x4.add(a, b)) },
  sub: { ...floats((a, b) => f32x4.sub(a, b)), ...integers((a, b) => i32x4.sub(a, b)) },
  mul: {
    ...floats((a, b) => f32x4.mul(a, b)),
    ...integers((a, b) => i32x4.mul(a, b)),
    ...masks((a, b) => v128.and(a, b)),
  },
  div: {
    ...floats((a, b) => f32x4.div(a, b)),
    i32: (f, [a, b]) => divideI32x4(f, a!, b!, true),
    u32: (f, [a, b]) => divideI32x4(f, a!, b!, false),
  },
  // min and max, unlike pmin and pmax, keep NaN as Math.max does
  maximum: {
    ...floats((a, b) => f32x4.max(a, b)),
    i32: (_f, [a, b]) => i32x4.max_s(a!, b!),
    u32: (_f, [a, b]) => i32x4.max_u(a!, b!),
    ...masks((a, b) => v128.or(a, b)),
  },
  minimum: {
    ...floats((a, b) => f32x4.min(a, b)),
    i32: (_f, [a, b]) => i32x4.min_s(a!, b!),
    u32: (_f, [a, b]) => i32x4.min_u(a!, b!),
    ...masks((a, b) => v128.and(a, b)),
  },
  less: {
    ...floats((a, b) => f32x4.lt(a, b)),
    i32: (_f, [a, b]) => i32x4.lt_s(a!, b!),
    u32: (_f, [a, b]) => i32x4.lt_u(a!, b!),
    ...masks((a, b) => v128.andnot(b, a)),
  },
  equal: {
    ...floats((a, b) => f32x4.eq(a, b)),
    ...integers((a, b) => i32x4.eq(a, b)),
    ...masks((a, b) => i32x4.eq(a, b)),
  },
  select: { f32: select, i32: select, u32: select, bool: select },
};

/** rough price of a function in simple instructions: how far to unroll, how large to make a unit of work */
export const priceOf = (fn: string): number => {
  const form = table[fn as ElementwiseName]?.form;
  return form?.kind === 'elementwise' ? (form.cost ?? 1) : 1;
};

/** Conversion as `cast` defines it: floats are truncated towards zero (out of range: the nearest bound, NaN: 0). */
export const castCode = (x: Value, from: DType, to: DType): Code => {
  if (from === to) return x;
  if (to === 'bool')
    // NaN is false, as in the reference
    return from === 'f32' ? v128.or(f32x4.lt(x, 0), f32x4.lt(0, x)) : i32x4.ne(x, 0);
  if (from === 'bool') return to === 'f32' ? v128.and(x, f32x4.const(1, 1, 1, 1)) : v128.and(x, i32x4.splat(1));
  if (to === 'f32') return from === 'i32' ? f32x4.convert_i32x4_s(x) : f32x4.convert_i32x4_u(x);
  if (from === 'f32') return to === 'i32' ? i32x4.trunc_sat_f32x4_s(x) : i32x4.trunc_sat_f32x4_u(x);
  return x;
};

/**
 * Code of one call of the table on values in registers.
 * @throws RangeError when the function has no meaning for the dtype
 */
export const printCall = (f: FunctionBuilder, fn: string, args: readonly Value[], operands: readonly DType[]): Code => {
  const kind = operands.at(-1)!;
  const row: Partial<Record<DType, Print>> | undefined = rows[fn as ElementwiseName];
  const print = row?.[kind];
  if (!print) throw new RangeError(`the wasm backend has no elementwise function ${fn} for ${kind}`);
  return print(f, args);
};

/** what memory holds → what registers hold */
export const loaded = (raw: Code, dtype: DType): Code => (dtype === 'bool' ? i32x4.ne(raw, 0) : raw);
/** what registers hold → what memory holds */
export const stored = (value: Code, dtype: DType): Code => (dtype === 'bool' ? v128.and(value, i32x4.splat(1)) : value);
