/** Reductions whose inner loop runs along a reduced axis: one result at a time. */
import type { DType } from '../../../ir/dtype.ts';
import { type Expr, f32x4, i32, i32x4, type Local, v128 } from '../assembler/assemble.ts';
import { type KernelCode, type Words, words } from '../kernel.ts';
import { combineAll } from '../loops/rows.ts';
import { gather, gatherTail, laneMask, loadTail } from '../loops/tails.ts';
import { unitNames, walk, walkNames, walkUnits } from '../loops/walk.ts';
import { gatherStrides, unrollOf, usesInner } from './map.ts';
import { stored } from './math.ts';
import { evaluator, type Program, programNames } from './scalarCode.ts';

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

/** input pointers that move */
export const reducePointers = ({ program }: ReduceStructure): string[] =>
  program.access.flatMap((a, i) => (a === 'scalar' ? [] : [`x${i}`]));
export const gathersOf = ({ program }: ReduceStructure): number[] =>
  program.access.flatMap((a, i) => (a === 'gather' ? [i] : []));

/** words both kinds of reduction read */
export const reduceWords = (s: ReduceStructure): Words<string> =>
  words([
    ...unitNames,
    'perSegment',
    'reducedItems',
    'piece',
    'lastPiece',
    ...s.program.access.map((_, i) => `x${i}`),
    ...gathersOf(s).map((i) => `x${i}.inner`),
    'y',
    ...programNames(s.program),
    ...walkNames('k', s.keptRank, [...reducePointers(s), 'y']),
    ...walkNames('r', s.reducedRank, reducePointers(s)),
  ]);

export const emitRows = (code: KernelCode<string>, s: ReduceStructure): void => {
  const { f, m, read, splat } = code;
  const { program } = s;
  const combine = combiner(s.op, s.dtype);
  const values = evaluator(f, program, (step) => splat(`c${step}`));
  values.run(0, { load: (i) => v128.load32_splat(read(`x${i}`)) });
  const strides = gatherStrides(f, gathersOf(s), read);
  const names = reducePointers(s);
  const kept: Record<string, Local<'i32'>> = {};
  for (const p of [...names, 'y']) kept[p] = f.let(read(p));
  const unroll = unrollOf(program);
  const sums = Array.from({ length: unroll }, () => f.local('v128'));

  walkUnits(f, read, code, 'k', s.keptRank, kept, (k) => {
    for (const sum of sums) f.set(sum, neutral(s.op, s.dtype));
    const first = f.let(i32.mul(k[s.segmentAxis]!, read('perSegment')));
    const count = f.let(i32.sub(read('reducedItems'), first));
    f.if(i32.gt_u(count, read('perSegment')), () => f.set(count, read('perSegment')));
    const inside: Record<string, Local<'i32'>> = {};
    for (const p of names) inside[p] = f.let(kept[p]!);
    walk(f, read, 'r', s.reducedRank, inside, first, count, (r) => {
      const piece = r[s.reducedRank - 1]!;
      const left = f.let(read('piece'));
      f.if(i32.eq(i32.add(piece, 1), read(`r${s.reducedRank - 1}.size`)), () => f.set(left, read('lastPiece')));
      values.run(1, {
        load: (i) => v128.load32_splat(inside[`x${i}`]!),
        coordinate: (from, axis) => (from === 'k' ? k[axis]! : r[axis]!),
      });
      const moving = program.access.map((a, i) =>
        a === 'unit' || a === 'gather' ? f.let(inside[`x${i}`]!) : undefined,
      );
      const index = usesInner(program) ? f.let(i32.mul(piece, read('piece'))) : undefined;
      const vector = (u: number): void => {
        values.run(2, {
          load: (i) => (program.access[i] === 'unit' ? v128.load(moving[i]!, 16 * u) : gather(moving[i]!, strides[i]!)),
          inner: () => i32.add(index!, 4 * u),
        });
        f.set(sums[u]!, combine(sums[u]!, values.value(s.step)));
        for (const i of gathersOf(s)) f.inc(moving[i]!, strides[i]![3]);
      };
      const round = (vectors: number): void => {
        for (let u = 0; u < vectors; u++) vector(u);
        for (const [i, a] of program.access.entries()) if (a === 'unit') f.inc(moving[i]!, 16 * vectors);
        if (index) f.inc(index, 4 * vectors);
        f.inc(left, -4 * vectors);
      };
      if (unroll > 1) f.while(i32.ge_u(left, 4 * unroll), () => round(unroll));
      f.while(i32.ge_u(left, 4), () => round(1));
      f.if(left, () => {
        values.run(2, {
          load: (i) =>
            program.access[i] === 'unit'
              ? loadTail(m, moving[i]!, left)
              : gatherTail(m, moving[i]!, strides[i]![0], left),
          inner: () => index!,
        });
        const value = v128.bitselect(values.value(s.step), neutral(s.op, s.dtype), laneMask(left));
        f.set(sums[0]!, combine(sums[0]!, value));
      });
    });
    f.emit(v128.store32_lane(kept.y!, stored(combineAll(f, sums, combine), s.dtype), 0));
  });
};
