/**
 * Functions of one number that the elementwise table does not hold: written in its functions so that they are accurate
 * where the obvious formula is not, each with its derivative in closed form (a derivative of the accurate form would be
 * that of its pieces). Every backend fuses the body into one loop. Errors: a few units in the last place.
 */
import { shapeError } from '../ir/errors.ts';
import { checkDtypes } from '../ir/rules.ts';
import { type Attrs, bind, type Composite, type Tensor } from '../ir/tensor.ts';
import { mapAll } from '../ops/batching.ts';
import { full } from '../ops/fill.ts';
import {
  abs,
  add,
  broadcastAll,
  cos,
  div,
  equal,
  erf,
  exp,
  less,
  log,
  maximum,
  minimum,
  mul,
  neg,
  recip,
  rsqrt,
  select,
  sigmoid,
  sin,
  sqrt,
  square,
  sub,
  tanh,
} from '../ops/math.ts';

interface Definition {
  readonly aliases?: readonly string[];
  readonly doc: string;
  readonly formula: string;
  readonly body: (x: readonly Tensor[]) => Tensor;
  /** (x, y) → ∂y/∂x of every operand */
  readonly slope: (x: readonly Tensor[], y: Tensor) => readonly Tensor[];
  /** the domain in tests */
  readonly range?: readonly [number, number];
  readonly arity?: number;
}

function smooth(name: string, { aliases = [], arity = 1, range = [-2, 2], ...d }: Definition): Composite<Attrs> {
  const op: Composite<Attrs> = {
    kind: 'composite',
    name,
    aliases,
    doc: d.doc,
    formula: d.formula,
    shape(inputs) {
      checkDtypes(name, inputs, 'float');
      const [first] = inputs;
      if (inputs.some((x) => x.shape.join() !== first!.shape.join()))
        throw shapeError(name, inputs, 'operands must have equal shapes');
      return { shape: first!.shape, dtype: first!.dtype };
    },
    body: (x) => [d.body(x)],
    vjp: ([g], x, _attrs, [y]) => d.slope(x, y!).map((slope) => mul(g!, slope)),
    batch: (size, inputs, mapped) => [bind(op, mapAll(size, inputs, mapped), {})],
    flops: ([x]) => 32 * x!.shape.reduce((p, n) => p * n, 1),
    sample(pick) {
      const shape = Array.from({ length: pick(0, 2) }, () => pick(1, 4));
      return { operands: Array.from({ length: arity }, () => ({ shape, range })), attrs: {} };
    },
  };
  return op;
}

/** c₀ + c₁·x + … + cₙ·xⁿ with n ≥ 1 */
function polynomial(x: Tensor, c: readonly number[]): Tensor {
  const lower = c.slice(0, -2).reverse();
  return lower.reduce<Tensor>((p, k) => add(mul(p, x), k), add(mul(x, c.at(-1)!), c.at(-2)!));
}
/** the first n terms of Σ term(k)·x^(2k+1) */
const odd = (x: Tensor, n: number, term: (k: number) => number): Tensor =>
  mul(
    x,
    polynomial(
      square(x),
      Array.from({ length: n }, (_, k) => term(k)),
    ),
  );
const factorial = (n: number): number => (n < 2 ? 1 : n * factorial(n - 1));
/** the sign bit, that of −0 too */
const negative = (x: Tensor): Tensor => maximum(less(x, 0), mul(equal(x, 0), less(recip(x), 0)));

