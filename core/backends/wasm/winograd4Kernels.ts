/**
 * The transforms of Winograd's F(4×4, 3×3): a 6 × 6 patch d of the input gives a 4 × 4 patch of the output with 36
 * multiplications for each pair of channels instead of 144,
 *
 *   y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A
 *
 * by interpolation at 0, ±5/8, ±3/2 and ∞: all constants but 1/N are exact in binary, and the results are within 1.5 times
 * the rounding error of the plain sum (with the usual 0, ±1, ±2 it is 3.4 times). The 36 matrix products are gemm.ts's.
 *
 * Source: A. Lavin and S. Gray, Fast algorithms for convolutional neural networks, 2016; the points are those of oneDNN.
 */
import { assembler, call, type Expr, f32x4, i32, type Local, memoryFill, select, v128 } from './assemble.ts';
import { type Epilogue, epilogueWords, loadWords, min } from './gemmKernel.ts';
import { transpose } from './pack.ts';
import { EPILOGUE, storeLanes } from './tile.ts';
import { siluF32x4 } from './vectorMath.ts';

type V128 = Local<'v128'>;
type Vectors = readonly Expr<'v128'>[];
const range = (n: number): readonly number[] => Array.from({ length: n }, (_, i) => i);

/** the points ±a and ±b, and their squares */
const [a, b] = [5 / 8, 3 / 2];
const [aa, bb] = [a * a, b * b];
/** N of the points 0, a and b: the product of the distances to the others */
const [n0, na, nb] = [aa * bb, 2 * aa * (aa - bb), 2 * bb * (bb - aa)];
const { add, sub, mul } = f32x4;
/** patches are 6 × 6, 36 positions */
export const POSITIONS = 36;

/** Bᵀ d */
const inputTransform = (d: readonly V128[], keep: (e: Expr<'v128'>) => V128): Vectors => {
  const [d0, d1, d2, d3, d4, d5] = d as [V128, V128, V128, V128, V128, V128];
  const [evenA, oddA] = [keep(sub(d4, mul(d2, bb))), keep(mul(sub(d3, mul(d1, bb)), a))];
  const [evenB, oddB] = [keep(sub(d4, mul(d2, aa))), keep(mul(sub(d3, mul(d1, aa)), b))];
  return [
    add(sub(mul(d0, aa * bb), mul(d2, aa + bb)), d4),
    add(evenA, oddA),
    sub(evenA, oddA),
    add(evenB, oddB),
    sub(evenB, oddB),
    add(sub(mul(d1, aa * bb), mul(d3, aa + bb)), d5),
  ];
};
/** G g */
const weightTransform = ([g0, g1, g2]: readonly V128[], keep: (e: Expr<'v128'>) => V128): Vectors => {
  const [evenA, oddA] = [keep(add(mul(g0!, 1 / na), mul(g2!, aa / na))), keep(mul(g1!, a / na))];
  const [evenB, oddB] = [keep(add(mul(g0!, 1 / nb), mul(g2!, bb / nb))), keep(mul(g1!, b / nb))];
  return [mul(g0!, 1 / n0), add(evenA, oddA), sub(evenA, oddA), add(evenB, oddB), sub(evenB, oddB), g2!];
};
/** Aᵀ m */
const outputTransform = (m: readonly V128[], keep: (e: Expr<'v128'>) => V128): Vectors => {
  const [m0, m1, m2, m3, m4, m5] = m as [V128, V128, V128, V128, V128, V128];
  const [evenA, oddA] = [keep(add(m1, m2)), keep(sub(m1, m2))];
  const [evenB, oddB] = [keep(add(m3, m4)), keep(sub(m3, m4))];
  return [
    add(add(m0, evenA), evenB),
    add(mul(oddA, a), mul(oddB, b)),
    add(mul(evenA, aa), mul(evenB, bb)),
    add(add(mul(oddA, a * aa), mul(oddB, b * bb)), m5),
  ];
};

