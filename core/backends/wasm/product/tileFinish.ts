/** What happens to a finished register tile: the epilogue of a contraction and stores to a C without room for all of it. */
import {
  type Assembler,
  call,
  type Expr,
  type Func,
  type FunctionBuilder,
  f32x4,
  i32,
  type Local,
  v128,
} from '../assembler/assemble.ts';
import { siluF32x4 } from '../assembler/vectorMath.ts';

type I32 = Local<'i32'>;

/** shape of the register tile; which is fastest is found by a probe */
export interface Tile {
  readonly rows: number;
  readonly vectors: number;
  /** uses relaxed_madd */
  readonly fma: boolean;
}
export const columns = (tile: Tile): number => tile.vectors * 4;
export const tileName = (tile: Tile): string => `${tile.rows}x${columns(tile)}${tile.fma ? 'f' : ''}`;

/** First words of the argument block of every contraction kernel (byte offsets). */
export const EPILOGUE = { alpha: 0, activation: 4, cStride: 8, residualStride: 12, end: 16 } as const;
export const ACTIVATIONS = { none: 0, silu: 1 } as const;

/** finish(args, tile, out, outStride, rows, columns, bias, residual): the epilogue of a tile in scratch, stored to C */
export const finishFunction = (m: Assembler, tile: Tile): Func => {
  const silu = m.func('', ['v128'], 'v128', (f, x) => f.return(siluF32x4(f, x)));
  return m.func(
    '',
    Array.from({ length: 8 }, () => 'i32' as const),
    'void',
    (f, ...params) => {
      const [args, from, out, outStride, rows, validColumns, bias, residual] = params as unknown as I32[];
      const alpha = f.let(v128.load32_splat(args, EPILOGUE.alpha));
      const activation = f.let(i32.load(args, EPILOGUE.activation));
      const residualStride = f.let(i32.load(args, EPILOGUE.residualStride));
      const added = f.local('v128');
      const value = f.local('v128');
      const [r, at, to, extra] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
      for (let v = 0; v < tile.vectors; v++)
        f.if(i32.gt_u(validColumns, v * 4), () => {
          f.set(added, f32x4.splat(0));
          f.if(bias, () => f.set(added, v128.load(bias, v * 16)));
          f.set(at, from);
          f.set(to, i32.add(out, v * 16));
          f.set(extra, residual);
          f.for(r, 0, rows, 1, () => {
            f.set(value, f32x4.add(f32x4.mul(v128.load(at, v * 16), alpha), added));
            f.if(residual, () => {
              f.set(value, f32x4.add(value, v128.load(extra, v * 16)));
              f.set(extra, i32.add(extra, residualStride));
            });
            f.if(activation, () => f.set(value, call(silu, [value])));
            storeLanes(f, to, value, i32.shl(i32.sub(validColumns, v * 4), 2));
            f.inc(at, columns(tile) * 4);
            f.set(to, i32.add(to, outStride));
          });
        });
    },
  );
};

/** copies the part of a tile in scratch that C has room for */
export const copyTile = (
  f: FunctionBuilder,
  source: Expr<'i32'>,
  sourceStride: number,
  target: Expr<'i32'>,
  targetStride: Expr<'i32'>,
  rows: I32,
  validColumns: I32,
): void => {
  const [from, to] = [f.let(source), f.let(target)];
  const [r, j] = [f.local('i32'), f.local('i32')];
  const bytes = f.let(i32.shl(validColumns, 2));
  f.for(r, 0, rows, 1, () => {
    f.for(j, 0, bytes, 4, () => f.emit(i32.store(i32.add(to, j), i32.load(i32.add(from, j)))));
    f.inc(from, sourceStride);
    f.set(to, i32.add(to, targetStride));
  });
};

/** stores the first `bytes` (4, 8, 12 or ≥ 16) of a vector */
export const storeLanes = (
  f: FunctionBuilder,
  address: Expr<'i32'>,
  value: Local<'v128'>,
  bytes: Expr<'i32'>,
): void => {
  const to = f.let(address);
  const left = f.let(bytes);
  f.if(
    i32.ge_u(left, 16),
    () => f.emit(v128.store(to, value)),
    () => {
      f.emit(v128.store32_lane(to, value, 0));
      f.if(i32.gt_u(left, 4), () => f.emit(v128.store32_lane(to, value, 1, 4)));
      f.if(i32.gt_u(left, 8), () => f.emit(v128.store32_lane(to, value, 2, 8)));
    },
  );
};
