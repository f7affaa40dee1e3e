/**
 * Low-rank adapters as immutable trees addressed by module path: W = W0 + s·A·B with A[d_in, r], B[r, d_out].
 * The scale s is one constant of the run: a scale that followed the rank would change the output at every expansion.
 */
import { randomOf, type Tensor, tensor, threefry } from '../core/index.ts';

/** One low-rank addition: A[d_in, r] and B[r, d_out] of one linear layer. */
export type Adapter = {
  /** [d_in, r] */
  readonly A: Tensor;
  /** [r, d_out] */
  readonly B: Tensor;
};
/** module path → adapter, e.g. `down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k` */
export type Adapters = { readonly [path: string]: Adapter };

/** r of A[d_in, r]. */
export const rankOf = (a: Adapter): number => a.A.shape[1]!;
/** Σ r over all modules: what a rank budget limits. */
export const totalRank = (adapters: Adapters): number => Object.values(adapters).reduce((n, a) => n + rankOf(a), 0);
/** Trainable numbers: Σ r·(d_in + d_out). */
export const parameterCount = (adapters: Adapters): number =>
  Object.values(adapters).reduce((n, { A, B }) => n + rankOf({ A, B }) * (A.shape[0]! + B.shape[1]!), 0);

/** A host-side random key: two words. Draws of different paths and steps are independent (Threefry folding). */
export type HostKey = readonly [number, number];
/** `hostKey(7)`: the key of a seed (53 bits are used). */
export const hostKey = (seed: number): HostKey => [Math.floor(seed / 2 ** 32) >>> 0, seed >>> 0];
/** `foldKey(key, 'down_blocks.0…', 40)`: a key from a key and names or numbers. */
export function foldKey(key: HostKey, ...data: readonly (string | number)[]): HostKey {
  let k = key;
  for (const d of data) {
    if (typeof d === 'number') k = threefry(k[0], k[1], d >>> 0, 0x5e10);
    else {
      // FNV-1a over the UTF-16 units, then one threefry block
      let h = 0x811c9dc5;
      for (let i = 0; i < d.length; i++) h = Math.imul(h ^ d.charCodeAt(i), 0x01000193) >>> 0;
      k = threefry(k[0], k[1], h, d.length);
    }
  }
  return k;
}
/** A key as 16 hexadecimal digits, for logs: which draw a candidate came from. */
export const keyText = (k: HostKey): string => k.map((w) => w.toString(16).padStart(8, '0')).join('');

/** Init gain: `a` of Kaiming's leaky slope. 0 (the authors') gives variance 2/d_in, √5 (PEFT's) gives 1/(3·d_in). */
export interface KaimingGain {
  /** a */
  readonly a: number;
}
/**
 * Kaiming-uniform numbers: U(−b, b), b = √(6/((1 + a²)·fan_in)).  n numbers, f32.
 * λ means nothing without `a`: at equal λ the two usual gains differ by a factor 6 in (ratio − 1).
 */
export function kaimingUniform(key: HostKey, fanIn: number, n: number, gain: KaimingGain): Float32Array {
  const bound = Math.sqrt(6 / ((1 + gain.a * gain.a) * fanIn));
  const out = new Float32Array(n);
  for (let i = 0; i < n; i += 2) {
    const [u, v] = threefry(key[0], key[1], i / 2, 0);
    out[i] = ((u + 0.5) / 2 ** 32) * 2 * bound - bound;
    if (i + 1 < n) out[i + 1] = ((v + 0.5) / 2 ** 32) * 2 * bound - bound;
  }
  return out;
}

/** n numbers of N(0, deviation²), f32. */
export function normalNumbers(key: HostKey, n: number, deviation = 1): Float32Array {
  const random = randomOf(key);
  return Float32Array.from({ length: n }, () => random.normal(deviation));
}

/** One adapter of rank r: A Kaiming-uniform, B zero, so that the model starts unchanged. */
export const initAdapter = (key: HostKey, dIn: number, dOut: number, rank: number, gain: KaimingGain): Adapter => ({
  A: tensor(kaimingUniform(key, dIn, dIn * rank, gain), [dIn, rank]),
  B: tensor(new Float32Array(rank * dOut), [rank, dOut]),
});

/** Adapters on the given linears, path → [d_out, d_in] (PyTorch's weight shape), of one rank or each of its own. */
export function initAdapters(
  key: HostKey,
  linears: ReadonlyMap<string, readonly [number, number]>,
  rank: number | ((path: string) => number),
  gain: KaimingGain,
): Adapters {
  const of = typeof rank === 'number' ? () => rank : rank;
  return Object.fromEntries(
    [...linears].map(([path, [dOut, dIn]]) => [path, initAdapter(foldKey(key, path, 0), dIn, dOut, of(path), gain)]),
  );
}
