/**
 * Vector functions WebAssembly lacks, four f32 at a time, as code for a {@link FunctionBuilder}. Errors stay within a few
 * units in the last place; denormal results are 0, overflow gives infinity, NaN stays NaN.
 *
 * Polynomials: Cephes Math Library 2.2 (S. Moshier) for exp, log, sin, cos and tanh; the rational function of Eigen and XLA
 * for erf.
 */
import { type Expr, type FunctionBuilder, f32x4, f64x2, i32x4, type Local, type Vec, v128 } from './assemble.ts';
import { hasRelaxedSimd } from './features.ts';

type Vector = Local<'v128'>;
/** a vector function as code; its operand is kept in a local, so it may be any expression */
export type VectorFunction = (f: FunctionBuilder, value: Expr<'v128'>) => Vector;

/**
 * 1.5·2²³ + 127: adding and subtracting it rounds to an integer n, and the low bits of the sum are n + 127, the exponent
 * bits of 2ⁿ
 */
const MAGIC = 12582912 + 127;
/** the same for f64: 1.5·2⁵² */
const MAGIC_F64 = 6755399441055744;
const SIGN = -0x80000000;

/** a·b + c, with one rounding where the engine has it */
export const multiplyAdd = (a: Vec, b: Vec, c: Vec): Expr<'v128'> =>
  hasRelaxedSimd() ? f32x4.relaxed_madd(a, b, c) : f32x4.add(f32x4.mul(a, b), c);

/** c₀·xⁿ + … + cₙ */
const horner = (f: FunctionBuilder, x: Expr<'v128'>, [first, ...rest]: readonly number[]): Vector => {
  const p = f.local('v128');
  for (const [i, c] of rest.entries()) f.set(p, multiplyAdd(i === 0 ? first! : p, x, c));
  return p;
};
const signBit = (x: Expr<'v128'>): Expr<'v128'> => v128.and(x, i32x4.splat(SIGN));

/** e^r for |r| ≤ ln 2 / 2, with x = n·ln 2 + r; `shifted` is n + 127 in the low bits of a float */
const expParts = (f: FunctionBuilder, x: Vector): { readonly shifted: Vector; readonly p: Vector } => {
  const shifted = f.let(multiplyAdd(x, Math.LOG2E, MAGIC));
  const n = f.let(f32x4.sub(shifted, MAGIC));
  const r = f.let(multiplyAdd(n, 2.1219444e-4, multiplyAdd(n, -0.693359375, x)));
  const p = horner(
    f,
    r,
    [1.98756915e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1, 1, 1],
  );
  return { shifted, p };
};
/** 2ⁿ for -127 ≤ n ≤ 127, where 2⁻¹²⁷ is 0, from n + 127 in the low bits; those above fall off */
const power = (shifted: Expr<'v128'>): Expr<'v128'> => i32x4.shl(shifted, 23);

/** exp, ≤ 2 ulp */
export const expF32x4: VectorFunction = (f, value) => {
  // pmax and pmin with x first keep NaN
  const x = f.let(f32x4.pmin(f32x4.pmax(value, LOWEST), 89));
  const { shifted, p } = expParts(f, x);
  // beyond 2¹²⁷ the result is doubled, so that it does not overflow before it must
  const large = f.let(f32x4.gt(x, LARGEST));
  f.set(p, f32x4.mul(p, power(i32x4.add(shifted, large))));
  return f.let(f32x4.add(p, v128.and(p, large)));
};
/** where n is -127, and where it is 127 for the last time */
const LOWEST = -88;
const LARGEST = 88.37;

/** exp for x ≤ 88.37, for arguments known to be bounded */
export const expBoundedF32x4: VectorFunction = (f, value) => {
  const { shifted, p } = expParts(f, f.let(f32x4.pmax(value, LOWEST)));
  return f.let(f32x4.mul(p, power(shifted)));
};

const exp2With =
  (polynomial: readonly number[]): VectorFunction =>
  (f, value) => {
    const x = f.let(f32x4.pmax(value, -127));
    const shifted = f.let(f32x4.add(x, MAGIC));
    const r = f.let(f32x4.sub(x, f32x4.sub(shifted, MAGIC)));
    return f.let(f32x4.mul(horner(f, r, polynomial), power(shifted)));
  };
/** 2^x for x ≤ 127, ≤ 2 ulp: cheaper than exp where a factor log₂e can go elsewhere */
export const exp2BoundedF32x4 = exp2With([
  1.5353361883195e-4, 1.339887440266574e-3, 9.61843735767464e-3, 5.550332471162809e-2, 2.402264791363012e-1,
  6.931472028550421e-1, 1,
]);
/** the same with a multiplication less, ≤ 2.5 ulp, exactly 1 at 0 */
export const exp2ShortF32x4 = exp2With([
  1.326472719717385e-3, 9.671512639645188e-3, 5.5507337432519316e-2, 2.402224208537512e-1, 6.931469775991631e-1, 1,
]);

