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

/** −x */
export const neg = unary('neg');
/** eˣ. Cost: about 16 simple instructions an element, as log, sin, cos, tanh, erf and sigmoid. */
export const exp = unary('exp');
/** ln x; −∞ at 0, NaN below. */
export const log = unary('log');
/** √x; its derivative at 0 is infinite. */
export const sqrt = unary('sqrt');
/** 1/√x */
export const rsqrt = unary('rsqrt');
/** 1/x */
export const recip = unary('recip');
/** sine of radians */
export const sin = unary('sin');
/** cosine of radians */
export const cos = unary('cos');
export const tanh = unary('tanh');
/** error function 2/√π·∫₀ˣ e^(−t²) dt */
export const erf = unary('erf');
/** 1/(1 + e^(−x)) */
export const sigmoid = unary('sigmoid');
/** Largest integer not above x. Has no derivative: @throws MissingRuleError when differentiated. */
export const floor = unary('floor');
/** Logical negation of a bool tensor. */
export const not = unary('not');
/** bool: neither NaN nor infinite. */
export const finite = unary('isFinite');

/** `add(a[2,3], b[3])` → [2,3]: a + b, broadcast. @throws ShapeError when axes neither match nor are 1. */
export const add = binary('add');
/** a − b, broadcast. */
export const sub = binary('sub');
/** a·b element by element, broadcast; matrix products are `dot`. */
export const mul = binary('mul');
/** a/b, broadcast. */
export const div = binary('div');
/** Larger of two; at ties half the gradient goes to each. */
export const maximum = binary('maximum');
/** Smaller of two; at ties half the gradient goes to each. */
export const minimum = binary('minimum');
/** bool: a < b. */
export const less = binary('less');
/** bool: a = b (NaN equals nothing). */
export const equal = binary('equal');
/** `select(condition, a, b)`: a where the condition holds, b elsewhere. */
export const select = (c: Tensor, a: Operand, b: Operand): Tensor => apply('select', [c, a, b]);

/** x² */
export const square = (x: Tensor): Tensor => mul(x, x);
/** |x|; the gradient at 0 is 0. */
export const abs = (x: Tensor): Tensor => maximum(x, neg(x));
/** Limits to [lo, hi]; at a limit half the gradient passes. */
export const clip = (x: Tensor, lo: number, hi: number): Tensor => minimum(maximum(x, lo), hi);
/** aᵇ for a > 0, as e^(b·ln a). */
export const pow = (a: Tensor, b: Operand): Tensor => exp(mul(log(a), b));
