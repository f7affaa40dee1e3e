/**
 * The public elementwise functions: numpy broadcasting, plain numbers welcome (they take the other operand's dtype).
 * Formula, derivative and reference loop of each are its row in elementwise.ts. Common to all: @throws ShapeError when
 * axes neither match nor are 1, when dtypes differ or are none the function takes (transcendental functions take floats,
 * conditions are bool), or for a number the other operand's dtype cannot hold (½ beside integers); cost one read of each operand and one write, nothing but the
 * arithmetic inside a cluster. "Dear" below is about 16 simple instructions an element, everything else 1 to 4.
 */
import { type Described, shapeError } from '../ir/errors.ts';
import { checkLiteral } from '../ir/rules.ts';
import { bind, type Shape, type Tensor } from '../ir/tensor.ts';
import { same } from '../ir/view.ts';
import { type ElementwiseName, table } from './elementwise.ts';
import { full } from './fill.ts';
import { broadcastTo } from './layout.ts';

export type Operand = Tensor | number;

/** the shape operands broadcast to. @throws ShapeError when axes are neither equal nor 1 */
export function broadcastShape(op: string, xs: readonly Described[]): Shape {
  const [first] = xs;
  if (first && xs.every((x) => same(x.shape, first.shape))) return first.shape;
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

/** tensors of one shape, for rules that want them so */
export function broadcastAll(op: string, xs: readonly Tensor[]): Tensor[] {
  const shape = broadcastShape(op, xs);
  return xs.map((x) => broadcastTo(x, shape));
}

function apply(name: ElementwiseName, xs: readonly Operand[]): Tensor {
  const tensors = xs.filter((x): x is Tensor => typeof x !== 'number');
  if (tensors.length === 0)
    throw shapeError(name, [], 'at least one operand must be a tensor; plain numbers have no dtype');
  const shape = broadcastShape(name, tensors);
  const dtype = (tensors.find((x) => x.dtype !== 'bool') ?? tensors[0])!.dtype;
  for (const x of xs) if (typeof x === 'number') checkLiteral(name, tensors, x, dtype);
  return bind(
    table[name],
    xs.map((x) => (typeof x === 'number' ? full(shape, x, dtype) : broadcastTo(x, shape))),
    {},
  );
}
const unary = (name: ElementwiseName) => (x: Tensor) => apply(name, [x]);
const binary = (name: ElementwiseName) => (a: Operand, b: Operand) => apply(name, [a, b]);

/** `neg(x)`: y = −x, dx = −g. */
export const neg = unary('neg');
/** `exp(x)`: y = eˣ, dx = g·y. Dear. */
export const exp = unary('exp');
/** `log(x)`: y = ln x, dx = g/x; −∞ at 0, NaN below. Dear. */
export const log = unary('log');
/** `sqrt(x)`: y = √x, dx = g/(2y), infinite at 0. */
export const sqrt = unary('sqrt');
/** `rsqrt(x)`: y = 1/√x, dx = −g·y/(2x). */
export const rsqrt = unary('rsqrt');
/** `recip(x)`: y = 1/x, dx = −g·y². */
export const recip = unary('recip');
/** `sin(x)`: y = sin x of radians, dx = g·cos x. Dear. */
export const sin = unary('sin');
/** `cos(x)`: y = cos x of radians, dx = −g·sin x. Dear. */
export const cos = unary('cos');
/** `tanh(x)`: y = tanh x, dx = g·(1 − y²). Dear. */
export const tanh = unary('tanh');
/** `erf(x)`: y = 2/√π·∫₀ˣ e^(−t²) dt, dx = g·2/√π·e^(−x²). Dear. */
export const erf = unary('erf');
/** `sigmoid(x)`: y = 1/(1 + e^(−x)), dx = g·y·(1 − y). Dear. */
export const sigmoid = unary('sigmoid');
/** `floor(x)`: y = ⌊x⌋, the largest integer not above x. @throws MissingRuleError when differentiated. */
export const floor = unary('floor');
/** `not(c)`: y = ¬c of a bool tensor. No gradient flows through bools. */
export const not = unary('not');
/** `isFinite(x[…])` → bool[…]: neither NaN nor infinite; integers and bools always are. */
export const finite = unary('isFinite');

/** `add(a[2,3], b[3])` → [2,3]: y = a + b, da = g, db = g summed over what was broadcast (as for all below). */
export const add = binary('add');
/** `sub(a, b)`: y = a − b, da = g, db = −g. */
export const sub = binary('sub');
/** `mul(a, b)`: y = a·b element by element, da = g·b, db = g·a; matrix products are `dot`. */
export const mul = binary('mul');
/** `div(a, b)`: y = a/b, da = g/b, db = −g·y/b. */
export const div = binary('div');
/** `maximum(a, b)`: y = max(a, b); the gradient goes to the larger, at ties half to each. */
export const maximum = binary('maximum');
/** `minimum(a, b)`: y = min(a, b); the gradient goes to the smaller, at ties half to each. */
export const minimum = binary('minimum');
/** `less(a, b)` → bool: y = a < b. */
export const less = binary('less');
/** `equal(a, b)` → bool: y = (a = b); NaN equals nothing. */
export const equal = binary('equal');
/** `select(c, a, b)`: y = a where c holds, b elsewhere; the gradient goes where the value came from. */
export const select = (c: Tensor, a: Operand, b: Operand): Tensor => apply('select', [c, a, b]);

/** `square(x)`: y = x², dx = 2g·x. */
export const square = (x: Tensor): Tensor => mul(x, x);
/** `abs(x)`: y = |x| = max(x, −x); the gradient at 0 is 0. */
export const abs = (x: Tensor): Tensor => maximum(x, neg(x));
/** `clip(x, lo, hi)`: y = min(max(x, lo), hi); at a limit half the gradient passes. */
export const clip = (x: Tensor, lo: number, hi: number): Tensor => minimum(maximum(x, lo), hi);
