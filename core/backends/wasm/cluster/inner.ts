/** What the kernels of clusters share: the inputs they read, and the loop along a row, four neighbours at a time. */
import { type Expr, type FunctionBuilder, i32, type Local, v128 } from '../assembler/assemble.ts';
import type { KernelCode } from '../kernel.ts';
import { type GatherStrides, gather, gatherTail, loadTail } from '../loops/tails.ts';
import { type Evaluator, evaluator, type Program, programPrice } from './scalarCode.ts';

type I32 = Local<'i32'>;

/** names of the inputs whose pointers move */
export const movingOf = ({ access }: Program): string[] => access.flatMap((a, i) => (a === 'scalar' ? [] : [`x${i}`]));
export const gathersOf = ({ access }: Program): number[] => access.flatMap((a, i) => (a === 'gather' ? [i] : []));
/** words of all inputs: their addresses, and the inner strides of gathered ones */
export const inputNames = (p: Program): string[] => [
  ...p.access.map((_, i) => `x${i}`),
  ...gathersOf(p).map((i) => `x${i}.inner`),
];

const usesInner = (p: Program): boolean => p.steps.some((s) => s.kind === 'iota' && p.coordinates[s.axis] === 'inner');
/** vectors per round: enough to hide the loop, few enough that the registers hold one */
export const unrollOf = (p: Program): number => {
  const price = programPrice(p);
  return price <= 8 ? 4 : price <= 12 ? 2 : 1;
};

/** the values of a program inside a kernel */
export interface Begun {
  readonly program: Program;
  readonly values: Evaluator;
  readonly strides: Readonly<Record<number, GatherStrides>>;
}
const gatherStrides = (f: FunctionBuilder, one: Expr<'i32'>): GatherStrides => {
  const inner = f.let(one);
  return [inner, ...[2, 3, 4].map((n) => f.let(i32.mul(inner, n)))] as unknown as GatherStrides;
};
/** computes what is the same in the whole kernel */
export const begin = ({ f, read, splat }: KernelCode<string>, program: Program): Begun => {
  const values = evaluator(f, program, (step) => splat(`c${step}`));
  values.run(0, { load: (i) => v128.load32_splat(read(`x${i}`)) });
  const strides = gathersOf(program).map((i) => [i, gatherStrides(f, read(`x${i}.inner`))] as const);
  return { program, values, strides: Object.fromEntries(strides) };
};

/** the length of piece number `piece` of the `count` pieces of a row */
export const pieceLength = ({ f, read }: KernelCode<string>, piece: I32, count: string): I32 => {
  const length = f.let(read('piece'));
  f.if(i32.eq(i32.add(piece, 1), read(count)), () => f.set(length, read('lastPiece')));
  return length;
};
/** the inner coordinate at the beginning of a piece, where a program reads it */
export const innerIndex = ({ f, read }: KernelCode<string>, p: Program, piece: I32): I32 | undefined =>
  usesInner(p) ? f.let(i32.mul(piece, read('piece'))) : undefined;

/**
 * Computes the steps of every vector along a piece of a row. `pointers` stand at its first element; `results` are moved
 * with contiguous inputs. `visit` finds the values of the u-th vector since they moved; `left`: the last 1–3 numbers.
 */
export const alongPiece = (
  code: KernelCode<string>,
  { program, values, strides }: Begun,
  pointers: Readonly<Record<string, I32>>,
  piece: I32,
  length: I32,
  results: readonly I32[],
  visit: (u: number, left?: I32) => void,
): void => {
  const { f, m } = code;
  const moving = program.access.map((a, i) => (a === 'unit' || a === 'gather' ? f.let(pointers[`x${i}`]!) : undefined));
  const index = innerIndex(code, program, piece);
  const left = f.let(length);
  const vector = (u: number): void => {
    const load = (i: number): Expr<'v128'> =>
      program.access[i] === 'unit' ? v128.load(moving[i]!, 16 * u) : gather(moving[i]!, strides[i]!);
    values.run(2, { load, inner: () => i32.add(index!, 4 * u) });
    visit(u);
    for (const i of gathersOf(program)) f.inc(moving[i]!, strides[i]![3]);
  };
  const round = (vectors: number): void => {
    for (let u = 0; u < vectors; u++) vector(u);
    for (const [i, a] of program.access.entries()) if (a === 'unit') f.inc(moving[i]!, 16 * vectors);
    for (const p of results) f.inc(p, 16 * vectors);
    if (index) f.inc(index, 4 * vectors);
    f.inc(left, -4 * vectors);
  };
  const unroll = unrollOf(program);
  if (unroll > 1) f.while(i32.ge_u(left, 4 * unroll), () => round(unroll));
  f.while(i32.ge_u(left, 4), () => round(1));
  f.if(left, () => {
    const load = (i: number): Expr<'v128'> =>
      program.access[i] === 'unit' ? loadTail(m, moving[i]!, left) : gatherTail(m, moving[i]!, strides[i]![0], left);
    values.run(2, { load, inner: () => index! });
    visit(0, left);
  });
};
