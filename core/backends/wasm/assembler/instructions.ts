/**
 * The WebAssembly instructions the kernels use, as typed functions named like the text format: `i32.add(a, b)`,
 * `f32x4.mul(x, 0.5)`, `v128.load(p, 16)`. Each returns an {@link Expr} (code that leaves one value) or a {@link Stmt}
 * (code that leaves none). A JS number stands for a constant; for `f32x4`/`i32x4` it is repeated in every lane.
 *
 * An `Expr` is code, not a value: used twice it is computed twice. Keep shared values in a local (`f.let(expr)`).
 *
 * Source: WebAssembly core specification 2.0, chapter 5.4, with the threads and relaxed-SIMD proposals.
 */
export type { Expr, Num, Stmt, ValType, Vec } from './encode.ts';
export * from './scalarInstructions.ts';
export * from './simdInstructions.ts';
