/**
 * The register tile: the innermost loop of every contraction. It computes a block of `rows` × 4·`vectors` results
 *
 *   out[r, j] = act(alpha·(previous[r, j] + Σ_k a[r, k]·b[k, j]) + bias[j] + residual[r, j])
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
} from './assemble.ts';
import { siluF32x4 } from './math.ts';

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
export type Walk = 'once' | 'taps' | 'runs';

export interface TileVariant {
  readonly tile: Tile;
  readonly a: ReadA;
  /** bytes from k to k + 1 in B: the width of a packed panel, or `undefined`: given at run time */
  readonly bStep: number | undefined;
  readonly walk: Walk;
}

/** First words of the argument block of every contraction kernel (byte offsets). */
export const EPILOGUE = { alpha: 0, activation: 4, cStride: 8, residualStride: 12, end: 16 } as const;
export const ACTIVATIONS = { none: 0, silu: 1 } as const;

/**
 * Byte sizes of list entries in scratch: taps are [b offset, row pointers …] with whole vectors of pointers, runs are
 * [a offset, b offset, length].
 */
export const tapBytes = (tile: Tile): number => 4 + 16 * Math.ceil(tile.rows / 4);
export const RUN_BYTES = 12;

const UNROLL = 4;

type I32 = Local<'i32'>;
/** Parameters of a tile function. */
const PARAMS = Array.from({ length: 13 }, () => 'i32' as const);
export interface TileCall {
  readonly args: Expr<'i32'>;
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
  /** C to add to, or 0 */
  readonly previous: Expr<'i32'>;
  /** bias at this column, or 0 */
  readonly bias: Expr<'i32'>;
  /** residual at this tile, or 0 */
  readonly residual: Expr<'i32'>;
  /** this is the last stretch of k: apply alpha, bias, residual, activation */
  readonly last: Expr<'i32'>;
}

/** the activation, one function for all tiles of a module */
export const siluFunction = (m: Assembler): Func<'v128'> =>
  m.func('', ['v128'], 'v128', (f, x) => f.return(siluF32x4(f, x)));

interface Accumulators {
  readonly at: readonly (readonly Local<'v128'>[])[];
  each(change: (value: Local<'v128'>, row: number, vector: number) => Expr<'v128'>): void;
}
const accumulators = (f: FunctionBuilder, rows: number, vectors: number): Accumulators => {
  const at = Array.from({ length: rows }, () => Array.from({ length: vectors }, () => f.local('v128')));
  return {
    at,
    each: (change) => {
      for (const [r, row] of at.entries()) for (const [v, value] of row.entries()) f.set(value, change(value, r, v));
    },
  };
};

/** acc[r][v] += a[r, k]·b[k, v] for `steps` consecutive k at constant offsets */
const multiply = (
  f: FunctionBuilder,
  acc: Accumulators,
  { tile: { fma } }: TileVariant,
  steps: number,
  loadA: (row: number, step: number) => Expr<'v128'>,
  loadB: (vector: number, step: number) => Expr<'v128'>,
  bRegisters: readonly Local<'v128'>[],
): void => {
  const a = f.local('v128');
  for (let step = 0; step < steps; step++) {
    for (const [v, b] of bRegisters.entries()) f.set(b, loadB(v, step));
    for (const [r, row] of acc.at.entries()) {
      f.set(a, loadA(r, step));
      for (const [v, sum] of row.entries()) {
        const b = bRegisters[v]!;
        f.set(sum, fma ? f32x4.relaxed_madd(a, b, sum) : f32x4.add(sum, f32x4.mul(a, b)));
      }
    }
  }
};

/** the loop over one stretch: `k` steps from the row pointers (or the one pointer of `cols`) and b, which it moves */
const stretch = (
  f: FunctionBuilder,
  acc: Accumulators,
  variant: TileVariant,
  pointers: readonly I32[],
  aStep: Expr<'i32'> | number,
  b: I32,
  bStep: Expr<'i32'> | number,
  k: Expr<'i32'>,
): void => {
  const rows = variant.a.kind === 'rows';
  const i = f.local('i32');
  const whole = f.let(i32.and(k, -UNROLL));
  const bRegisters = Array.from({ length: variant.tile.vectors }, () => f.local('v128'));
  // Unknown steps cannot be constant offsets; such variants advance after every k.
  const constant = typeof aStep === 'number' && typeof bStep === 'number';
  const steps = constant || (rows && typeof bStep === 'number') ? UNROLL : 1;
  const advance = (n: number): void => {
    for (const p of pointers) f.inc(p, typeof aStep === 'number' ? aStep * n : aStep);
    f.inc(b, typeof bStep === 'number' ? bStep * n : bStep);
  };
  const loadA = (r: number, step: number): Expr<'v128'> =>
    rows
      ? v128.load32_splat(pointers[r]!, step * 4)
      : v128.load32_splat(pointers[0]!, r * 4 + (typeof aStep === 'number' ? step * aStep : 0));
  const loadB = (v: number, step: number): Expr<'v128'> =>
    v128.load(b, v * 16 + (typeof bStep === 'number' ? step * bStep : 0));
  const round = (n: number): void => {
    if (n > 1 && steps === 1)
      for (let step = 0; step < n; step++) {
        multiply(f, acc, variant, 1, loadA, loadB, bRegisters);
        advance(1);
      }
    else {
      multiply(f, acc, variant, n, loadA, loadB, bRegisters);
      advance(n);
    }
  };
  f.for(i, 0, whole, UNROLL, () => round(UNROLL));
  f.for(i, whole, k, 1, () => round(1));
};

