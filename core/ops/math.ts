/** The public elementwise functions: numpy broadcasting, plain numbers welcome (they take the other operand's dtype). */
import { shapeError } from '../ir/errors.ts';
import { bind, type Shape, type Tensor } from '../ir/tensor.ts';
import { type ElementwiseName, table } from './elementwise.ts';
import { full } from './fill.ts';
import { broadcastTo } from './layout.ts';

export type Operand = Tensor | number;

function broadcastShape(op: string, xs: readonly Tensor[]): Shape {
  const rank = Math.max(...xs.map((x) => x.shape.length));
  return Array.from({ length: rank }, (_, i) => {
    let n = 1;
    for (const x of xs) {
      const m = x.shape[i - rank + x.shape.length] ?? 1;
      if (m !== 1 && n !== 1 && m !== n) throw shapeError(op, xs, `axes must be equal or 1 to broadcast: ${n} ≠ ${m}`);
      if (m !== 1) n = m;
    }
    return n;
  });
}

function apply(name: ElementwiseName, xs: readonly Operand[]): Tensor {
  const tensors = xs.filter((x): x is Tensor => typeof x !== 'number');
  if (tensors.length === 0)
    throw shapeError(name, [], 'at least one operand must be a tensor; plain numbers have no dtype');
  const shape = broadcastShape(name, tensors);
  const dtype = (tensors.find((x) => x.dtype !== 'bool') ?? tensors[0])!.dtype;
  return bind(
    table[name],
    xs.map((x) => (typeof x === 'number' ? full(shape, x, dtype) : broadcastTo(x, shape))),
    {},
  );
}
const unary = (name: ElementwiseName) => (x: Tensor) => apply(name, [x]);
const binary = (name: ElementwiseName) => (a: Operand, b: Operand) => apply(name, [a, b]);

export const [neg, exp, log, sqrt, rsqrt, recip] = [
  unary('neg'),
  unary('exp'),
  unary('log'),
  unary('sqrt'),
  unary('rsqrt'),
  unary('recip'),
];
export const [sin, cos, tanh, erf, sigmoid, floor, not, finite] = [
  unary('sin'),
  unary('cos'),
  unary('tanh'),
  unary('erf'),
  unary('sigmoid'),
  unary('floor'),
  unary('not'),
  unary('isFinite'),
];
export const [add, sub, mul, div] = [binary('add'), binary('sub'), binary('mul'), binary('div')];
export const [maximum, minimum, less, equal] = [binary('maximum'), binary('minimum'), binary('less'), binary('equal')];
/** `select(condition, a, b)`: a where the condition holds, b elsewhere. */
export const select = (c: Tensor, a: Operand, b: Operand): Tensor => apply('select', [c, a, b]);

export const square = (x: Tensor): Tensor => mul(x, x);
/** |x|; the gradient at 0 is 0. */
export const abs = (x: Tensor): Tensor => maximum(x, neg(x));
/** Limits to [lo, hi]; at a limit half the gradient passes. */
export const clip = (x: Tensor, lo: number, hi: number): Tensor => minimum(maximum(x, lo), hi);
/** aᵇ for a > 0, as e^(b·ln a). */
export const pow = (a: Tensor, b: Operand): Tensor => exp(mul(log(a), b));
