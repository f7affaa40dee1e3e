/**
 * The GEMM kernel: for a unit (group, rows block, columns block, split of k) it walks k in blocks, packs its rows of A
 * where that pays, and runs the register tile over the block.
 */
import {
  assembler,
  call,
  type Expr,
  type FunctionBuilder,
  f32x4,
  i32,
  type Local,
  select,
  v128,
} from '../assembler/assemble.ts';
import { siluF32x4 } from '../assembler/vectorMath.ts';
import { packPanelFunction } from './pack.ts';
import {
  ACTIVATIONS,
  columns,
  EPILOGUE,
  emitTile,
  storeLanes,
  type Tile,
  type TileVariant,
  tileFunctions,
  tileName,
} from './tile.ts';

/** How A is read: straight from memory with k or the rows contiguous, or packed into scratch first. */
export type ModeA = 'rows' | 'cols' | 'pack';
/** How B is read: in packed panels, or straight from memory with n contiguous. */
export type ModeB = 'packed' | 'direct';

/** rows of a unit at most, in tiles: with KC they fill a part of the second-level cache */
export const TILES_PER_BLOCK = 32;
/** k of a block: a panel of B (KC × 32 bytes) stays in the first-level cache */
export const KC = 256;

/** Words of a GEMM command after the epilogue; strides in bytes. */
const WORDS = [
  'a',
  'aRow',
  'aK',
  'aGroup',
  'b',
  'bK',
  'bPanel',
  'bGroup',
  'c',
  'cGroup',
  'bias',
  'biasGroup',
  'residual',
  'residualGroup',
  'm',
  'n',
  'k',
  'rowsPerUnit',
  'panelsPerUnit',
  'rowBlocks',
  'columnBlocks',
  'splits',
  'kPerSplit',
  'splitStride',
  'kBlock',
  'accumulate',
] as const;
type Word = (typeof WORDS)[number];
export interface Epilogue {
  readonly alpha: number;
  readonly activation: keyof typeof ACTIVATIONS;
  readonly cStride: number;
  readonly residualStride: number;
}
const f32Word = (x: number): number => new Int32Array(Float32Array.of(x).buffer)[0]!;

/** the first words of every contraction */
export const epilogueWords = (e: Epilogue): readonly number[] => [
  f32Word(e.alpha),
  ACTIVATIONS[e.activation],
  e.cStride,
  e.residualStride,
];
export const gemmWords = (epilogue: Epilogue, words: Readonly<Record<Word, number>>): readonly number[] => [
  ...epilogueWords(epilogue),
  ...WORDS.map((word) => words[word]),
];

export const gemmName = (tile: Tile, a: ModeA, b: ModeB): string => `gemm${tileName(tile)}_${a}_${b}`;

/** Splits `value` as a number in mixed radix: value = rest·radix + digit. */
export const digit = (f: FunctionBuilder, value: Local<'i32'>, radix: Expr<'i32'>): Local<'i32'> => {
  const rest = f.let(i32.div_u(value, radix));
  const result = f.let(i32.sub(value, i32.mul(rest, radix)));
  f.set(value, rest);
  return result;
};
export const min = (a: Local<'i32'>, b: Local<'i32'>): Expr<'i32'> => select(i32.lt_u(a, b), a, b);
/** 1 when C is not simply the sum */
export const epilogueFlag = (f: FunctionBuilder, args: Expr<'i32'>, operands: Expr<'i32'>): Local<'i32'> => {
  const scaled = i32.ne(i32.load(args, EPILOGUE.alpha), f32Word(1));
  return f.let(i32.ne(i32.or(i32.or(operands, i32.load(args, EPILOGUE.activation)), scaled), 0));
};
/** all words of an argument block after the epilogue, in locals */
export const loadWords = <W extends string>(
  f: FunctionBuilder,
  args: Expr<'i32'>,
  words: readonly W[],
): Readonly<Record<W, Local<'i32'>>> =>
  Object.fromEntries(words.map((word, i) => [word, f.let(i32.load(args, EPILOGUE.end + i * 4))])) as Record<
    W,
    Local<'i32'>
  >;
/** `base` plus an offset, but 0 stays 0 (absent) */
export const orAbsent = (f: FunctionBuilder, base: Local<'i32'>, offset: Expr<'i32'>): Local<'i32'> =>
  f.let(select(base, i32.add(base, offset), i32.const(0)));

