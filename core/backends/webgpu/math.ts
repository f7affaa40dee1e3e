/**
 * The elementwise table as WGSL, for single values and for vec4. WGSL's own transcendental functions may be as coarse as
 * 2^-11 and its comparisons may drop NaN, so those are written out here (polynomials: Cephes, S. L. Moshier; erf:
 * N. Juffa) and NaN is found by its bits.
 */
import { type DType, isStored } from '../../ir/dtype.ts';
import type { ElementwiseName } from '../../ops/elementwise.ts';

/** How many neighbouring elements a value of the kernel holds. */
export type Width = 1 | 4;

const scalarType: Readonly<Partial<Record<DType, string>>> = {
  f32: 'f32',
  i32: 'i32',
  u32: 'u32',
  bool: 'bool',
};

/** WGSL type of a value in registers. @throws RangeError for f64, which GPUs lack, and for stored types */
export const typeName = (dtype: DType, width: Width): string => {
  if (isStored(dtype)) throw new RangeError(`${dtype} is storage: its kernels read it as u32 words`);
  const type = scalarType[dtype];
  if (!type) throw new RangeError(`the webgpu backend computes in f32; ${dtype} runs on the cpu backend only`);
  return width === 1 ? type : `vec4<${type}>`;
};
/** WGSL type of an element in memory: bool is kept as 0/1 in a u32. */
export const storageType = (dtype: DType, width: Width): string => typeName(dtype === 'bool' ? 'u32' : dtype, width);

const horner = (x: string, ...c: readonly string[]): string =>
  c.slice(1).reduce((p, k) => `(${p} * ${x} + ${k})`, c[0]!);

