/**
 * How weights lie in memory as NF4 with double quantisation (Dettmers et al., "QLoRA", 2023; bitsandbytes): 4 bits pick one
 * of 16 levels, quantiles of the normal distribution; 64 weights share a scale, their largest absolute value; the scales,
 * less their mean, are kept in 8 bits, and 256 of them share a scale of their own.
 *
 * One group of 16,384 weights after the other, each by itself, so that the place of any weight follows from its number
 * alone and views need no copy. Words of 32 bits: scale, mean, 64 with four scales' codes each, 2,048 with eight weights'
 * codes each (the first in the lowest bits); the last group ends with its last weight.
 */

/** weights that share a scale */
export const NF4_BLOCK = 64;
/** weights whose scales share a scale */
export const NF4_GROUP = 256 * NF4_BLOCK;
/** words of a group before the codes of its weights */
export const NF4_HEAD = 2 + 256 / 4;
/** words of a whole group: 4.13 bits a weight */
export const NF4_WORDS = NF4_HEAD + NF4_GROUP / 8;

/**
 * The 16 levels: a half of the mass of N(0, 1) cut into 8 parts, the other into 7, so that 0 is among them, and the
 * outermost brought to ±1. Values as bitsandbytes has them.
 */
export const NF4_LEVELS: readonly number[] = [
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
  -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
  0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
].map(Math.fround);

/** 10⁻⁶ … 1, as f32 */
export const NF4_DECADES: readonly number[] = Array.from({ length: 7 }, (_, i) => Math.fround(10 ** (i - 6)));

/**
 * The number in −1 … 1 that an 8-bit code of a scale stands for: sign, decade and equal steps within it (Dettmers et al.,
 * "8-bit Optimizers via Block-wise Quantization", 2022, dynamic tree quantisation). Every step is rounded to f32, so that
 * all backends agree.
 */
export function nf4ScaleCode(code: number): number {
  const p = Math.abs(code - 127);
  if (p === 0 || p === 128) return p / 128;
  const decade = 31 - Math.clz32(p);
  const step = (p - 2 ** decade + 0.5) / 2 ** decade;
  const size = Math.fround(Math.fround(Math.fround(0.1) + Math.fround(Math.fround(0.9) * step)) * NF4_DECADES[decade]!);
  return code < 127 ? -size : size;
}
const SCALE_CODES = Float32Array.from({ length: 256 }, (_, code) => nf4ScaleCode(code));

/** Words that so many weights take. */
export const nf4Words = (weights: number): number => Math.ceil(weights / NF4_GROUP) * NF4_HEAD + Math.ceil(weights / 8);

/** Middles between neighbours of a rising list: what is below the first is nearest to its first entry, and so on. */
const middles = (values: ArrayLike<number>): Float64Array =>
  Float64Array.from({ length: values.length - 1 }, (_, i) => (values[i]! + values[i + 1]!) / 2);
/** index of the nearest entry */
function nearest(between: Float64Array, x: number): number {
  let [low, high] = [0, between.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x > between[middle]!) low = middle + 1;
    else high = middle;
  }
  return low;
}
const LEVELS_BETWEEN = middles(NF4_LEVELS);
const CODES_BETWEEN = middles(SCALE_CODES);

/**
 * Finite weights as NF4, on the host. Cost: some 10 ns a weight; 4.13 bits of memory for each.
 * @example tensor(packNf4(weights), [320, 320], 'nf4')
 */
export function packNf4(weights: ArrayLike<number>): Uint32Array {
  const n = weights.length;
  const out = new Uint32Array(nf4Words(n));
  const blocks = Math.ceil(n / NF4_BLOCK);
  const largest = new Float32Array(blocks);
  let sum = 0;
  for (let b = 0; b < blocks; b++) {
    let most = 0;
    for (let i = b * NF4_BLOCK; i < Math.min(n, (b + 1) * NF4_BLOCK); i++) most = Math.max(most, Math.abs(weights[i]!));
    largest[b] = most;
    sum += most;
  }
  const mean = Math.fround(sum / Math.max(1, blocks));
  const floats = new Float32Array(out.buffer);
  const bytes = new Uint8Array(out.buffer);
  for (let first = 0, at = 0; first < n; first += NF4_GROUP, at += NF4_WORDS) {
    const [from, to] = [first / NF4_BLOCK, Math.min(blocks, (first + NF4_GROUP) / NF4_BLOCK)];
    let scale = 0;
    for (let b = from; b < to; b++) scale = Math.max(scale, Math.abs(Math.fround(largest[b]! - mean)));
    floats[at] = scale;
    floats[at + 1] = mean;
    for (let b = from; b < to; b++) {
      const share = scale === 0 ? 0 : Math.fround(largest[b]! - mean) / scale;
      bytes[4 * (at + 2) + b - from] = nearest(CODES_BETWEEN, share);
      const inverse = largest[b] === 0 ? 0 : 1 / largest[b]!;
      for (let i = b * NF4_BLOCK; i < Math.min(n, (b + 1) * NF4_BLOCK); i++) {
        const code = nearest(LEVELS_BETWEEN, weights[i]! * inverse);
        out[at + NF4_HEAD + ((i - first) >> 3)]! |= code << (4 * (i & 7));
      }
    }
  }
  return out;
}

/** The weight number i of packed ones, each step rounded to f32. */
export function nf4Value(words: ArrayLike<number>, i: number): number {
  const at = Math.floor(i / NF4_GROUP) * NF4_WORDS;
  const inside = i % NF4_GROUP;
  const block = inside >> 6;
  const code = (words[at + NF4_HEAD + (inside >> 3)]! >>> (4 * (inside & 7))) & 15;
  const scaleCode = (words[at + 2 + (block >> 2)]! >>> (8 * (block & 3))) & 255;
  const own = Math.fround(SCALE_CODES[scaleCode]! * asFloat(words[at]!));
  return Math.fround(NF4_LEVELS[code]! * Math.fround(own + asFloat(words[at + 1]!)));
}
const bits = new Uint32Array(1);
const float = new Float32Array(bits.buffer);
function asFloat(word: number): number {
  bits[0] = word;
  return float[0]!;
}