/** natural logarithm, ≤ 2 ulp, denormals included: x = 2ᵉ·(1 + m) with √½ ≤ 1 + m < √2 */
export const logF32x4: VectorFunction = (f, value) => {
  const x = f.let(value);
  const tiny = f.let(f32x4.lt(x, 1.17549435e-38));
  const bits = f.let(v128.bitselect(f32x4.mul(x, 8388608), x, tiny));
  const fraction = f.let(v128.or(v128.and(bits, i32x4.splat(0x007fffff)), i32x4.splat(0x3f000000)));
  const low = f.let(f32x4.lt(fraction, Math.SQRT1_2));
  const m = f.let(f32x4.sub(f32x4.add(fraction, v128.and(fraction, low)), 1));
  // masks are -1 as integers: adding one counts down
  const exponent = i32x4.add(i32x4.sub(v128.and(i32x4.shr_u(bits, 23), i32x4.splat(255)), 126), low);
  const e = f.let(f32x4.convert_i32x4_s(i32x4.sub(exponent, v128.and(tiny, i32x4.splat(23)))));
  const z = f.let(f32x4.mul(m, m));
  const p = horner(
    f,
    m,
    [
      7.0376836292e-2, -1.151461031e-1, 1.167699874e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
      2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    ],
  );
  f.set(p, f32x4.sub(f32x4.mul(f32x4.mul(p, m), z), f32x4.mul(e, 2.1219444e-4)));
  f.set(p, f32x4.sub(p, f32x4.mul(z, 0.5)));
  f.set(p, f32x4.add(f32x4.add(m, p), f32x4.mul(e, 0.693359375)));
  f.set(p, v128.bitselect(x, p, v128.or(f32x4.ge(x, Infinity), f32x4.ne(x, x))));
  f.set(p, v128.bitselect(f32x4.const(NaN, NaN, NaN, NaN), p, f32x4.lt(x, 0)));
  f.set(p, v128.bitselect(f32x4.const(-Infinity, -Infinity, -Infinity, -Infinity), p, f32x4.eq(x, 0)));
  return p;
};

/** 2/π, 24 bits at a time: as far as the largest f32 reaches, with 64 bits to spare */
const TWO_OVER_PI = [0xa2f983, 0x6e4e44, 0x1529fc, 0x2757d1, 0xf534dd, 0xc0db62, 0x95993c, 0x439041].map(
  (bits, i) => bits * 2 ** (-24 * (i + 1)),
);
/**
 * x·2/π less a multiple of 4 (whole turns), to 2⁻⁴⁹, of an f32 held as f64 (after Payne and Hanek 1983): the product with
 * 24 bits of 2/π has 48 bits, so it and what remains of it are exact, and only the sum of the remainders is rounded.
 */
const quarters = (f: FunctionBuilder, x: Vector): Vector => {
  const total = f.local('v128');
  for (const [i, bits] of TWO_OVER_PI.entries()) {
    const p = f.let(f64x2.mul(x, bits));
    const rest = f64x2.sub(p, f64x2.mul(f64x2.nearest(f64x2.mul(p, 0.25)), 4));
    f.set(total, i === 0 ? rest : f64x2.add(total, rest));
  }
  return total;
};
/** up to here one rounding of x·2/π is good enough: the angle is right to 1e-11 */
const LARGE_ANGLE = 65536;

/**
 * Sine for `shift` 0, cosine for 1, for every finite x: the polynomials are within 2⁻²³ of it, and x − q·π/2 is taken in
 * f64, to 1e-11 below 2¹⁶ and to 2⁻⁴⁸ above.
 */
const quadrantF32x4 =
  (shift: 0 | 1): VectorFunction =>
  (f, value) => {
    const x = f.let(value);
    const halves = [x, f.let(v128.shuffle32(x, x, [2, 3, 2, 3]))].map((half) => {
      const w = f.let(f64x2.promote_low_f32x4(half));
      const q = f.let(f64x2.add(f64x2.mul(w, 2 / Math.PI), MAGIC_F64));
      return { w, q, r: f.let(f64x2.sub(w, f64x2.mul(f64x2.sub(q, MAGIC_F64), Math.PI / 2))) };
    });
    const large = f.let(f32x4.gt(f32x4.abs(x), LARGE_ANGLE));
    f.if(v128.any_true(large), () => {
      for (const [i, { w, q, r }] of halves.entries()) {
        const mask = f.let(v128.shuffle32(large, large, i === 0 ? [0, 0, 1, 1] : [2, 2, 3, 3]));
        const t = quarters(f, w);
        f.set(q, v128.bitselect(f64x2.add(t, MAGIC_F64), q, mask));
        f.set(r, v128.bitselect(f64x2.mul(f64x2.sub(t, f64x2.sub(q, MAGIC_F64)), Math.PI / 2), r, mask));
      }
    });
    const [low, high] = halves as [(typeof halves)[0], (typeof halves)[0]];
    const r = f.let(v128.shuffle32(f32x4.demote_f64x2_zero(low.r), f32x4.demote_f64x2_zero(high.r), [0, 1, 4, 5]));
    const k = f.let(i32x4.add(v128.shuffle32(low.q, high.q, [0, 2, 4, 6]), shift));
    const z = f.let(f32x4.mul(r, r));
    const s = horner(f, z, [-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1]);
    f.set(s, f32x4.add(f32x4.mul(f32x4.mul(s, z), r), r));
    const c = horner(f, z, [2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2]);
    f.set(c, f32x4.add(f32x4.sub(f32x4.mul(f32x4.mul(c, z), z), f32x4.mul(z, 0.5)), 1));
    const odd = i32x4.eq(v128.and(k, i32x4.splat(1)), 1);
    return f.let(v128.xor(v128.bitselect(c, s, odd), i32x4.shl(v128.and(k, i32x4.splat(2)), 30)));
  };