/** Helper functions by name; each may call the ones above it. `T` `U` `I` `B` stand for the types of one width. */
const helpers: Readonly<Record<string, string>> = {
  isNan: `fn isNan_W(x: T) -> B { return (bitcast<U>(x) & U(0x7fffffffu)) > U(0x7f800000u); }`,
  isFinite: `fn isFinite_W(x: T) -> B { return (bitcast<U>(x) & U(0x7f800000u)) != U(0x7f800000u); }`,
  max: `fn max_W(a: T, b: T) -> T { return select(max(a, b), a + b, isNan_W(a) | isNan_W(b)); }`,
  min: `fn min_W(a: T, b: T) -> T { return select(min(a, b), a + b, isNan_W(a) | isNan_W(b)); }`,
  less: `fn less_W(a: T, b: T) -> B { return (a < b) & !(isNan_W(a) | isNan_W(b)); }`,
  equal: `fn equal_W(a: T, b: T) -> B { return (a == b) & !(isNan_W(a) | isNan_W(b)); }`,
  // e^x = 2^n · e^r with |r| <= ln2/2; 2^n in two factors so that neither overflows before the product does. Adding
  // 1.5·2^23 rounds, and leaves n in the low bits: round() and floor() are slow on software drivers
  exp: `fn exp_W(x: T) -> T {
  let c = clamp(x, T(-104.0), T(89.0));
  let n = bitcast<I>(c * 1.44269504 + 12582912.0) - I(0x4b400000);
  let r = (c - T(n) * 0.693359375) + T(n) * 2.12194440e-4;
  let y = ${horner('r', '1.9875691500e-4', '1.3981999507e-3', '8.3334519073e-3', '4.1665795894e-2', '1.6666665459e-1', '5.0000001201e-1')} * (r * r) + r + 1.0;
  let h = n >> U(1u);
  let s = bitcast<T>((h + 127) << U(23u));
  let t = bitcast<T>((n - h + 127) << U(23u));
  return select(y * s * t, x, isNan_W(x));
}`,
  // x = 2^e · (1 + m) with sqrt(1/2) <= 1 + m < sqrt(2); subnormals (which arithmetic may take for zero) become the number
  // that their bits are, x·2^149; zero, negatives and non-finite values are set by bits
  log: `fn log_W(x: T) -> T {
  let a = bitcast<U>(x);
  let tiny = a < U(0x00800000u);
  let b = select(a, bitcast<U>(T(a)), tiny);
  let f = bitcast<T>((b & U(0x007fffffu)) | U(0x3f000000u));
  let low = f < T(0.707106781);
  let m = select(f, f + f, low) - 1.0;
  let e = T((b >> U(23u)) & U(0xffu)) - 126.0 - select(T(0.0), T(1.0), low) - select(T(0.0), T(149.0), tiny);
  let z = m * m;
  let y = ${horner('m', '7.0376836292e-2', '-1.1514610310e-1', '1.1676998740e-1', '-1.2420140846e-1', '1.4249322787e-1', '-1.6668057665e-1', '2.0000714765e-1', '-2.4999993993e-1', '3.3333331174e-1')} * m * z - e * 2.12194440e-4 - 0.5 * z;
  let zero = (a & U(0x7fffffffu)) == U(0u);
  let negative = a > U(0x7fffffffu);
  let edge = bitcast<T>(a | select(select(U(0u), U(0x7fc00000u), negative), U(0xff800000u), zero));
  return select((m + y) + e * 0.693359375, edge, zero | negative | !isFinite_W(x));
}`,
  // x mod pi/2 of a large number, exactly (Payne and Hanek 1983): 96 bits of 2/pi from its exponent on times its 24 bits,
  // of which the low 96 bits are the quadrant (two) and the fraction. Returns the rest and the quadrant as a float
  large: `const twoOverPi = array<u32, 9>(0u, 0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu);
fn highWord(a: u32, b: u32) -> u32 {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let mid = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let cross = (a & 0xffffu) * (b >> 16u) + (mid & 0xffffu);
  return (a >> 16u) * (b >> 16u) + (mid >> 16u) + (cross >> 16u);
}
fn bitsOfTwoOverPi(at: u32) -> u32 {
  var words = twoOverPi;
  let shift = at & 31u;
  let word = words[at >> 5u];
  if (shift == 0u) { return word; }
  return (word << shift) | (words[(at >> 5u) + 1u] >> (32u - shift));
}
fn large_1(x: f32) -> vec2<f32> {
  let a = bitcast<u32>(x);
  let mantissa = (a << 8u) | 0x80000000u;
  // 2^(exponent − 126)·2/pi begins 34 bits before the point; two words of zeros come first
  let first = ((a >> 23u) & 0xffu) - 96u;
  let w0 = bitsOfTwoOverPi(first);
  let w1 = bitsOfTwoOverPi(first + 32u);
  let w2 = bitsOfTwoOverPi(first + 64u);
  let low = mantissa * w1;
  let r1 = highWord(mantissa, w2) + low;
  let r0 = highWord(mantissa, w1) + mantissa * w0 + select(0u, 1u, r1 < low);
  let fraction = (r0 << 2u) | (r1 >> 30u);
  let quarter = (r0 >> 30u) + (fraction >> 31u);
  let rest = (f32(bitcast<i32>(fraction)) + f32(r1 << 2u) * 2.3283064365386963e-10) * 2.3283064365386963e-10;
  let way = select(1.0, -1.0, (a >> 31u) == 1u);
  return vec2<f32>(way * rest * 1.5707963267948966, way * f32(quarter));
}`,
  // r = x - q·pi/2 in three parts (exact for |q| < 2^16), then the polynomial of the quadrant
  quadrant: `fn quadrant_W(x: T, shift: i32) -> T {
  var q = round(x * 0.636619772);
  var r = ((x - q * 1.5703125) - q * 4.837512969970703e-4) - q * 7.549789954891882e-8;
  LARGE
  let z = r * r;
  let s = ${horner('z', '-1.9515295891e-4', '8.3321608736e-3', '-1.6666654611e-1')} * z * r + r;
  let c = ${horner('z', '2.443315711809948e-5', '-1.388731625493765e-3', '4.166664568298827e-2')} * z * z - 0.5 * z + 1.0;
  let k = I(q) + shift;
  let y = select(s, c, (k & I(1)) == I(1));
  return select(y, -y, (k & I(2)) == I(2));
}`,
  sin: 'fn sin_W(x: T) -> T { return quadrant_W(x, 0); }',
  cos: 'fn cos_W(x: T) -> T { return quadrant_W(x, 1); }',
  tanh: `fn tanh_W(x: T) -> T {
  let z = x * x;
  let small = ${horner('z', '-5.70498872745e-3', '2.06390887954e-2', '-5.37397155531e-2', '1.33314422036e-1', '-3.33332819422e-1')} * z * x + x;
  let big = 1.0 - 2.0 / (exp_W(2.0 * abs(x)) + 1.0);
  return select(small, sign(x) * big, abs(x) >= T(0.625));
}`,
  erf: `fn erf_W(x: T) -> T {
  let t = abs(x);
  let s = x * x;
  let small = ${horner('s', '-5.96761703e-4', '4.99119423e-3', '-2.67681349e-2', '1.12819925e-1', '-3.76125336e-1', '1.28379166e-1')} * x + x;
  let c = min(t, T(4.0));
  let p = ${horner('(c * c)', '(-1.72853470e-5 * c + 3.83197126e-4)', '(-3.88396438e-3 * c + 2.42546219e-2)')};
  let big = 1.0 - exp_W(${horner('c', 'p', '-1.06777877e-1', '-6.34846687e-1', '-1.28717512e-1')} * c - c);
  return select(small, sign(x) * big, t > T(0.921875));
}`,
  // integers: n/0 = 0 (WGSL's is n)
  divideI: 'fn divideI_W(a: I, b: I) -> I { return select(a / select(b, I(1), b == I(0)), I(0), b == I(0)); }',
  divideU: 'fn divideU_W(a: U, b: U) -> U { return select(a / select(b, U(1u), b == U(0u)), U(0u), b == U(0u)); }',
  // floats beyond the range give the nearest bound, NaN gives 0
  toI: `fn toI_W(x: T) -> I {
  let inside = I(clamp(x, T(-2147483648.0), T(2147483520.0)));
  return select(select(inside, I(2147483647), x >= T(2147483648.0)), I(0), isNan_W(x));
}`,
  toU: `fn toU_W(x: T) -> U {
  let inside = U(clamp(x, T(0.0), T(4294967040.0)));
  return select(select(inside, U(0xffffffffu), x >= T(4294967296.0)), U(0u), isNan_W(x));
}`,
  // by bits: neither zero nor NaN; arithmetic may take subnormals for zero
  toB: 'fn toB_W(x: T) -> B { return ((bitcast<U>(x) & U(0x7fffffffu)) - U(1u)) < U(0x7f800000u); }',
  sigmoid: 'fn sigmoid_W(x: T) -> T { return 1.0 / (1.0 + exp_W(-x)); }',
};

