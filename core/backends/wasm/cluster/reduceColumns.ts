/** Reductions whose inner loop runs along a kept axis: a strip of neighbouring results at a time. */
import { type Expr, i32, type Local, v128 } from '../assembler/assemble.ts';
import type { KernelCode } from '../kernel.ts';
import { gather, gatherTail, loadTail, storeTail } from '../loops/tails.ts';
import { readAll, walk, walkUnits } from '../loops/walk.ts';
import { begin, gathersOf, innerIndex, movingOf, pieceLength } from './inner.ts';
import { stored } from './math.ts';
import { combiner, neutral, type ReduceStructure, segmentItems } from './reduceRows.ts';

/** results in registers: four vectors */
export const STRIP = 16;

export const emitColumns = (code: KernelCode<string>, s: ReduceStructure): void => {
  const { f, m } = code;
  const { program } = s;
  const combine = combiner(s.op, s.dtype);
  const { values, strides } = begin(code, program);
  const kept = readAll(code, [...movingOf(program), 'y']);
  const strip = s.keptRank - 1;
  const sums = Array.from({ length: STRIP / 4 }, () => f.local('v128'));

  walkUnits(code, 'k', s.keptRank, kept, (k) => {
    const length = pieceLength(code, k[strip]!, `k${strip}.size`);
    const { first, count } = segmentItems(code, k[s.segmentAxis]!);
    const index = innerIndex(code, program, k[strip]!);

    /** reduces `vectors` vectors from column `offset` on (in elements); a partial vector when `tail` is given */
    const reduceStrip = (offset: Expr<'i32'> | undefined, vectors: number, tail?: Expr<'i32'>): void => {
      for (let u = 0; u < vectors; u++) f.set(sums[u]!, neutral(s.op, s.dtype));
      const inside: Record<string, Local<'i32'>> = {};
      for (const [i, a] of program.access.entries()) {
        if (a === 'scalar') continue;
        const pointer = f.let(kept[`x${i}`]!);
        inside[`x${i}`] = pointer;
        if (offset && a === 'unit') f.inc(pointer, i32.shl(offset, 2));
        if (offset && a === 'gather') f.inc(pointer, i32.mul(offset, strides[i]![0]));
      }
      walk(code, 'r', s.reducedRank, inside, first, count, (r) => {
        values.run(1, {
          load: (i) => v128.load32_splat(inside[`x${i}`]!),
          coordinate: (from, axis) => (from === 'k' ? k[axis]! : r[axis]!),
        });
        const moving = gathersOf(program).map((i) => [i, f.let(inside[`x${i}`]!)] as const);
        for (let u = 0; u < vectors; u++) {
          values.run(2, {
            load: (i) => {
              if (program.access[i] === 'unit')
                return tail ? loadTail(m, inside[`x${i}`]!, tail) : v128.load(inside[`x${i}`]!, 16 * u);
              const at = moving.find(([input]) => input === i)![1];
              return tail ? gatherTail(m, at, strides[i]![0], tail) : gather(at, strides[i]!);
            },
            inner: () => (offset ? i32.add(index!, offset) : i32.add(index!, 4 * u)),
          });
          f.set(sums[u]!, combine(sums[u]!, values.value(s.step)));
          for (const [i, at] of moving) f.inc(at, strides[i]![3]);
        }
      });
      const out = f.let(offset ? i32.add(kept.y!, i32.shl(offset, 2)) : kept.y!);
      for (let u = 0; u < vectors; u++) {
        const value = stored(sums[u]!, s.dtype);
        f.emit(tail ? storeTail(m, out, value, tail) : v128.store(out, value, 16 * u));
      }
    };

    f.if(
      i32.eq(length, STRIP),
      () => reduceStrip(undefined, STRIP / 4),
      () => {
        const offset = f.local('i32');
        f.set(offset, 0);
        const left = f.let(length);
        f.while(i32.ge_u(left, 4), () => {
          reduceStrip(offset, 1);
          f.inc(offset, 4);
          f.inc(left, -4);
        });
        f.if(left, () => reduceStrip(offset, 1, left));
      },
    );
  });
};
