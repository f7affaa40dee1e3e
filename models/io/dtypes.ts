/**
 * The number formats of safetensors files and their exact conversions.
 * Files are little-endian, and so is every machine that Node runs on with typed arrays used here.
 */

/** Bytes per value of every dtype that is read and written. */
export const DTYPE_BYTES = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  U16: 2,
  I16: 2,
  F16: 2,
  BF16: 2,
  U32: 4,
  I32: 4,
  F32: 4,
  U64: 8,
  I64: 8,
  F64: 8,
} as const;

export type FileDType = keyof typeof DTYPE_BYTES;

/** True for a name of the table. `Object.hasOwn`, because a file may say "constructor". */
export function isFileDType(name: unknown): name is FileDType {
  return typeof name === 'string' && Object.hasOwn(DTYPE_BYTES, name);
}

/** Typed arrays that values are read into. */
export type NumberArray = Float32Array | Float64Array | Int32Array;

/** Values to be written; Uint16Array holds raw 16-bit patterns and Uint8Array raw bytes of any dtype. */
export type Values = NumberArray | BigInt64Array | Uint16Array | Uint8Array;

/** The float32 bit pattern with the value of a half float's: all 65,536 are exact, NaN keeps its payload. */
function halfToFloatBits(h: number): number {
  const sign = (h & 0x8000) << 16;
  const exponent = (h >>> 10) & 31;
  const fraction = h & 0x3ff;
  if (exponent === 31) return sign | 0x7f800000 | (fraction << 13);
  if (exponent !== 0) return sign | ((exponent + 112) << 23) | (fraction << 13);
  if (fraction === 0) return sign;
  const shift = Math.clz32(fraction) - 21; // a subnormal half is a normal float: move its first bit into place
  return sign | ((113 - shift) << 23) | (((fraction << shift) & 0x3ff) << 13);
}

let halfTable: Uint32Array | undefined;

/** float32 bits of all half floats, built at first use (256 KiB): 10 times faster than the arithmetic. */
function halfBits(): Uint32Array {
  halfTable ??= Uint32Array.from({ length: 65536 }, (_, h) => halfToFloatBits(h));
  return halfTable;
}

/** Half-float patterns → float32 values, exact. Cost: one table look-up each. */
export function halfToFloat(halves: Uint16Array, out: Float32Array = new Float32Array(halves.length)): Float32Array {
  const table = halfBits();
  // Written as bits: a store as a number could turn a signalling NaN into a quiet one.
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = 0; i < halves.length; i++) bits[i] = table[halves[i]];
  return out;
}

/** float32 bits → the nearest half float, ties to even; above 65,504 + 16 → ∞; NaN stays NaN and keeps what fits. */
function floatBitsToHalf(x: number): number {
  const sign = (x >>> 16) & 0x8000;
  const abs = x & 0x7fffffff;
  if (abs > 0x7f800000) return sign | 0x7c00 | ((abs >>> 13) & 0x3ff || 0x200);
  if (abs >= 0x477ff000) return sign | 0x7c00;
  if (abs >= 0x38800000) return sign | ((abs - 0x38000000 + 0xfff + ((abs >>> 13) & 1)) >>> 13);
  if (abs <= 0x33000000) return sign; // 2⁻²⁵ is half of the smallest subnormal: the tie goes to zero
  const shift = 126 - (abs >>> 23);
  const mantissa = (abs & 0x7fffff) | 0x800000;
  const floor = mantissa >>> shift;
  const rest = mantissa & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return sign | (floor + (rest > half || (rest === half && (floor & 1) === 1) ? 1 : 0));
}

/** float32 values → half-float patterns, rounded to nearest, ties to even. */
export function floatToHalf(values: Float32Array, out = new Uint16Array(values.length)): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < bits.length; i++) out[i] = floatBitsToHalf(bits[i]);
  return out;
}

/** bfloat16 patterns → float32 values, exact: a bfloat16 is the upper half of a float32. */
export function bfloatToFloat(values: Uint16Array, out = new Float32Array(values.length)): Float32Array {
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = 0; i < values.length; i++) bits[i] = values[i] << 16;
  return out;
}

/** float32 values → bfloat16 patterns, rounded to nearest, ties to even; NaN stays NaN. */
export function floatToBfloat(values: Float32Array, out = new Uint16Array(values.length)): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < bits.length; i++) {
    const x = bits[i];
    const nan = (x & 0x7fffffff) > 0x7f800000;
    // The upper half alone of a NaN could be ∞ when its payload sits in the lower half.
    out[i] = nan ? (x >>> 16) | ((x >>> 16) & 0x7f ? 0 : 0x40) : (x + 0x7fff + ((x >>> 16) & 1)) >>> 16;
  }
  return out;
}

/**
 * The value of an E4M3 pattern as float32: sign, 4 bits of exponent (bias 7), 3 of fraction; all ones is NaN, ∞ there is none.
 * Source: Micikevicius et al. 2022, "FP8 formats for deep learning".
 */
function e4m3(byte: number): number {
  const [sign, exponent, fraction] = [byte & 0x80 ? -1 : 1, (byte >>> 3) & 15, byte & 7];
  if (exponent === 15 && fraction === 7) return Number.NaN;
  return sign * (exponent === 0 ? fraction * 2 ** -9 : (1 + fraction / 8) * 2 ** (exponent - 7));
}

