/**
 * The register tile: the innermost loop of every contraction. It computes a block of `rows` × 4·`vectors` results
 *
 *   out[r, j] = previous[r, j] + Σ_k a[r, k]·b[k, j]
 *
 * and keeps all of it in registers while k runs. One generator makes all variants: how A is read, how B is stepped and
 * what k walks over.
 */
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
import { storeLanes } from '../loops/tails.ts';

/** shape of the register tile; which is fastest is found by a probe */
export interface Tile {
  readonly rows: number;
  readonly vectors: number;
  /** uses relaxed_madd */
  readonly fma: boolean;
}
export const columns = (tile: Tile): number => tile.vectors * 4;
export const tileName = (tile: Tile): string => `${tile.rows}x${columns(tile)}${tile.fma ? 'f' : ''}`;

/**
 * How A is read:
 * - `rows`: k is contiguous; a pointer for each row
 * - `cols`: the tile's rows are contiguous; `step` bytes from k to k + 1, or `undefined`: given at run time
 */
export type ReadA = { readonly kind: 'rows' } | { readonly kind: 'cols'; readonly step: number | undefined };

/**
 * What k walks over:
 * - `once`: one stretch
 * - `taps`: a list of stretches of equal length, each with its own row pointers (implicit im2col)
 * - `runs`: a list of stretches with their own length, each at an offset in A and B
 */
export type Stretches = 'once' | 'taps' | 'runs';

export interface TileVariant {
  readonly tile: Tile;
  readonly a: ReadA;
  /** bytes from k to k + 1 in B: the width of a packed panel, or `undefined`: given at run time */
  readonly bStep: number | undefined;
  readonly stretches: Stretches;
}

/**
 * Byte sizes of list entries in scratch: taps are [b offset, row pointers …] with whole vectors of pointers, runs are
 * [a offset, b offset, length].
 */
export const tapBytes = (tile: Tile): number => 4 + 16 * Math.ceil(tile.rows / 4);
export const RUN_BYTES = 12;

type I32 = Local<'i32'>;
type Accumulators = readonly (readonly Local<'v128'>[])[];

/** Parameters of a tile function. */
const PARAMS = Array.from({ length: 10 }, () => 'i32' as const);
export interface TileCall {
  /** `once`: A at k = 0; `taps`: the list; `runs`: base of the A offsets */
  readonly a: Expr<'i32'>;
  /** `rows`: bytes from row to row; `cols` without a step: bytes from k to k + 1; `taps`: offset added to row pointers; `runs`: the list */
  readonly aStride: Expr<'i32'> | number;
  readonly b: Expr<'i32'>;
  readonly bStride: Expr<'i32'> | number;
  /** `once`, `taps`: length of a stretch; `runs`: bytes from k to k + 1 in A unless that is fixed */
  readonly k: Expr<'i32'> | number;
  /** `taps`, `runs`: stretches in the list */
  readonly count: Expr<'i32'> | number;
  readonly out: Expr<'i32'>;
  readonly outStride: Expr<'i32'>;
  /** C to add to, or 0; its rows are `outStride` apart */
  readonly previous: Expr<'i32'>;
}

/**
 * The loop over one stretch: acc[r][v] += a[r, k]·b[k, v], moving the row pointers (or the one pointer of `cols`) and b.
 * It is not unrolled: V8 hoists the loads of unrolled steps above the multiplications and spills (60 → 35 GFLOP/s).
 */
const stretch = (
  f: FunctionBuilder,
  acc: Accumulators,
  { tile, a: { kind } }: TileVariant,
  pointers: readonly I32[],
  aStep: Expr<'i32'> | number,
  b: I32,
  bStep: Expr<'i32'> | number,
  k: Expr<'i32'>,
): void => {
  const i = f.local('i32');
  const x = f.local('v128');
  const ys = Array.from({ length: tile.vectors }, () => f.local('v128'));
  f.for(i, 0, k, 1, () => {
    for (const [v, y] of ys.entries()) f.set(y, v128.load(b, v * 16));
    for (const [r, row] of acc.entries()) {
      f.set(x, kind === 'rows' ? v128.load32_splat(pointers[r]!) : v128.load32_splat(pointers[0]!, r * 4));
      for (const [v, sum] of row.entries()) {
        const y = ys[v]!;
        f.set(sum, tile.fma ? f32x4.relaxed_madd(x, y, sum) : f32x4.add(sum, f32x4.mul(x, y)));
      }
    }
    for (const p of pointers) f.inc(p, aStep);
    f.inc(b, bStep);
  });
};

/** base, base + stride, … */
const rowPointers = (f: FunctionBuilder, base: I32, stride: Expr<'i32'>, rows: number): I32[] => {
  const result = [base];
  for (let r = 1; r < rows; r++) result.push(f.let(i32.add(result[r - 1]!, stride)));
  return result;
};

