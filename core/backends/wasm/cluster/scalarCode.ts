/** The scalar program of a cluster as SIMD code: loads, constants, coordinates and calls, each computed as rarely as possible. */
import type { Access } from '../../../compile/axes.ts';
import type { ScalarStep } from '../../../compile/scalar.ts';
import type { DType } from '../../../ir/dtype.ts';
import {
  type Assembler,
  call,
  type Expr,
  type Func,
  type FunctionBuilder,
  f32x4,
  i32,
  i32x4,
  type Local,
  type Num,
  v128,
} from '../assembler/assemble.ts';
import { castCode, loaded, priceOf, printCall } from './math.ts';

type Value = Local<'v128'>;
type Code = Expr<'v128'>;

/** what a kernel is made for; everything else is an argument */
export interface Program {
  readonly steps: readonly ScalarStep[];
  readonly dtypes: readonly DType[];
  readonly access: readonly Access[];
  /** cluster axis → where its coordinate comes from: an axis of a walk, the inner axis, or `none` (size 1) */
  readonly coordinates: Readonly<Record<number, Coordinate>>;
}
export type Coordinate = { readonly walk: string; readonly axis: number } | 'inner' | 'none';

/** the structure of a program as text: equal text, equal kernel */
export const programKey = (p: Program): string => {
  const steps = p.steps.map((s) => {
    if (s.kind === 'load') return `l${s.input}`;
    if (s.kind === 'const') return `c${s.dtype}`;
    if (s.kind === 'iota') {
      const c = p.coordinates[s.axis]!;
      return `i${s.dtype}@${typeof c === 'string' ? c : `${c.walk}${c.axis}`}`;
    }
    return `${s.fn}:${s.dtype}(${s.args.join()})`;
  });
  return `${p.dtypes.map((d, i) => `${d}/${p.access[i]}`).join()}|${steps.join(' ')}`;
};

/** simple instructions of one evaluation */
export const programPrice = (p: Program): number =>
  p.steps.reduce(
    (sum, s) =>
      sum + (s.kind === 'call' ? priceOf(s.fn) : s.kind === 'load' ? (p.access[s.input] === 'gather' ? 8 : 1) : 0),
    1,
  );

/** 0: once in a kernel, 1: once in a row, 2: at every vector */
type Level = 0 | 1 | 2;
const accessLevel: Readonly<Record<Access, Level>> = { scalar: 0, splat: 1, unit: 2, gather: 2 };
export const stepLevels = (p: Program): Level[] => {
  const levels: Level[] = [];
  for (const s of p.steps) {
    if (s.kind === 'load') levels.push(accessLevel[p.access[s.input]!]);
    else if (s.kind === 'const') levels.push(0);
    else if (s.kind === 'iota') {
      const c = p.coordinates[s.axis]!;
      levels.push(c === 'none' ? 0 : c === 'inner' ? 2 : 1);
    } else levels.push(Math.max(0, ...s.args.map((a) => levels[a]!)) as Level);
  }
  return levels;
};

/** names of the words the steps read: constants, and the base of scalar inputs */
export const programNames = (p: Program): string[] => p.steps.flatMap((s, i) => (s.kind === 'const' ? [`c${i}`] : []));
/** their values */
export const programWords = (p: Program): Record<string, number> =>
  Object.fromEntries(
    p.steps.flatMap((s, i) => (s.kind === 'const' ? [[`c${i}`, constantBits(s.value, s.dtype)]] : [])),
  );
const constantBits = (value: number, dtype: DType): number => {
  if (dtype === 'f32') return new Int32Array(Float32Array.of(value).buffer)[0]!;
  return dtype === 'bool' ? (value ? 1 : 0) : Math.trunc(value) | 0;
};

/** where one evaluation finds what it needs */
export interface Source {
  /** raw words of input i, in four lanes */
  load(input: number): Code;
  /** coordinate along an axis of a walk */
  coordinate(walk: string, axis: number): Expr<'i32'>;
  /** coordinate of lane 0 along the inner axis */
  inner(): Expr<'i32'>;
}

export interface Evaluator {
  /** computes the steps of one level; the values of lower levels must be there */
  run(level: Level, source: Partial<Source>): void;
  /** the value of a step after its level has run */
  value(step: number): Value;
}