let fp8Tables: { readonly F8_E4M3: Float32Array; readonly F8_E5M2: Float32Array } | undefined;

/** float32 values of the 256 patterns of a dtype of 8 bits. E5M2 is the upper half of a half float. */
function fp8Table(dtype: 'F8_E4M3' | 'F8_E5M2'): Float32Array {
  fp8Tables ??= {
    F8_E4M3: Float32Array.from({ length: 256 }, (_, byte) => e4m3(byte)),
    F8_E5M2: halfToFloat(Uint16Array.from({ length: 256 }, (_, byte) => byte << 8)),
  };
  return fp8Tables[dtype];
}

/** The typed array over `bytes` (aligned, exactly the values) that a dtype is stored as. */
function stored(dtype: FileDType, bytes: Uint8Array): ArrayLike<number> | BigInt64Array | BigUint64Array {
  const { buffer, byteOffset } = bytes;
  const count = bytes.byteLength / DTYPE_BYTES[dtype];
  switch (dtype) {
    case 'BOOL':
    case 'U8':
      return bytes;
    case 'F8_E4M3':
    case 'F8_E5M2': {
      const table = fp8Table(dtype);
      return Float32Array.from(bytes, (byte) => table[byte]!);
    }
    case 'I8':
      return new Int8Array(buffer, byteOffset, count);
    case 'U16':
      return new Uint16Array(buffer, byteOffset, count);
    case 'I16':
      return new Int16Array(buffer, byteOffset, count);
    case 'F16':
      return halfToFloat(new Uint16Array(buffer, byteOffset, count));
    case 'BF16':
      return bfloatToFloat(new Uint16Array(buffer, byteOffset, count));
    case 'U32':
      return new Uint32Array(buffer, byteOffset, count);
    case 'I32':
      return new Int32Array(buffer, byteOffset, count);
    case 'F32':
      return new Float32Array(buffer, byteOffset, count);
    case 'U64':
      return new BigUint64Array(buffer, byteOffset, count);
    case 'I64':
      return new BigInt64Array(buffer, byteOffset, count);
    case 'F64':
      return new Float64Array(buffer, byteOffset, count);
  }
}

/**
 * Stored bytes → numbers in `out` from index `start` on. Float32Array rounds F64 and wide integers to nearest;
 * Float64Array and Int32Array hold every value exactly or refuse it.
 * @param bytes whole values, aligned to the dtype's size
 * @returns the first problem in words, or undefined
 */
export function decodeInto(dtype: FileDType, bytes: Uint8Array, out: NumberArray, start: number): string | undefined {
  if (dtype === 'F16' && out instanceof Float32Array) {
    const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
    halfToFloat(halves, out.subarray(start, start + halves.length));
    return undefined;
  }
  const values = stored(dtype, bytes);
  if (out instanceof Int32Array && /^(F|BF)/.test(dtype)) return `holds ${dtype}, integers were expected`;
  if (values instanceof Float32Array && out instanceof Float32Array) {
    // As bits, for the sake of NaN payloads.
    new Uint32Array(out.buffer, out.byteOffset, out.length).set(
      new Uint32Array(values.buffer, values.byteOffset, values.length),
      start,
    );
    return undefined;
  }
  if (typeof values[0] !== 'bigint' && !(out instanceof Int32Array)) {
    out.set(values as ArrayLike<number>, start);
    return undefined;
  }
  const limit = out instanceof Int32Array ? 2 ** 31 : out instanceof Float64Array ? 2 ** 53 : Infinity;
  for (let i = 0; i < values.length; i++) {
    const value = Number(values[i]);
    if (value >= limit || value < -limit) return `holds ${values[i]}, which a ${out.constructor.name} cannot`;
    out[start + i] = value;
  }
  return undefined;
}

/**
 * Numbers → the bytes of a dtype; the array's own bytes (no copy) where it already holds them.
 * @throws RangeError for a pair without an exact or correctly rounded conversion (a mistake in the program)
 */
export function encodeValues(dtype: FileDType, values: Values): Uint8Array {
  const raw = (view: ArrayBufferView) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  if (values instanceof Uint8Array) return values;
  if (values instanceof Uint16Array && DTYPE_BYTES[dtype] === 2) return raw(values);
  if (values instanceof Float32Array) {
    if (dtype === 'F32') return raw(values);
    if (dtype === 'F16') return raw(floatToHalf(values));
    if (dtype === 'BF16') return raw(floatToBfloat(values));
    if (dtype === 'F64') return raw(Float64Array.from(values));
  }
  if (values instanceof Float64Array) {
    if (dtype === 'F64') return raw(values);
    if (dtype === 'F32') return raw(Float32Array.from(values));
  }
  if (values instanceof Int32Array) {
    if (dtype === 'I32') return raw(values);
    if (dtype === 'I64') return raw(BigInt64Array.from(values, BigInt));
  }
  if (values instanceof BigInt64Array && dtype === 'I64') return raw(values);
  throw new RangeError(`cannot store a ${values.constructor.name} as ${dtype}`);
}
