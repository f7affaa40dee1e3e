/** Shared by the tests of the WASM kernels: reproducible numbers and the bounds of rounding. */
import type { Machine } from '../../core/backends/wasm/machine/machine.ts';
import type { Source } from '../../core/backends/wasm/product/pack.ts';
import { floatToHalf, halfToFloat } from '../../models/io/dtypes.ts';

/** unit roundoff of f32 */
export const U32 = 2 ** -24;
/** A sum of n terms stays within λ·√n·u·Σ|terms| with probability 1 - 2n·e^(-λ²/2) per element (Higham and Mary 2019). */
export const LAMBDA = 4;

/** `count` numbers in [-1, 1) from `seed` (mulberry32) */
export const random = (seed: number, count: number): Float32Array => {
  let state = seed | 0;
  return Float32Array.from({ length: count }, () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1;
  });
};

/** how a kernel is given a matrix: any f32, f32 that are halves, halves, or halves in the memory outside */
export const SOURCES = ['f32', 'f32 of halves', 'halves', 'halves outside'] as const;
export type MatrixSource = (typeof SOURCES)[number];

/** Places numbers the way `source` says. @returns what a kernel is told, the numbers it must see, and how to free them */
export const placeMatrix = (machine: Machine, values: Float32Array, source: MatrixSource) => {
  const halves = floatToHalf(values);
  const seen = source === 'f32' ? values : halfToFloat(halves);
  const bits = source.startsWith('f32') ? seen : halves;
  const outside = source === 'halves outside';
  const heap = outside ? machine.outside : machine;
  // what lies before and behind is no number
  const guard = 64;
  const block = heap.alloc(bits.byteLength + 2 * guard);
  heap.u8.fill(0xff, block, block + bits.byteLength + 2 * guard);
  heap.u8.set(new Uint8Array(bits.buffer, bits.byteOffset, bits.byteLength), block + guard);
  const from: Source = { type: bits === halves ? 'f16' : 'f32', outside };
  return { from, address: block + guard, seen, free: () => heap.free(block) };
};
