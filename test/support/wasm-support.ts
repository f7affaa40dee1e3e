/** Shared by the tests of the WASM kernels: reproducible numbers and the bounds of rounding. */

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