/**
 * The tile function for `rows` ≤ tile.rows rows (the last rows of a matrix). It only multiplies and stores: V8 would
 * spill the accumulators inside the loop if anything after it called a function or needed more registers.
 */
export const tileFunction = (m: Assembler, variant: TileVariant, rows: number): Func => {
  const { tile, a: readA, stretches } = variant;
  return m.func('', PARAMS, 'void', (f, ...params) => {
    const [a, aStride, b, bStride, k, count, out, outStride, previous, previousStride] = params as unknown as I32[];
    const acc = Array.from({ length: rows }, () => Array.from({ length: tile.vectors }, () => f.local('v128')));
    f.if(previous, () => {
      for (const [r, row] of rowPointers(f, previous, previousStride, rows).entries())
        for (const [v, value] of acc[r]!.entries()) f.set(value, v128.load(row, v * 16));
    });
    const bStep = variant.bStep ?? bStride;
    const pointers = Array.from({ length: readA.kind === 'rows' ? rows : 1 }, () => f.local('i32'));
    const aStep = readA.kind === 'rows' ? 4 : (readA.step ?? (stretches === 'runs' ? f.let(k) : aStride));
    const [list, position, i] = f.locals('i32');
    if (stretches === 'once') {
      for (const [r, p] of pointers.entries()) f.set(p, r === 0 ? a : i32.add(pointers[r - 1]!, aStride));
      stretch(f, acc, variant, pointers, aStep, b, bStep, k);
    } else if (stretches === 'taps') {
      f.set(list, a);
      f.for(i, 0, count, 1, () => {
        f.set(position, i32.add(b, i32.load(list)));
        for (const [r, p] of pointers.entries()) f.set(p, i32.add(i32.load(list, 4 + r * 4), aStride));
        stretch(f, acc, variant, pointers, aStep, position, bStep, k);
        f.inc(list, tapBytes(tile));
      });
    } else {
      f.set(list, aStride);
      f.for(i, 0, count, 1, () => {
        f.set(pointers[0]!, i32.add(a, i32.load(list)));
        f.set(position, i32.add(b, i32.load(list, 4)));
        f.set(k, i32.load(list, 8));
        stretch(f, acc, variant, pointers, aStep, position, bStep, k);
        f.inc(list, RUN_BYTES);
      });
    }
    for (const [r, row] of rowPointers(f, out, outStride, rows).entries())
      for (const [v, value] of acc[r]!.entries()) f.emit(v128.store(row, value, v * 16));
  });
};

/** the functions of a tile for 1 … tile.rows rows; index: number of rows */
export const tileFunctions = (m: Assembler, variant: TileVariant): readonly (Func | undefined)[] =>
  Array.from({ length: variant.tile.rows + 1 }, (_, rows) => (rows === 0 ? undefined : tileFunction(m, variant, rows)));

/** Emits the computation of one tile with a run-time number of rows and of columns. */
export const emitTile = (
  f: FunctionBuilder,
  variant: TileVariant,
  functions: readonly (Func | undefined)[],
  rows: I32,
  validColumns: I32,
  /** room for one tile */
  spare: Expr<'i32'>,
  c: TileCall,
): void => {
  const width = columns(variant.tile);
  // C has no room for all columns: through the spare tile
  const through = f.let(i32.lt_u(validColumns, width));
  const out = f.let(c.out);
  const outStride = f.let(c.outStride);
  f.if(through, () => {
    f.set(out, spare);
    f.set(outStride, i32.const(width * 4));
  });
  const run = (n: number): void =>
    f.emit(
      call(functions[n]!, [c.a, c.aStride, c.b, c.bStride, c.k, c.count, out, outStride, c.previous, c.outStride]),
    );
  const dispatch = (n: number): void => {
    if (n === 1) run(1);
    else
      f.if(
        i32.eq(rows, n),
        () => run(n),
        () => dispatch(n - 1),
      );
  };
  dispatch(variant.tile.rows);
  f.if(through, () => copyTile(f, spare, width * 4, c.out, c.outStride, rows, validColumns));
};

/** copies the part of a tile in scratch that C has room for */
const copyTile = (
  f: FunctionBuilder,
  source: Expr<'i32'>,
  sourceStride: number,
  target: Expr<'i32'>,
  targetStride: Expr<'i32'>,
  rows: I32,
  validColumns: I32,
): void => {
  const [from, to] = [f.let(source), f.let(target)];
  const [r, j] = f.locals('i32');
  const bytes = f.let(i32.shl(validColumns, 2));
  f.for(r, 0, rows, 1, () => {
    f.for(j, 0, bytes, 16, () =>
      storeLanes(f, f.let(i32.add(to, j)), f.let(v128.load(i32.add(from, j))), f.let(i32.sub(bytes, j))),
    );
    f.inc(from, sourceStride);
    f.set(to, i32.add(to, targetStride));
  });
};