const noEpilogue: Epilogue = { alpha: 1, activation: 'none', cStride: 0, residualStride: 0 };
const INPUT_WORDS = [
  'x',
  'xImage',
  'xRow',
  'xPixel',
  'h',
  'w',
  'padTop',
  'padLeft',
  'channels',
  'patchRows',
  'patchColumns',
  'firstPatch',
  'v',
  'vPatch',
  'vPosition',
] as const;
export const inputWords = (words: Readonly<Record<(typeof INPUT_WORDS)[number], number>>): readonly number[] => [
  ...epilogueWords(noEpilogue),
  ...INPUT_WORDS.map((word) => words[word]),
];
export const INPUT_KERNEL = 'winograd4Input';

/** bytes of a list of pointers in scratch */
const LIST = 256;

/** Module with `winograd4Input`: v[position][patch][channel] = Bᵀ d B; unit = patch. Channels are stored by fours. */
export const inputModule = (): Uint8Array<ArrayBuffer> => {
  const m = assembler();
  m.kernel(INPUT_KERNEL, (f, { args, start, end, scratch }) => {
    const w = loadWords(f, args, INPUT_WORDS);
    const bytes = f.let(i32.shl(w.channels, 2));
    const zeros = f.let(i32.add(scratch, LIST));
    f.emit(memoryFill(zeros, 0, i32.add(bytes, 16)));
    const keep = (e: Expr<'v128'>): V128 => f.let(e);
    const [unit, c] = [f.local('i32'), f.local('i32')];
    const perImage = f.let(i32.mul(w.patchRows, w.patchColumns));
    f.for(unit, start, end, 1, () => {
      const patch = f.let(i32.add(w.firstPatch, unit));
      const image = f.let(i32.div_u(patch, perImage));
      const rest = f.let(i32.sub(patch, i32.mul(image, perImage)));
      const row = f.let(i32.div_u(rest, w.patchColumns));
      const y0 = f.let(i32.sub(i32.shl(row, 2), w.padTop));
      const x0 = f.let(i32.sub(i32.shl(i32.sub(rest, i32.mul(row, w.patchColumns)), 2), w.padLeft));
      const base = f.let(
        i32.add(i32.add(w.x, i32.mul(image, w.xImage)), i32.add(i32.mul(y0, w.xRow), i32.mul(x0, w.xPixel))),
      );
      for (const i of range(6)) {
        const insideY = f.let(i32.lt_u(i32.add(y0, i), w.h));
        const pixel = f.let(base);
        for (const j of range(6)) {
          const inside = i32.and(insideY, i32.lt_u(i32.add(x0, j), w.w));
          f.emit(i32.store(scratch, select(inside, pixel, zeros), (i * 6 + j) * 4));
          f.set(pixel, i32.add(pixel, w.xPixel));
        }
        f.set(base, i32.add(base, w.xRow));
      }
      const target = f.let(i32.add(w.v, i32.mul(unit, w.vPatch)));
      f.for(c, 0, bytes, 16, () => {
        const half = range(6).map((j) => {
          const column = range(6).map((i) => f.let(v128.load(i32.add(i32.load(scratch, (i * 6 + j) * 4), c))));
          return inputTransform(column, keep).map(keep);
        });
        const to = f.let(i32.add(target, c));
        for (const i of range(6))
          for (const value of inputTransform(
            half.map((column) => column[i]!),
            keep,
          )) {
            f.emit(v128.store(to, value));
            f.set(to, i32.add(to, w.vPosition));
          }
      });
    });
  });
  return m.bytes();
};

const WEIGHT_WORDS = [
  'w',
  'rowStride',
  'columnStride',
  'kStride',
  'laneStride',
  'lanes',
  'k',
  'kPerUnit',
  'u',
  'uPosition',
] as const;
export const weightWords = (words: Readonly<Record<(typeof WEIGHT_WORDS)[number], number>>): readonly number[] => [
  ...epilogueWords(noEpilogue),
  ...WEIGHT_WORDS.map((word) => words[word]),
];
export const weightKernel = (width: number): string => `winograd4Weights${width}`;