/** Emits the steps of a program level by level. `constant(step)` is code that loads the word of a constant into all lanes. */
export const evaluator = (f: FunctionBuilder, p: Program, constant: (step: number) => Code): Evaluator => {
  const levels = stepLevels(p);
  const values: Value[] = [];
  const asDType = (x: Code, dtype: DType): Code => (dtype === 'f32' ? f32x4.convert_i32x4_s(x) : x);
  const code = (s: ScalarStep, i: number, source: Partial<Source>): Code => {
    switch (s.kind) {
      case 'const':
        return loaded(constant(i), s.dtype);
      case 'load':
        return loaded(source.load!(s.input), p.dtypes[s.input]!);
      case 'iota': {
        const c = p.coordinates[s.axis]!;
        if (c === 'none') return i32x4.splat(0);
        if (c !== 'inner') return asDType(i32x4.splat(source.coordinate!(c.walk, c.axis)), s.dtype);
        return asDType(i32x4.add(i32x4.splat(source.inner!()), i32x4.const(0, 1, 2, 3)), s.dtype);
      }
      case 'call': {
        const operands = s.args.map((a) => p.steps[a]!.dtype);
        const args = s.args.map((a) => values[a]!);
        return s.converts ? castCode(args[0]!, operands[0]!, s.dtype) : printCall(f, s.fn, args, operands);
      }
    }
  };
  return {
    run: (level, source) => {
      for (const [i, s] of p.steps.entries()) if (levels[i] === level) values[i] = f.let(code(s, i, source));
    },
    value: (step) => values[step]!,
  };
};

/** Functions for parts of a vector, made once per module; they touch no memory beyond the elements asked for. */
interface Tails {
  readonly load: Func<'v128'>;
  readonly gather: Func<'v128'>;
  readonly store: Func;
  readonly scatter: Func;
}
const tails = new WeakMap<Assembler, Tails>();
/** (address, count) → lanes 0 … count − 1, the others 0 */
const tailFunctions = (m: Assembler): Tails => {
  const known = tails.get(m);
  if (known) return known;
  const made: Tails = {
    load: m.func('', ['i32', 'i32'], 'v128', (f, at, count) => {
      f.if(i32.eq(count, 1), () => f.return(v128.load32_zero(at)));
      f.if(i32.eq(count, 2), () => f.return(v128.load64_zero(at)));
      f.return(v128.load32_lane(at, v128.load64_zero(at), 2, 8));
    }),
    gather: m.func('', ['i32', 'i32', 'i32'], 'v128', (f, at, stride, count) => {
      const x = f.let(v128.load32_zero(at));
      f.if(i32.gt_u(count, 1), () => f.set(x, v128.load32_lane(i32.add(at, stride), x, 1)));
      f.if(i32.gt_u(count, 2), () => f.set(x, v128.load32_lane(i32.add(at, i32.shl(stride, 1)), x, 2)));
      f.return(x);
    }),
    store: m.func('', ['i32', 'v128', 'i32'], 'void', (f, at, value, count) => {
      f.if(i32.eq(count, 1), () => {
        f.emit(v128.store32_lane(at, value, 0));
        f.return();
      });
      f.emit(v128.store64_lane(at, value, 0));
      f.if(i32.eq(count, 3), () => f.emit(v128.store32_lane(at, value, 2, 8)));
    }),
    scatter: m.func('', ['i32', 'i32', 'v128', 'i32'], 'void', (f, at, stride, value, count) => {
      f.emit(v128.store32_lane(at, value, 0));
      for (let lane = 1; lane < 4; lane++)
        f.if(i32.gt_u(count, lane), () => {
          f.inc(at, stride);
          f.emit(v128.store32_lane(at, value, lane));
        });
    }),
  };
  tails.set(m, made);
  return made;
};
/** makes these functions; must run before the first function that uses them */
export const prepareTails = (m: Assembler): void => void tailFunctions(m);
export const loadTail = (m: Assembler, at: Expr<'i32'>, count: Expr<'i32'>): Code =>
  call(tailFunctions(m).load, [at, count]);
export const gatherTail = (m: Assembler, at: Expr<'i32'>, stride: Expr<'i32'>, count: Expr<'i32'>): Code =>
  call(tailFunctions(m).gather, [at, stride, count]);
export const storeTail = (m: Assembler, at: Expr<'i32'>, value: Code, count: Expr<'i32'>) =>
  call(tailFunctions(m).store, [at, value, count]);
/** writes lanes 0 … count − 1 to `at`, `at + stride`, … */
export const scatter = (m: Assembler, at: Expr<'i32'>, stride: Expr<'i32'>, value: Code, count: Num<'i32'>) =>
  call(tailFunctions(m).scatter, [at, stride, value, count]);

/** 1, 2, 3 and 4 times the inner stride of a gathering input */
export type GatherStrides = readonly [Local<'i32'>, Local<'i32'>, Local<'i32'>, Local<'i32'>];
/** four words at `at`, `at + stride`, … */
export const gather = (at: Expr<'i32'>, strides: GatherStrides): Code => {
  let x = v128.load32_zero(at);
  for (let lane = 1; lane < 4; lane++) x = v128.load32_lane(i32.add(at, strides[lane - 1]!), x, lane);
  return x;
};
/** lanes below `count` are all ones */
export const laneMask = (count: Expr<'i32'>): Code => i32x4.lt_u(i32x4.const(0, 1, 2, 3), i32x4.splat(count));
