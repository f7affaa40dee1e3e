/**
 * Heads of four numbers: nothing is as wide as a register but the keys. So keys lie in the lanes, eight of them in two vectors
 * (engines with wide registers join the two), and each of a head's four numbers has vectors of its own: k, v, and what adds up
 * over keys. The lanes are added at the very end.
 */
import { type Expr, type FunctionBuilder, f32x4, i32x4, type Local, v128 } from '../../assembler/assemble.ts';
import { multiplyAdd } from '../../assembler/vectorMath.ts';
import { ZERO } from '../../loops/rows.ts';

type I32 = Local<'i32'>;
type Vector = Local<'v128'>;
type Code = Expr<'v128'>;
/** two vectors that lie side by side */
export type Pair = readonly [Vector, Vector];

/** numbers of a head */
export const HEAD = 4;
/** keys of a panel [4][8] */
export const GROUP = 8;
export const PANEL_BYTES = HEAD * GROUP * 4;

const components = [0, 1, 2, 3] as const;
export const pairOf = (f: FunctionBuilder, visit: (i: 0 | 1) => Code): Pair => [f.let(visit(0)), f.let(visit(1))];

/** vector i of the head's number c in a panel */
export const inPanel = (panel: I32, c: number, i: number): Code => v128.load(panel, GROUP * 4 * c + 16 * i);
/** numbers of one row for the eight keys of a panel */
export const inLine = (line: I32, i: number): Code => v128.load(line, 16 * i);
export const storeLine = (f: FunctionBuilder, line: I32, pair: Pair): void => {
  for (const i of [0, 1] as const) f.emit(v128.store(line, pair[i], 16 * i));
};
export const loadPanel = (f: FunctionBuilder, panel: I32): readonly Pair[] =>
  components.map((c) => pairOf(f, (i) => inPanel(panel, c, i)));
/** the four numbers at an address, each in all lanes of a vector */
export const spread = (f: FunctionBuilder, at: I32, offset = 0): readonly Vector[] =>
  components.map((c) => f.let(v128.load32_splat(at, offset + 4 * c)));

/** start + Σ_c x[c]·panel[c]: products of one row with eight keys */
export const rowTimesPanel = (f: FunctionBuilder, x: readonly Vector[], panel: I32, start: Code): Pair => {
  const y = pairOf(f, () => start);
  for (const c of components)
    for (const i of [0, 1] as const) f.set(y[i], multiplyAdd(x[c]!, inPanel(panel, c, i), y[i]));
  return y;
};
/** sums[c] += x·panel[c] */
export const addTimesPanel = (f: FunctionBuilder, sums: readonly Pair[], x: Pair, panel: I32): void => {
  for (const c of components)
    for (const i of [0, 1] as const) f.set(sums[c]![i], multiplyAdd(x[i], inPanel(panel, c, i), sums[c]![i]));
};
export const zeroSums = (f: FunctionBuilder): readonly Pair[] => components.map(() => pairOf(f, () => ZERO));

/** bytes that {@link viaMemory} wants for a pair */
export const PAIR_BYTES = 32;
/** The same pairs after a stop in memory: engines that join vectors begin at what is stored side by side. */
export const viaMemory = (f: FunctionBuilder, pairs: readonly Pair[], at: I32): readonly Pair[] => {
  for (const [k, pair] of pairs.entries())
    for (const i of [0, 1] as const) f.emit(v128.store(at, pair[i], PAIR_BYTES * k + 16 * i));
  return pairs.map((_, k) => pairOf(f, (i) => v128.load(at, PAIR_BYTES * k + 16 * i)));
};
/** the sums of all lanes of four pairs, in fixed order, as one vector; `at` has room for the pairs */
export const addLanes = (f: FunctionBuilder, sums: readonly Pair[], at: I32): Vector => {
  const [a, b, c, d] = viaMemory(f, sums, at).map(([x, y]) => f.let(f32x4.add(x, y))) as [
    Vector,
    Vector,
    Vector,
    Vector,
  ];
  const halves = (x: Vector, y: Vector): Vector =>
    f.let(f32x4.add(v128.shuffle32(x, y, [0, 4, 1, 5]), v128.shuffle32(x, y, [2, 6, 3, 7])));
  const [low, high] = [halves(a, b), halves(c, d)];
  return f.let(f32x4.add(v128.shuffle32(low, high, [0, 1, 4, 5]), v128.shuffle32(low, high, [2, 3, 6, 7])));
};

/** all ones in the first `count` of eight lanes */
export const firstLanes = (f: FunctionBuilder, count: Expr<'i32'>): Pair => {
  const n = f.let(i32x4.splat(count));
  return pairOf(f, (i) => i32x4.gt_s(n, i32x4.const(4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3)));
};

/** `count` rounds, with pointers that move by the given bytes */
export const repeat = (
  f: FunctionBuilder,
  count: Expr<'i32'>,
  moving: readonly (readonly [I32, Expr<'i32'> | number])[],
  round: () => void,
): void => {
  const left = f.let(count);
  f.while(left, () => {
    round();
    for (const [pointer, bytes] of moving) f.inc(pointer, bytes);
    f.inc(left, -1);
  });
};
/**
 * Visits `count` panels, `panels` and `lines` moving along. Never two in a round: V8 would load for both before it multiplies,
 * and spill (Node 20: 1.4 times the time).
 */
export const eachPanel = (
  f: FunctionBuilder,
  count: Expr<'i32'>,
  panels: readonly I32[],
  lines: readonly I32[],
  visit: () => void,
): void => {
  const all = [...panels.map((x) => [x, PANEL_BYTES] as const), ...lines.map((x) => [x, GROUP * 4] as const)];
  repeat(f, count, all, visit);
};
