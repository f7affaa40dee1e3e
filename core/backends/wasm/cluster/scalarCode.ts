/** The scalar program of a cluster as SIMD code: loads, constants, coordinates and calls, each computed as rarely as possible. */
import type { Access } from '../../../compile/axes.ts';
import type { ScalarStep } from '../../../compile/scalar.ts';
import type { DType } from '../../../ir/dtype.ts';
import { type Expr, type FunctionBuilder, f32x4, i32x4, type Local } from '../assembler/assemble.ts';
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
