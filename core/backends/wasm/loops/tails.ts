/** Parts of vectors: the last 1–3 numbers of a row, and words that do not lie side by side. */
import {
  type Assembler,
  call,
  type Expr,
  type Func,
  type FunctionBuilder,
  i32,
  i32x4,
  type Local,
  type Num,
  v128,
} from '../assembler/assemble.ts';

type Code = Expr<'v128'>;

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

/** stores the first `bytes` (4, 8, 12 or ≥ 16) of a vector */
export const storeLanes = (
  f: FunctionBuilder,
  address: Expr<'i32'>,
  value: Local<'v128'>,
  bytes: Expr<'i32'>,
): void => {
  const to = f.let(address);
  const left = f.let(bytes);
  f.if(
    i32.ge_u(left, 16),
    () => f.emit(v128.store(to, value)),
    () => {
      f.emit(v128.store32_lane(to, value, 0));
      f.if(i32.gt_u(left, 4), () => f.emit(v128.store32_lane(to, value, 1, 4)));
      f.if(i32.gt_u(left, 8), () => f.emit(v128.store32_lane(to, value, 2, 8)));
    },
  );
};
