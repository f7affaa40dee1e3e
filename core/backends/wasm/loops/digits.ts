/** What kernels cut their work with: a number of a unit into its digits, and the shorter of two lengths. */
import { type Expr, type FunctionBuilder, i32, type Local, select } from '../assembler/assemble.ts';

/** Splits `value` as a number in mixed radix: value = rest·radix + digit. */
export const digit = (f: FunctionBuilder, value: Local<'i32'>, radix: Expr<'i32'>): Local<'i32'> => {
  const rest = f.let(i32.div_u(value, radix));
  const result = f.let(i32.sub(value, i32.mul(rest, radix)));
  f.set(value, rest);
  return result;
};
export const min = (a: Local<'i32'>, b: Local<'i32'>): Expr<'i32'> => select(i32.lt_u(a, b), a, b);