/**
 * Module with `winograd4Weights<width>`: u[position][panel][k][width] = G g Gᵀ; unit = `kPerUnit` steps of k of all panels, so
 * that what is read of neighbouring panels is still in the first-level cache. Either lanes or k must be contiguous. Lanes
 * beyond the last are unspecified. May read a panel past the source.
 */
export const weightModule = (width: number): Uint8Array<ArrayBuffer> => {
  const m = assembler();
  m.kernel(weightKernel(width), (f, { args, start, end, scratch }) => {
    const w = loadWords(f, args, WEIGHT_WORDS);
    const keep = (e: Expr<'v128'>): V128 => f.let(e);
    const [unit, k, step] = [f.local('i32'), f.local('i32'), f.local('i32')];
    const taps = range(9).map((tap) =>
      f.let(i32.add(i32.mul(w.rowStride, Math.floor(tap / 3)), i32.mul(w.columnStride, tap % 3))),
    );
    /** nine taps of four lanes → 36 positions */
    const transform = (g: readonly V128[], to: Local<'i32'>): void => {
      const half = range(3).map((x) => weightTransform([g[x]!, g[3 + x]!, g[6 + x]!], keep).map(keep));
      const at = f.let(to);
      for (const y of range(6))
        for (const value of weightTransform(
          half.map((column) => column[y]!),
          keep,
        )) {
          f.emit(v128.store(at, value));
          f.set(at, i32.add(at, w.uPosition));
        }
    };
    const panel = f.local('i32');
    const panels = f.let(i32.div_u(i32.add(w.lanes, width - 1), width));
    f.for(unit, start, end, 1, () =>
      f.for(panel, 0, panels, 1, () => {
        const firstK = f.let(i32.mul(unit, w.kPerUnit));
        const count = f.let(i32.sub(w.k, firstK));
        f.set(count, min(count, w.kPerUnit));
        const target = f.let(i32.add(w.u, i32.mul(i32.add(i32.mul(panel, w.k), firstK), width * 4)));
        const source = f.let(i32.add(w.w, i32.mul(firstK, w.kStride)));
        for (let q = 0; q < width; q += 4) {
          const to = f.let(i32.add(target, q * 4));
          const firstLane = f.let(i32.add(i32.mul(panel, width), q));
          f.if(
            i32.eq(w.laneStride, 4),
            () => {
              const from = f.let(i32.add(source, i32.shl(firstLane, 2)));
              f.for(k, 0, count, 1, () => {
                transform(
                  taps.map((tap) => f.let(v128.load(i32.add(from, tap)))),
                  to,
                );
                f.set(from, i32.add(from, w.kStride));
                f.inc(to, width * 4);
              });
            },
            () => {
              const last = f.let(i32.sub(w.lanes, 1));
              const lanes = range(4).map((i) => {
                const lane = f.let(i32.add(firstLane, i));
                return f.let(i32.add(source, i32.mul(min(lane, last), w.laneStride)));
              });
              f.for(k, 0, count, 4, () => {
                // four steps of k of four lanes at once, turned into scratch[step][tap]
                for (const [i, tap] of taps.entries())
                  transpose(
                    f,
                    lanes.map((lane) => f.let(v128.load(i32.add(lane, tap)))),
                    scratch,
                    i * 16,
                    9 * 16,
                  );
                const steps = f.let(i32.sub(count, k));
                f.if(i32.gt_u(steps, 4), () => f.set(steps, 4));
                const from = f.let(scratch);
                f.for(step, 0, steps, 1, () => {
                  transform(
                    range(9).map((i) => f.let(v128.load(from, i * 16))),
                    to,
                  );
                  f.inc(from, 9 * 16);
                  f.inc(to, width * 4);
                });
                for (const lane of lanes) f.inc(lane, 16);
              });
            },
          );
        }
      }),
    );
  });
  return m.bytes();
};