/** previous, alpha, bias, residual and activation on the accumulators, then the stores */
const finish = (f: FunctionBuilder, acc: Accumulators, silu: Func<'v128'>, p: readonly I32[]): void => {
  const [args, out, outStride, previous, bias, residual, last] = p as [I32, I32, I32, I32, I32, I32, I32];
  const rowPointers = (base: I32, stride: Expr<'i32'>): I32[] => {
    const first = f.let(base);
    const step = f.let(stride);
    const result = [first];
    for (let r = 1; r < acc.at.length; r++) result.push(f.let(i32.add(result[r - 1]!, step)));
    return result;
  };
  f.if(previous, () => {
    const rows = rowPointers(previous, i32.load(args, EPILOGUE.cStride));
    acc.each((value, r, v) => f32x4.add(value, v128.load(rows[r]!, v * 16)));
  });
  f.if(last, () => {
    f.if(i32.ne(i32.load(args, EPILOGUE.alpha), 0x3f800000), () => {
      const alpha = f.let(v128.load32_splat(args, EPILOGUE.alpha));
      acc.each((value) => f32x4.mul(value, alpha));
    });
    f.if(bias, () => {
      const b = f.local('v128');
      for (let v = 0; v < acc.at[0]!.length; v++) {
        f.set(b, v128.load(bias, v * 16));
        for (const row of acc.at) f.set(row[v]!, f32x4.add(row[v]!, b));
      }
    });
    f.if(residual, () => {
      const rows = rowPointers(residual, i32.load(args, EPILOGUE.residualStride));
      acc.each((value, r, v) => f32x4.add(value, v128.load(rows[r]!, v * 16)));
    });
    f.if(i32.load(args, EPILOGUE.activation), () => acc.each((value) => call(silu, [value])));
  });
  const rows = rowPointers(out, outStride);
  for (const [r, row] of acc.at.entries())
    for (const [v, value] of row.entries()) f.emit(v128.store(rows[r]!, value, v * 16));
};

/** The tile function for `rows` ≤ tile.rows rows (the last rows of a matrix). */
const tileFunction = (m: Assembler, variant: TileVariant, rows: number, silu: Func<'v128'>): Func => {
  const { tile, a: readA, walk } = variant;
  return m.func('', PARAMS, 'void', (f, ...params) => {
    const [args, a, aStride, b, bStride, k, count, ...epilogue] = params as unknown as [
      I32,
      I32,
      I32,
      I32,
      I32,
      I32,
      I32,
      ...I32[],
    ];
    const acc = accumulators(f, rows, tile.vectors);
    const bStep = variant.bStep ?? bStride;
    const pointers = Array.from({ length: readA.kind === 'rows' ? rows : 1 }, () => f.local('i32'));
    const list = f.local('i32');
    const position = f.local('i32');
    const i = f.local('i32');
    const aStep = readA.kind === 'rows' ? 4 : (readA.step ?? (walk === 'runs' ? f.let(k) : aStride));
    if (walk === 'once') {
      for (const [r, p] of pointers.entries()) f.set(p, r === 0 ? a : i32.add(pointers[r - 1]!, aStride));
      stretch(f, acc, variant, pointers, aStep, b, bStep, k);
    } else if (walk === 'taps') {
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
    finish(f, acc, silu, [args, ...epilogue]);
  });
};

/** the tile functions for 1 … tile.rows rows, index 0 unused */
export const tileFunctions = (m: Assembler, variant: TileVariant, silu: Func<'v128'>): readonly (Func | undefined)[] =>
  Array.from({ length: variant.tile.rows + 1 }, (_, rows) =>
    rows === 0 ? undefined : tileFunction(m, variant, rows, silu),
  );

/** Emits the call of the tile function for a run-time number of rows and the copy of a tile that C has no room for. */
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
  const partial = f.let(i32.lt_u(validColumns, width));
  const out = f.let(c.out);
  const outStride = f.let(c.outStride);
  f.if(partial, () => {
    f.set(out, spare);
    f.set(outStride, i32.const(width * 4));
  });
  const run = (n: number): void =>
    f.emit(
      call(functions[n]!, [
        c.args,
        c.a,
        c.aStride,
        c.b,
        c.bStride,
        c.k,
        c.count,
        out,
        outStride,
        c.previous,
        c.bias,
        c.residual,
        c.last,
      ]),
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
  f.if(partial, () => {
    const from = f.let(out);
    const to = f.let(c.out);
    const r = f.local('i32');
    const j = f.local('i32');
    const bytes = f.let(i32.shl(validColumns, 2));
    f.for(r, 0, rows, 1, () => {
      f.for(j, 0, bytes, 4, () => f.emit(copyWord(i32.add(to, j), i32.add(from, j))));
      f.inc(from, width * 4);
      f.set(to, i32.add(to, c.outStride));
    });
  });
};
const copyWord = (to: Expr<'i32'>, from: Expr<'i32'>) => i32.store(to, i32.load(from));
