/**
 * Explicit, counter-based randomness (Threefry-2x32-20; Salmon et al. 2011). A key is a u32[2] tensor; every number is a
 * pure function of key and position, so it maps, differentiates, re-materialises and replays.
 */
import { shapeError } from '../ir/errors.ts';
import { flatten } from '../ir/flatten.ts';
import { checkShape, checkWhole } from '../ir/rules.ts';
import { bind, type Primitive, type Shape, type Tensor } from '../ir/tensor.ts';
import { mapAll } from './batching.ts';
import { cast } from './cast.ts';
import { full, iota } from './fill.ts';
import { reshape } from './layout.ts';
import { cos, div, equal, log, mul, select, sqrt, sub } from './math.ts';
import { slice } from './slice.ts';

const rotations = [13, 15, 26, 6, 17, 29, 16, 24];
/** One block of Threefry-2x32 with 20 rounds: key (k0, k1), counter (c0, c1) → two random words. */
export function threefry(k0: number, k1: number, c0: number, c1: number): [number, number] {
  const ks = [k0 >>> 0, k1 >>> 0, (k0 ^ k1 ^ 0x1bd11bda) >>> 0];
  let x = (c0 + ks[0]!) >>> 0;
  let y = (c1 + ks[1]!) >>> 0;
  for (let round = 0; round < 20; round++) {
    const r = rotations[round % 8]!;
    x = (x + y) >>> 0;
    y = (((y << r) | (y >>> (32 - r))) ^ x) >>> 0;
    if (round % 4 === 3) {
      const s = (round + 1) / 4;
      x = (x + ks[s % 3]!) >>> 0;
      y = (y + ks[(s + 1) % 3]! + s) >>> 0;
    }
  }
  return [x, y];
}

/** What the words of a key are used for: each use reads a stream of its own. */
export const [DRAW, SPLIT, FOLD] = [0, 1, 2];
export interface BitsAttrs {
  /** words per key */
  readonly count: number;
  /** DRAW, SPLIT or FOLD */
  readonly stream: number;
}
/** randomBits: key[…k, 2] u32, offset[…k] u32 → y[…k, count] u32; words 2i, 2i+1 are block (offset + i, stream). */
export const randomBitsOp: Primitive<BitsAttrs> = {
  kind: 'primitive',
  name: 'randomBits',
  doc: 'random words from a key (Threefry-2x32-20)',
  formula: 'y[…, 2i…2i+1] = threefry(key, (offset + i, stream))',
  form: { kind: 'kernel' },
  shape(inputs, a) {
    const [key, offset] = inputs;
    const lead = key!.shape.slice(0, -1);
    if (
      key!.dtype !== 'u32' ||
      key!.shape.at(-1) !== 2 ||
      offset!.dtype !== 'u32' ||
      lead.length !== offset!.shape.length
    )
      throw shapeError('randomBits', inputs, 'operands must be key u32[…, 2] and offset u32[…]');
    if (lead.some((n, i) => n !== offset!.shape[i]))
      throw shapeError('randomBits', inputs, 'operands must be key u32[…, 2] and offset u32[…]');
    checkWhole('randomBits', inputs, 'the number of words', [a.count]);
    return { shape: [...lead, a.count], dtype: 'u32' };
  },
  vjp: 'nondifferentiable',
  batch: (size, inputs, mapped, a) => [bind(randomBitsOp, mapAll(size, inputs, mapped), a)],
  cpu([key, offset], a, [y]) {
    const keys = flatten(key!);
    const offsets = flatten(offset!);
    for (let r = 0; r < offsets.length; r++)
      for (let i = 0; i < a.count; i += 2) {
        const [u, v] = threefry(keys[2 * r]!, keys[2 * r + 1]!, (offsets[r]! + i / 2) >>> 0, a.stream);
        y!.data[r * a.count + i] = u;
        if (i + 1 < a.count) y!.data[r * a.count + i + 1] = v;
      }
  },
  sample: (pick) => ({
    operands: [
      { shape: [3, 2], dtype: 'u32', range: [0, 1e6] },
      { shape: [3], dtype: 'u32', range: [0, 100] },
    ],
    attrs: { count: pick(1, 5), stream: pick(0, 2) },
  }),
};

/** A random key: u32[2]. Draw from each key once (`checkKeys` finds who does not); `splitKey` or `fold` it to get more. */
export type Key = Tensor;
const words = (key: Key, count: number, stream: number, offset?: Tensor): Tensor =>
  bind(randomBitsOp, [key, offset ?? full(key.shape.slice(0, -1), 0, 'u32')], { count, stream });

/** `key(42)` → u32[2] from an integer seed (53 bits are used). Cost: none, the words are constants. */
export function key(seed: number): Key {
  checkWhole('key', [], 'seeds', [seed], Number.MIN_SAFE_INTEGER);
  const low = seed >>> 0;
  const high = Math.floor(seed / 2 ** 32) >>> 0;
  return select(equal(iota([2], 0, 'u32'), 0), full([2], high, 'u32'), full([2], low, 'u32'));
}

/** `splitKey(key, n)`: n independent keys, u32[n, 2] (jax.random.split). */
export const splitKey = (k: Key, n = 2): Tensor => reshape(words(k, 2 * n, SPLIT), [n, 2]);
/** The keys of `splitKey` one by one: `const [a, b] = keys(k, 2)`. */
export const keys = (k: Key, n = 2): Key[] =>
  Array.from({ length: n }, (_, i) => reshape(slice(splitKey(k, n), { axis: 0, start: i, stop: i + 1 }), [2]));
/** `fold(key, data)`: a new key from a key and a number (a step, an index); data may be a u32 scalar tensor. */
export const fold = (k: Key, data: number | Tensor): Key =>
  words(k, 2, FOLD, typeof data === 'number' ? full([], data >>> 0, 'u32') : data);

/** `bits(k, [2, 3])` → u32[2,3] of random words. Cost: half a Threefry block (20 rounds) a word. */
export function bits(k: Key, shape: Shape): Tensor {
  checkShape('bits', [k], shape);
  return reshape(
    words(
      k,
      shape.reduce((p, q) => p * q, 1),
      DRAW,
    ),
    shape,
  );
}
/** `uniform(k, [2, 3])` → f32[2,3] in [0, 1), 23 random bits each. Cost: half a Threefry block (20 rounds) a number. */
export function uniform(k: Key, shape: Shape): Tensor {
  checkShape('uniform', [k], shape);
  const n = shape.reduce((p, q) => p * q, 1);
  // the top 23 bits as an integer, exact in f32
  const top = cast(div(bits(k, [n]), 512), 'f32');
  return reshape(mul(top, 2 ** -23), shape);
}
/**
 * `normal(k, [2, 3])` → f32[2,3], standard normal: √(−2 ln u₁)·cos(2π u₂) (Box–Muller 1958).
 * Cost: two uniform numbers, a logarithm and a cosine a number.
 */
export function normal(k: Key, shape: Shape): Tensor {
  checkShape('normal', [k], shape);
  const n = shape.reduce((p, q) => p * q, 1);
  const u = uniform(k, [2, n]);
  const u1 = sub(1, reshape(slice(u, { axis: 0, start: 0, stop: 1 }), [n])); // (0, 1]
  const u2 = reshape(slice(u, { axis: 0, start: 1, stop: 2 }), [n]);
  const radius = sqrt(mul(-2, log(u1)));
  return reshape(mul(radius, cos(mul(2 * Math.PI, u2))), shape);
}
