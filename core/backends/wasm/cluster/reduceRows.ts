/** Reductions whose inner loop runs along a reduced axis: one result at a time. */
import type { DType } from '../../../ir/dtype.ts';
import { type Expr, f32x4, i32, i32x4, type Local, v128 } from '../assembler/assemble.ts';
import { type KernelCode, type Words, words } from '../kernel.ts';
import { combineAll } from '../loops/rows.ts';
import { laneMask } from '../loops/tails.ts';
import { readAll, unitNames, walk, walkNames, walkUnits } from '../loops/walk.ts';
import { alongPiece, begin, inputNames, movingOf, pieceLength, unrollOf } from './inner.ts';
import { stored } from './math.ts';
import { type Program, programNames } from './scalarCode.ts';

export interface ReduceStructure {
  readonly program: Program;
  readonly op: 'sum' | 'max';
  readonly dtype: DType;
  /** the step that is reduced */
  readonly step: number;
  readonly keptRank: number;
  readonly reducedRank: number;
  /** which axis of the kept walk counts segments */
  readonly segmentAxis: number;
}

type Code = Expr<'v128'>;

/** the four-lane combination of two accumulators */
export const combiner = (op: 'sum' | 'max', dtype: DType): ((a: Code, b: Code) => Code) => {
  if (dtype === 'f32') return op === 'sum' ? f32x4.add : f32x4.max;
  if (op === 'sum') return i32x4.add;
  return dtype === 'i32' ? i32x4.max_s : dtype === 'u32' ? i32x4.max_u : v128.or;
};
/** the value that changes nothing */
export const neutral = (op: 'sum' | 'max', dtype: DType): Code => {
  if (op === 'sum' || dtype === 'u32' || dtype === 'bool') return i32x4.splat(0);
  return dtype === 'f32' ? f32x4.const(-Infinity, -Infinity, -Infinity, -Infinity) : i32x4.splat(-0x80000000);
};

/** words both kinds of reduction read */
export const reduceWords = (s: ReduceStructure): Words<string> =>
  words([
    ...unitNames,
    'perSegment',
    'reducedItems',
    'piece',
    'lastPiece',
    ...inputNames(s.program),
    'y',
    ...programNames(s.program),
    ...walkNames('k', s.keptRank, [...movingOf(s.program), 'y']),
    ...walkNames('r', s.reducedRank, movingOf(s.program)),
  ]);

/** the reduced items of segment number `segment`: the first, and how many */
export const segmentItems = ({ f, read }: KernelCode<string>, segment: Local<'i32'>) => {
  const first = f.let(i32.mul(segment, read('perSegment')));
  const count = f.let(i32.sub(read('reducedItems'), first));
  f.if(i32.gt_u(count, read('perSegment')), () => f.set(count, read('perSegment')));
  return { first, count };
};

export const emitRows = (code: KernelCode<string>, s: ReduceStructure): void => {
  const { f } = code;
  const { op, dtype, program } = s;
  const combine = combiner(op, dtype);
  const begun = begin(code, program);
  const { values } = begun;
  const names = movingOf(program);
  const kept = readAll(code, [...names, 'y']);
  const sums = Array.from({ length: unrollOf(program) }, () => f.local('v128'));
  walkUnits(code, 'k', s.keptRank, kept, (k) => {
    for (const sum of sums) f.set(sum, neutral(op, dtype));
    const { first, count } = segmentItems(code, k[s.segmentAxis]!);
    const inside = Object.fromEntries(names.map((p) => [p, f.let(kept[p]!)]));
    walk(code, 'r', s.reducedRank, inside, first, count, (r) => {
      const piece = r[s.reducedRank - 1]!;
      const length = pieceLength(code, piece, `r${s.reducedRank - 1}.size`);
      values.run(1, {
        load: (i) => v128.load32_splat(inside[`x${i}`]!),
        coordinate: (from, axis) => (from === 'k' ? k[axis]! : r[axis]!),
      });
      alongPiece(code, begun, inside, piece, length, [], (u, left) => {
        const value = values.value(s.step);
        const inRow = left ? v128.bitselect(value, neutral(op, dtype), laneMask(left)) : value;
        f.set(sums[u]!, combine(sums[u]!, inRow));
      });
    });
    f.emit(v128.store32_lane(kept.y!, stored(combineAll(f, sums, combine), dtype), 0));
  });
};