/** Module with the one kernel `gemmName(tile, a, b)`. */
export const gemmModule = (tile: Tile, modeA: ModeA, modeB: ModeB): Uint8Array<ArrayBuffer> => {
  const m = assembler();
  const width = columns(tile);
  const variant: TileVariant = {
    tile,
    a: modeA === 'rows' ? { kind: 'rows' } : { kind: 'cols', step: modeA === 'pack' ? tile.rows * 4 : undefined },
    bStep: modeB === 'packed' ? width * 4 : undefined,
    walk: 'once',
  };
  const functions = tileFunctions(m, variant);
  const packPanel = modeA === 'pack' ? packPanelFunction(m, tile.rows) : undefined;

  m.kernel(gemmName(tile, modeA, modeB), (f, { args, start, end, scratch }) => {
    const w = loadWords(f, args, WORDS);
    const [u, k0, panel, row] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
    // Scratch: one spare tile, then the packed rows.
    const hasEpilogue = epilogueFlag(f, args, i32.or(w.bias, w.residual));
    const packed = f.let(i32.add(scratch, tile.rows * width * 4));
    f.for(u, start, end, 1, () => {
      const unit = f.let(u);
      const split = digit(f, unit, w.splits);
      const columnBlock = digit(f, unit, w.columnBlocks);
      const rowBlock = digit(f, unit, w.rowBlocks);
      const firstRow = f.let(i32.mul(rowBlock, w.rowsPerUnit));
      const firstPanel = f.let(i32.mul(columnBlock, w.panelsPerUnit));
      const endRow = f.let(i32.add(firstRow, w.rowsPerUnit));
      f.set(endRow, min(endRow, w.m));
      const endPanel = f.let(i32.add(firstPanel, w.panelsPerUnit));
      const panels = f.let(i32.div_u(i32.add(w.n, width - 1), width));
      f.set(endPanel, min(endPanel, panels));
      const kEnd = f.let(i32.mul(i32.add(split, 1), w.kPerSplit));
      f.set(kEnd, min(kEnd, w.k));
      const a = f.let(i32.add(w.a, i32.mul(unit, w.aGroup)));
      const b = f.let(i32.add(w.b, i32.mul(unit, w.bGroup)));
      const c = f.let(i32.add(i32.add(w.c, i32.mul(unit, w.cGroup)), i32.mul(split, w.splitStride)));
      const bias = orAbsent(f, w.bias, i32.mul(unit, w.biasGroup));
      const residual = orAbsent(f, w.residual, i32.mul(unit, w.residualGroup));
      const cStride = f.let(i32.load(args, EPILOGUE.cStride));
      const residualStride = f.let(i32.load(args, EPILOGUE.residualStride));
      const firstK = f.let(i32.mul(split, w.kPerSplit));
      // Once even for k = 0: the epilogue still has to run.
      f.for(k0, firstK, f.let(i32.add(kEnd, i32.eqz(kEnd))), w.kBlock, () => {
        const kc = f.let(i32.sub(kEnd, k0));
        f.set(kc, min(kc, w.kBlock));
        const last = f.let(i32.ge_u(i32.add(k0, kc), kEnd));
        const aBlock = f.let(i32.add(a, i32.mul(k0, w.aK)));
        const panelStride = f.let(i32.mul(kc, tile.rows * 4));
        const rows = f.local('i32');
        if (packPanel) {
          const to = f.let(packed);
          f.for(row, firstRow, endRow, tile.rows, () => {
            f.emit(
              call(packPanel, [to, i32.add(aBlock, i32.mul(row, w.aRow)), i32.sub(endRow, row), kc, w.aRow, w.aK]),
            );
            f.set(to, i32.add(to, panelStride));
          });
        }
        f.for(panel, firstPanel, endPanel, 1, () => {
          const column = f.let(i32.mul(panel, width));
          const valid = f.let(i32.sub(w.n, column));
          const bAt = f.let(i32.add(i32.add(b, i32.mul(panel, w.bPanel)), i32.mul(k0, w.bK)));
          const biasAt = orAbsent(f, bias, i32.shl(column, 2));
          const aAt = f.let(packPanel ? packed : i32.add(aBlock, i32.mul(firstRow, w.aRow)));
          const aStep = f.let(packPanel ? panelStride : i32.mul(w.aRow, tile.rows));
          const cAt = f.let(i32.add(i32.add(c, i32.shl(column, 2)), i32.mul(firstRow, cStride)));
          const cStep = f.let(i32.mul(cStride, tile.rows));
          const residualAt = orAbsent(f, residual, i32.add(i32.shl(column, 2), i32.mul(firstRow, residualStride)));
          const residualStep = f.let(select(residual, i32.mul(residualStride, tile.rows), i32.const(0)));
          f.for(row, firstRow, endRow, tile.rows, () => {
            f.set(rows, i32.sub(endRow, row));
            f.if(i32.gt_u(rows, tile.rows), () => f.set(rows, tile.rows));
            emitTile(f, variant, functions, rows, valid, scratch, {
              args,
              a: aAt,
              aStride: modeA === 'rows' ? w.aRow : w.aK,
              b: bAt,
              bStride: w.bK,
              k: kc,
              count: 1,
              out: cAt,
              outStride: cStride,
              previous: select(i32.or(w.accumulate, i32.gt_u(k0, firstK)), cAt, i32.const(0)),
              bias: biasAt,
              residual: residualAt,
              finish: i32.and(last, hasEpilogue),
            });
            f.set(aAt, i32.add(aAt, aStep));
            f.set(cAt, i32.add(cAt, cStep));
            f.set(residualAt, i32.add(residualAt, residualStep));
          });
        });
      });
    });
  });
  return m.bytes();
};