/** sine of radians */
export const sinF32x4: VectorFunction = quadrantF32x4(0);
/** cosine of radians */
export const cosF32x4: VectorFunction = quadrantF32x4(1);

/** hyperbolic tangent: a polynomial for |x| < 0.625, 1 − 2/(e^2|x| + 1) beyond */
export const tanhF32x4: VectorFunction = (f, value) => {
  const x = f.let(value);
  const size = f.let(f32x4.abs(x));
  const z = f.let(f32x4.mul(x, x));
  const p = horner(f, z, [-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1]);
  f.set(p, f32x4.add(f32x4.mul(f32x4.mul(p, z), x), x));
  // beyond 44 the result is 1 long since
  const e = expBoundedF32x4(f, f32x4.pmin(f32x4.add(size, size), LARGEST));
  const big = v128.or(f32x4.sub(1, f32x4.div(2, f32x4.add(e, 1))), signBit(x));
  return f.let(v128.bitselect(p, big, f32x4.lt(size, 0.625)));
};

/** error function: x·P(x²)/Q(x²) on [-4, 4], beyond which it is ±1 in f32 */
export const erfF32x4: VectorFunction = (f, value) => {
  const x = f.let(f32x4.pmin(f32x4.pmax(value, -4), 4));
  const z = f.let(f32x4.mul(x, x));
  const p = horner(
    f,
    z,
    [
      -2.72614225801306e-10, 2.77068142495902e-8, -2.10102402082508e-6, -5.69250639462346e-5, -7.34990630326855e-4,
      -2.95459980854025e-3, -1.60960333262415e-2,
    ],
  );
  const q = horner(
    f,
    z,
    [-1.45660718464996e-5, -2.13374055278905e-4, -1.68282697438203e-3, -7.37332916720468e-3, -1.42647390514189e-2],
  );
  return f.let(f32x4.div(f32x4.mul(x, p), q));
};

/** 1 + e^−x; from e^−88.37 on, where 1/(1 + e^−x) is denormal, it no longer grows */
const onePlusExp = (f: FunctionBuilder, x: Expr<'v128'>): Expr<'v128'> =>
  f32x4.add(expBoundedF32x4(f, f32x4.pmin(f32x4.neg(x), LARGEST)), 1);
/** logistic function 1/(1 + e^−x) */
export const sigmoidF32x4: VectorFunction = (f, value) => f.let(f32x4.div(1, onePlusExp(f, value)));

/** silu(x) = x/(1 + e^−x) */
export const siluF32x4 = (f: FunctionBuilder, x: Vector): Expr<'v128'> => f32x4.div(x, onePlusExp(f, x));

/** true where the exponent bits are not all ones */
export const isFiniteF32x4 = (x: Expr<'v128'>): Expr<'v128'> => f32x4.lt(f32x4.abs(x), Infinity);

/** Quotients of integers by way of f64, which holds them exactly: truncated towards zero, 0 for a division by zero. */
export const divideI32x4 = (f: FunctionBuilder, a: Expr<'v128'>, b: Expr<'v128'>, signed: boolean): Vector => {
  const [x, y] = [f.let(a), f.let(b)];
  const convert = signed ? f64x2.convert_low_i32x4_s : f64x2.convert_low_i32x4_u;
  const truncate = signed ? i32x4.trunc_sat_f64x2_s_zero : i32x4.trunc_sat_f64x2_u_zero;
  const upper = (v: Vector): Expr<'v128'> => v128.shuffle32(v, v, [2, 3, 2, 3]);
  const quotient = (p: Vec, q: Vec): Expr<'v128'> => truncate(f64x2.div(convert(p), convert(q)));
  const all = v128.shuffle32(quotient(x, y), quotient(upper(x), upper(y)), [0, 1, 4, 5]);
  // the one quotient beyond the range, −2³¹/−1, is −2³¹ as negation makes it
  const whole = signed ? v128.bitselect(i32x4.neg(x), all, i32x4.eq(y, -1)) : all;
  return f.let(v128.andnot(whole, i32x4.eq(y, 0)));
};