export const expm1Op = smooth('expm1', {
  doc: 'eˣ − 1, accurate near 0',
  formula: 'y = eˣ − 1',
  // with t = tanh(x/2), eˣ − 1 = 2t/(1 − t); beyond ½ nothing is lost by the subtraction
  body([x]) {
    const t = tanh(mul(x!, 0.5));
    return select(less(abs(x!), 0.5), div(mul(t, 2), sub(1, t)), sub(exp(x!), 1));
  },
  slope: ([x]) => [exp(x!)],
});
export const log1pOp = smooth('log1p', {
  doc: 'ln(1 + x), accurate near 0',
  formula: 'y = ln(1 + x)',
  // ln(1 + x) = 2·artanh(x/(2 + x))
  body([x]) {
    const near = mul(
      odd(div(x!, add(x!, 2)), 11, (k) => 1 / (2 * k + 1)),
      2,
    );
    return select(less(abs(x!), 0.3), near, log(add(x!, 1)));
  },
  slope: ([x]) => [recip(add(x!, 1))],
  range: [-0.8, 2],
});
export const sinhOp = smooth('sinh', {
  doc: 'hyperbolic sine',
  formula: 'y = (eˣ − e⁻ˣ)/2',
  body([x]) {
    const near = odd(x!, 9, (k) => 1 / factorial(2 * k + 1));
    const root = exp(mul(abs(x!), 0.5));
    // e^|x|/2 as a product of roots, which overflows only where the result does
    const far = sub(mul(mul(root, 0.5), root), div(0.5, square(root)));
    return select(less(abs(x!), 1), near, select(less(x!, 0), neg(far), far));
  },
  slope: ([x]) => [cosh(x!)],
});
export const coshOp = smooth('cosh', {
  doc: 'hyperbolic cosine',
  formula: 'y = (eˣ + e⁻ˣ)/2',
  body([x]) {
    const root = exp(mul(abs(x!), 0.5));
    return add(mul(mul(root, 0.5), root), div(0.5, square(root)));
  },
  slope: ([x]) => [sinh(x!)],
});
export const atanOp = smooth('atan', {
  aliases: ['arctan'],
  doc: 'inverse tangent, in (−π/2, π/2)',
  formula: 'y = arctan x',
  // beyond 1 that of 1/x; halved twice, so that eleven terms of the series are enough
  body([x]) {
    const large = less(1, abs(x!));
    const half = (z: Tensor): Tensor => div(z, add(sqrt(add(square(z), 1)), 1));
    const z = half(half(select(large, recip(x!), x!)));
    const y = mul(
      odd(z, 12, (k) => (-1) ** k / (2 * k + 1)),
      4,
    );
    const right = full(x!.shape, Math.PI / 2, x!.dtype);
    return select(large, sub(select(less(x!, 0), neg(right), right), y), y);
  },
  slope: ([x]) => [recip(add(square(x!), 1))],
});
export const asinOp = smooth('asin', {
  aliases: ['arcsin'],
  doc: 'inverse sine, in [−π/2, π/2]; NaN beyond ±1',
  formula: 'y = arcsin x',
  body: ([x]) => atan(div(x!, sqrt(mul(sub(1, x!), add(x!, 1))))),
  slope: ([x]) => [rsqrt(mul(sub(1, x!), add(x!, 1)))],
  range: [-0.9, 0.9],
});
export const acosOp = smooth('acos', {
  aliases: ['arccos'],
  doc: 'inverse cosine, in [0, π]; NaN beyond ±1',
  formula: 'y = arccos x',
  body: ([x]) => mul(atan(sqrt(div(sub(1, x!), add(x!, 1)))), 2),
  slope: ([x]) => [neg(rsqrt(mul(sub(1, x!), add(x!, 1))))],
  range: [-0.9, 0.9],
});
export const atan2Op = smooth('atan2', {
  aliases: ['arctan2'],
  doc: 'angle of the point (x, y), in [−π, π]; the signs of zeros count',
  formula: 'φ = arg(x + iy)',
  arity: 2,
  body([y, x]) {
    const [high, wide] = [abs(y!), abs(x!)];
    const [short, long] = [minimum(high, wide), maximum(high, wide)];
    // equal sides, both infinite or both 0 included, make 1 or 0
    const ratio = select(equal(short, long), select(equal(long, 0), long, 1), div(short, long));
    const eighth = atan(ratio);
    const quarter = select(less(wide, high), sub(Math.PI / 2, eighth), eighth);
    const half = select(negative(x!), sub(Math.PI, quarter), quarter);
    return select(negative(y!), neg(half), half);
  },
  slope([y, x]) {
    const length = add(square(y!), square(x!));
    return [div(x!, length), neg(div(y!, length))];
  },
});
export const softplusOp = smooth('softplus', {
  doc: 'smooth maximum of x and 0, without overflow',
  formula: 'y = ln(1 + eˣ)',
  body: ([x]) => add(maximum(x!, 0), log1p(exp(neg(abs(x!))))),
  slope: ([x]) => [sigmoid(x!)],
});
export const erfInvOp = smooth('erfInv', {
  aliases: ['erfinv', 'inverse error function'],
  doc: 'inverse of the error function; ±∞ at ±1, NaN beyond',
  formula: 'erf(y) = x',
  // M. Giles 2012, Approximating the erfinv function: to f32; Newton's steps make f64 of it
  body([x]) {
    const w = neg(log(mul(sub(1, x!), add(x!, 1))));
    const middle = polynomial(
      sub(w, 2.5),
      [
        1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.00021858087, -4.39150654e-6, -3.5233877e-6,
        3.43273939e-7, 2.81022636e-8,
      ],
    );
    const tails = polynomial(
      sub(sqrt(w), 3),
      [
        2.83297682, 1.00167406, 0.00943887047, -0.0076224613, 0.00573950773, -0.00367342844, 0.00134934322,
        0.000100950558, -0.000200214257,
      ],
    );
    let y = mul(select(less(w, 5), middle, tails), x!);
    const steps = x!.dtype === 'f64' ? 2 : 0;
    for (let i = 0; i < steps; i++) y = sub(y, mul(mul(sub(erf(y), x!), Math.sqrt(Math.PI) / 2), exp(square(y))));
    return select(equal(abs(x!), 1), div(x!, sub(1, abs(x!))), y);
  },
  slope: (_x, y) => [mul(exp(square(y)), Math.sqrt(Math.PI) / 2)],
  range: [-0.9, 0.9],
});
export const smoothOps = [
  expm1Op,
  log1pOp,
  sinhOp,
  coshOp,
  atanOp,
  asinOp,
  acosOp,
  atan2Op,
  softplusOp,
  erfInvOp,
] as const;