/** each part of a vector that is large is reduced alone */
const largeParts: Readonly<Record<Width, string>> = {
  1: 'if (abs(x) > 65536.0 && isFinite_1(x)) { let part = large_1(x); r = part.x; q = part.y; }',
  4: `if (any((abs(x) > vec4<f32>(65536.0)) & isFinite_4(x))) {
    for (var i = 0u; i < 4u; i++) {
      if (abs(x[i]) > 65536.0 && isFinite_1(x[i])) { let part = large_1(x[i]); r[i] = part.x; q[i] = part.y; }
    }
  }`,
};

/** Text of the helpers named in `text`, and of those they call, for both widths where asked. */
export const helperText = (text: string): string => {
  const names = Object.keys(helpers).reverse();
  let out = '';
  // helpers for four may call those for one
  for (const width of [4, 1] as const)
    for (const name of names)
      if (`${text}${out}`.includes(`${name}_${width}(`))
        out = `${helpers[name]!.replace('LARGE', largeParts[width])
          .replaceAll('_W(', `_${width}(`)
          .replace(/\b[TUIB]\b/g, (t) =>
            typeName(({ T: 'f32', U: 'u32', I: 'i32', B: 'bool' } as const)[t as 'T'], width),
          )}\n${out}`;
  return out;
};

type Print = (x: readonly string[], width: Width, operand: DType) => string;
const helper =
  (name: string): Print =>
  (x, width) =>
    `${name}_${width}(${x.join(', ')})`;
const infix =
  (op: string): Print =>
  ([a, b]) =>
    `(${a} ${op} ${b})`;
/** floats need the NaN-proof helper, integers the builtin */
const byKind =
  (float: Print, integer: Print): Print =>
  (x, width, operand) =>
    (operand === 'f32' ? float : integer)(x, width, operand);

/** Every row of the elementwise table; a missing one is a type error. */
const rows: Readonly<Record<ElementwiseName, Print>> = {
  neg: ([x], _width, operand) => (operand === 'u32' ? `(~${x} + 1u)` : `(-${x})`),
  exp: helper('exp'),
  log: helper('log'),
  sqrt: ([x]) => `sqrt(${x})`,
  rsqrt: ([x]) => `inverseSqrt(${x})`,
  recip: ([x]) => `(1.0 / ${x})`,
  sin: helper('sin'),
  cos: helper('cos'),
  tanh: helper('tanh'),
  erf: helper('erf'),
  sigmoid: helper('sigmoid'),
  floor: byKind(
    ([x]) => `floor(${x})`,
    ([x]) => x!,
  ),
  not: ([x]) => `(!${x})`,
  isFinite: byKind(helper('isFinite'), ([x]) => `(${x} == ${x})`),
  add: infix('+'),
  sub: infix('-'),
  mul: (x, width, operand) => infix(operand === 'bool' ? '&' : '*')(x, width, operand),
  div: (x, width, operand) =>
    operand === 'f32'
      ? infix('/')(x, width, operand)
      : helper(operand === 'i32' ? 'divideI' : 'divideU')(x, width, operand),
  maximum: byKind(helper('max'), (x, width, operand) =>
    operand === 'bool' ? infix('|')(x, width, operand) : `max(${x.join(', ')})`,
  ),
  minimum: byKind(helper('min'), (x, width, operand) =>
    operand === 'bool' ? infix('&')(x, width, operand) : `min(${x.join(', ')})`,
  ),
  less: byKind(helper('less'), infix('<')),
  equal: byKind(helper('equal'), infix('==')),
  select: ([c, a, b]) => `select(${b}, ${a}, ${c})`,
};

/** The WGSL expression of a value in another dtype. */
export const printCast = (x: string, from: DType, to: DType, width: Width): string => {
  if (from === 'f32' && to !== 'f32') return `${{ i32: 'toI', u32: 'toU', bool: 'toB' }[to as 'i32']}_${width}(${x})`;
  if (from === to) return x;
  return to === 'bool' ? `(${x} != ${typeName(from, width)}(0))` : `${typeName(to, width)}(${x})`;
};

/**
 * The WGSL expression of one call, on operands of one dtype (the first one's).
 * @throws RangeError when the function has no row
 */
export const printCall = (fn: string, args: readonly string[], operand: DType, width: Width): string => {
  const print = rows[fn as ElementwiseName];
  if (!print) throw new RangeError(`the webgpu backend has no elementwise function "${fn}"`);
  return print(args, width, operand);
};