const OUTPUT_WORDS = [
  'm',
  'mPatch',
  'mPosition',
  'columns',
  'y',
  'oh',
  'ow',
  'patchRows',
  'patchColumns',
  'firstPatch',
  'bias',
  'residual',
] as const;
export const outputWords = (
  epilogue: Epilogue,
  words: Readonly<Record<(typeof OUTPUT_WORDS)[number], number>>,
): readonly number[] => [...epilogueWords(epilogue), ...OUTPUT_WORDS.map((word) => words[word])];
export const OUTPUT_KERNEL = 'winograd4Output';

/** Module with `winograd4Output`: y = act(AᵀmA + bias + residual) for a block of columns; unit = patch. */
export const outputModule = (): Uint8Array<ArrayBuffer> => {
  const m = assembler();
  const silu = m.func('', ['v128'], 'v128', (f, x) => f.return(siluF32x4(f, x)));
  m.kernel(OUTPUT_KERNEL, (f, { args, start, end, scratch }) => {
    const w = loadWords(f, args, OUTPUT_WORDS);
    const keep = (e: Expr<'v128'>): V128 => f.let(e);
    const yPixel = f.let(i32.load(args, EPILOGUE.cStride));
    const residualPixel = f.let(i32.load(args, EPILOGUE.residualStride));
    const activation = f.let(i32.load(args, EPILOGUE.activation));
    const [unit, column] = [f.local('i32'), f.local('i32')];
    const perImage = f.let(i32.mul(w.patchRows, w.patchColumns));
    const bytes = f.let(i32.shl(w.columns, 2));
    f.for(unit, start, end, 1, () => {
      const patch = f.let(i32.add(w.firstPatch, unit));
      const image = f.let(i32.div_u(patch, perImage));
      const rest = f.let(i32.sub(patch, i32.mul(image, perImage)));
      const row = f.let(i32.div_u(rest, w.patchColumns));
      const y0 = f.let(i32.shl(row, 2));
      const x0 = f.let(i32.shl(i32.sub(rest, i32.mul(row, w.patchColumns)), 2));
      // where each of the 16 results goes, and what is added: 0 where the picture has ended
      for (const i of range(4))
        for (const j of range(4)) {
          const inside = i32.and(i32.lt_u(i32.add(y0, i), w.oh), i32.lt_u(i32.add(x0, j), w.ow));
          const pixel = f.let(i32.add(i32.mul(i32.add(i32.mul(image, w.oh), i32.add(y0, i)), w.ow), i32.add(x0, j)));
          const at = (i * 4 + j) * 8;
          f.emit(i32.store(scratch, select(inside, i32.add(w.y, i32.mul(pixel, yPixel)), i32.const(0)), at));
          f.emit(i32.store(scratch, i32.add(w.residual, i32.mul(pixel, residualPixel)), at + 4));
        }
      const from = f.let(i32.add(w.m, i32.mul(unit, w.mPatch)));
      f.for(column, 0, bytes, 16, () => {
        const at = f.let(i32.add(from, column));
        const loaded = range(POSITIONS).map(() => {
          const value = f.let(v128.load(at));
          f.set(at, i32.add(at, w.mPosition));
          return value;
        });
        const half = range(6).map((j) =>
          outputTransform(
            range(6).map((i) => loaded[i * 6 + j]!),
            keep,
          ).map(keep),
        );
        const added = f.let(f32x4.splat(0));
        f.if(w.bias, () => f.set(added, v128.load(i32.add(w.bias, column))));
        const left = f.let(i32.sub(bytes, column));
        for (const i of range(4)) {
          const values = outputTransform(
            half.map((rows) => rows[i]!),
            keep,
          );
          for (const [j, sum] of values.entries()) {
            const place = (i * 4 + j) * 8;
            const to = f.let(i32.load(scratch, place));
            f.if(to, () => {
              const value = f.let(add(sum, added));
              f.if(w.residual, () =>
                f.set(value, add(value, v128.load(i32.add(i32.load(scratch, place + 4), column)))),
              );
              f.if(activation, () => f.set(value, call(silu, [value])));
              storeLanes(f, i32.add(to, column), value, left);
            });
          }
        }
      });
    });
  });
  return m.bytes();
};