const unary = (op: Composite<Attrs>) => (x: Tensor) => bind(op, [x], {});
/** `expm1(x[…])` → […]: y = eˣ − 1 without its cancellation near 0, dx = g·eˣ. @throws ShapeError for integers. Dear. */
export const expm1 = unary(expm1Op);
/** `log1p(x[…])` → […]: y = ln(1 + x) without its cancellation near 0, dx = g/(1 + x). @throws ShapeError for integers. Dear. */
export const log1p = unary(log1pOp);
/** `sinh(x[…])` → […]: y = (eˣ − e⁻ˣ)/2, accurate near 0, dx = g·cosh x. @throws ShapeError for integers. Dear. */
export const sinh = unary(sinhOp);
/** `cosh(x[…])` → […]: y = (eˣ + e⁻ˣ)/2, dx = g·sinh x. @throws ShapeError for integers. Dear. */
export const cosh = unary(coshOp);
/** `tan(x[…])` → […]: y = sin x / cos x of radians, dx = g·(1 + y²). @throws ShapeError for integers. Twice dear. */
export const tan = (x: Tensor): Tensor => div(sin(x), cos(x));
/** `atan(x[…])` → […]: y = arctan x, in (−π/2, π/2), dx = g/(1 + x²). @throws ShapeError for integers. Twice dear. */
export const atan = unary(atanOp);
/** `asin(x[…])` → […]: y = arcsin x, in [−π/2, π/2], NaN beyond ±1, dx = g/√(1 − x²). @throws ShapeError for integers. Twice dear. */
export const asin = unary(asinOp);
/** `acos(x[…])` → […]: y = arccos x, in [0, π], NaN beyond ±1, dx = −g/√(1 − x²). @throws ShapeError for integers. Twice dear. */
export const acos = unary(acosOp);
/**
 * `atan2(y[2,3], x[3])` → [2,3]: the angle of the point (x, y) in [−π, π], with broadcasting; dy = g·x/(x² + y²),
 * dx = −g·y/(x² + y²). @throws ShapeError for integers and shapes that do not broadcast. Three times dear.
 * @example atan2(tensor([1]), tensor([-1])) // [2.356] = ¾π
 */
export const atan2 = (y: Tensor, x: Tensor): Tensor => bind(atan2Op, broadcastAll('atan2', [y, x]), {});
/** `softplus(x[…])` → […]: y = ln(1 + eˣ) without overflow, dx = g·σ(x). @throws ShapeError for integers. Twice dear. */
export const softplus = unary(softplusOp);
/** `erfInv(x[…])` → […]: erf(y) = x, ±∞ at ±1, NaN beyond, dx = g·√π/2·e^(y²). @throws ShapeError for integers. Three times dear. */
export const erfInv = unary(erfInvOp);
