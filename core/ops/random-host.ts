/**
 * Seeded random numbers on the host, for data, splits and batches, where a number decides what is computed at all. A
 * key is a value: the same key gives the same numbers on every machine, and `subkey` makes a new key instead of
 * advancing a hidden state. The blocks are those of `random.ts` (Threefry-2x32 with 20 rounds).
 */
import { threefry } from './random.ts';

/** A 64-bit key as two 32-bit words, the low one first. */
export type SeedKey = readonly [number, number];

/**
 * The key of a whole-number seed.
 * @throws RangeError when the seed is not a whole number in 0..2⁵³-1.
 */
export function seedKey(seed: number): SeedKey {
  if (!Number.isSafeInteger(seed) || seed < 0) throw new RangeError(`seed ${seed}: expected a whole number >= 0`);
  return [seed >>> 0, Math.floor(seed / 2 ** 32)];
}

/** `subkey(key, 'split')`: a new key from a key and a name or number; different names give independent keys. */
export function subkey(key: SeedKey, data: string | number): SeedKey {
  if (typeof data === 'number') {
    return threefry(key[0], key[1], ...seedKey(data));
  }
  // Eight bytes at a time; the length goes in first, so that no padded text equals another one. The bit at the top of
  // the second word (no number reaches it) keeps names apart from numbers.
  const bytes = new TextEncoder().encode(data);
  let folded: SeedKey = threefry(key[0], key[1], bytes.length, 0x80000000);
  for (let at = 0; at < bytes.length; at += 8) {
    const word = (from: number) =>
      [0, 1, 2, 3].reduce((value, byte) => value | ((bytes[from + byte] ?? 0) << (8 * byte)), 0) >>> 0;
    folded = threefry(folded[0], folded[1], word(at), word(at + 4));
  }
  return folded;
}

/** A stream of numbers drawn one after another from one key. Keep it local to the function that draws. */
export type Random = {
  /** Uniform in [low, high), 53 bits. */
  readonly uniform: (low?: number, high?: number) => number;
  /** Normal with mean 0. */
  readonly normal: (deviation?: number) => number;
  /** Whole number in [0, below). */
  readonly int: (below: number) => number;
  /** True with the given probability. */
  readonly chance: (probability: number) => boolean;
  /** One of the values, all equally likely. */
  readonly choice: <T>(values: readonly T[]) => T;
  /** Index drawn with probability proportional to the weights. */
  readonly weighted: (weights: readonly number[]) => number;
  /** A shuffled copy (Fisher-Yates). */
  readonly shuffle: <T>(values: readonly T[]) => readonly T[];
};

/**
 * A stream of draws from a key; the i-th draw depends on the key and the draws before it only.
 * @example const r = randomOf(subkey(seedKey(7), 'phantom')); r.uniform(0, 1);
 */
export function randomOf(key: SeedKey): Random {
  let counter = 0;
  let spare: number | undefined;
  const block = () => threefry(key[0], key[1], counter >>> 0, Math.floor(counter++ / 2 ** 32));
  const unit = () => {
    const [a, b] = block();
    return ((a >>> 5) * 2 ** 26 + (b >>> 6)) / 2 ** 53;
  };
  const uniform = (low = 0, high = 1) => low + (high - low) * unit();
  const int = (below: number) => Math.floor(unit() * below);
  const normal = (deviation = 1) => {
    if (spare !== undefined) {
      const value = spare * deviation;
      spare = undefined;
      return value;
    }
    // Box-Muller; the half step keeps the logarithm finite.
    const [a, b] = block();
    const radius = Math.sqrt(-2 * Math.log((a + 0.5) / 2 ** 32));
    const angle = (2 * Math.PI * b) / 2 ** 32;
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle) * deviation;
  };
  const choice = <T>(values: readonly T[]): T => {
    if (values.length === 0) throw new RangeError('choice: expected at least one value');
    return values[int(values.length)]!;
  };
  const weighted = (weights: readonly number[]) => {
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    let left = unit() * total;
    const found = weights.findIndex((weight) => {
      left -= weight;
      return left < 0;
    });
    return found < 0 ? weights.length - 1 : found;
  };
  const shuffle = <T>(values: readonly T[]): readonly T[] => {
    const copy = [...values];
    for (let last = copy.length - 1; last > 0; last--) {
      const other = int(last + 1);
      [copy[last], copy[other]] = [copy[other]!, copy[last]!];
    }
    return copy;
  };
  return { uniform, normal, int, chance: (p) => unit() < p, choice, weighted, shuffle };
}
