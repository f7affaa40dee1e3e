/** Half floats as f32, four at a time; and what a kernel that packs numbers reads them with, whichever of both they are. */
import { type Expr, type FunctionBuilder, f32, f32x4, i32, i32x4, type Stmt, v128 } from '../assembler/assemble.ts';

/** the exponent of ∞ and NaN, where the shift below puts it */
const INFINITE = 31 << 23;

/**
 * Four half patterns in 32-bit lanes → four f32, exactly. Sign, exponent and fraction move into place, which reads as the
 * number times 2⁻¹¹², of subnormal halves too; ∞ and NaN come out as 2¹⁶ times their fraction and get their exponent back.
 */
export const halfToFloat = (f: FunctionBuilder, halves: Expr<'v128'>): Expr<'v128'> => {
  const h = f.let(v128.and(i32x4.shr_s(i32x4.shl(halves, 16), 3), i32x4.splat(0x8fffe000)));
  const infinite = i32x4.ge_s(v128.and(h, i32x4.splat(0x7fffffff)), i32x4.splat(INFINITE));
  return v128.or(f32x4.mul(h, 2 ** 112), v128.and(infinite, i32x4.splat(0x7f800000)));
};
/** the half at an address as f32 */
export const oneHalf = (f: FunctionBuilder, address: Expr<'i32'>, offset = 0): Expr<'f32'> =>
  f32x4.extract_lane(halfToFloat(f, i32x4.splat(i32.load16_u(address, offset))), 0);

/** the types a matrix is packed from */
export type Packable = 'f32' | 'f16';
export interface Reader {
  readonly bytes: number;
  /** four neighbours as f32 */
  four(f: FunctionBuilder, at: Expr<'i32'>, offset?: number): Expr<'v128'>;
  /** one number, to an address as f32 */
  move(f: FunctionBuilder, to: Expr<'i32'>, at: Expr<'i32'>, offset: number): Stmt;
}
export const readers: Readonly<Record<Packable, Reader>> = {
  f32: {
    bytes: 4,
    four: (_f, at, offset = 0) => v128.load(at, offset),
    move: (_f, to, at, offset) => i32.store(to, i32.load(at), offset),
  },
  f16: {
    bytes: 2,
    four: (f, at, offset = 0) => halfToFloat(f, v128.load16x4_u(at, offset)),
    move: (f, to, at, offset) => f32.store(to, oneHalf(f, at), offset),
  },
};