const REDUCE = [
  'partials',
  'splits',
  'splitStride',
  'group',
  'c',
  'cGroup',
  'bias',
  'biasGroup',
  'residual',
  'residualGroup',
  'm',
  'n',
] as const;
type ReduceWord = (typeof REDUCE)[number];
export const reduceWords = (epilogue: Epilogue, words: Readonly<Record<ReduceWord, number>>): readonly number[] => [
  ...epilogueWords(epilogue),
  ...REDUCE.map((word) => words[word]),
];
export const REDUCE_KERNEL = 'reduceSplits';

/**
 * Second pass of a split contraction: C[g][i] = act(alpha·Σ_s partials[g][s][i] + bias + residual[g][i]), summed in the
 * order of s. Unit = row g·m + i; partials are [g][s][m][n] without gaps.
 */
export const reduceModule = (): Uint8Array<ArrayBuffer> => {
  const m = assembler();
  m.kernel(REDUCE_KERNEL, (f, { args, start, end }) => {
    const w = loadWords(f, args, REDUCE);
    const alpha = f.let(v128.load32_splat(args, EPILOGUE.alpha));
    const activation = f.let(i32.load(args, EPILOGUE.activation));
    const [u, j, s] = [f.local('i32'), f.local('i32'), f.local('i32')];
    const rowBytes = f.let(i32.shl(w.n, 2));
    f.for(u, start, end, 1, () => {
      const group = f.let(i32.div_u(u, w.m));
      const i = f.let(i32.sub(u, i32.mul(group, w.m)));
      const from = f.let(i32.add(i32.add(w.partials, i32.mul(group, w.group)), i32.mul(i, rowBytes)));
      const to = f.let(i32.add(i32.add(w.c, i32.mul(group, w.cGroup)), i32.mul(i, i32.load(args, EPILOGUE.cStride))));
      const bias = orAbsent(f, w.bias, i32.mul(group, w.biasGroup));
      const residual = orAbsent(
        f,
        w.residual,
        i32.add(i32.mul(group, w.residualGroup), i32.mul(i, i32.load(args, EPILOGUE.residualStride))),
      );
      f.for(j, 0, rowBytes, 16, () => {
        const at = f.let(i32.add(from, j));
        const sum = f.let(v128.load(at));
        f.for(s, 1, w.splits, 1, () => {
          f.set(at, i32.add(at, w.splitStride));
          f.set(sum, f32x4.add(sum, v128.load(at)));
        });
        f.set(sum, f32x4.mul(sum, alpha));
        f.if(bias, () => f.set(sum, f32x4.add(sum, v128.load(i32.add(bias, j)))));
        f.if(residual, () => f.set(sum, f32x4.add(sum, v128.load(i32.add(residual, j)))));
        f.if(activation, () => f.set(sum, siluF32x4(f, sum)));
        storeLanes(f, i32.add(to, j), sum, i32.sub(rowBytes, j));
      });
    });
  });
  return m.bytes();
};
