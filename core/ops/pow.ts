/** Powers: whole exponents are products; others a composite that says what happens at and below 0. */
import { checkDtypes, checkLiteral } from '../ir/rules.ts';
import { type Attrs, bind, type Composite, type Tensor } from '../ir/tensor.ts';
import { mapAll } from './batching.ts';
import { full } from './fill.ts';
import {
  abs,
  broadcastAll,
  equal,
  exp,
  floor,
  less,
  log,
  mul,
  neg,
  type Operand,
  recip,
  select,
  sqrt,
  sub,
} from './math.ts';

/**
 * pow: y = aᵇ, elementwise. a < 0: (−1)ᵇ·|a|ᵇ where b is whole, NaN elsewhere. 0ᵇ: 0 for b > 0, 1 for b = 0, ∞ below; a⁰ = 1.
 * da = g·b·aᵇ⁻¹ (0 where b = 0), db = g·y·ln a (0 where a = 0 and b ≥ 0).
 */
export const powOp: Composite<Attrs> = {
  kind: 'composite',
  name: 'pow',
  aliases: ['power'],
  doc: 'power; of negative bases for whole exponents, NaN for others',
  formula: 'y = aᵇ',
  shape(inputs) {
    checkDtypes('pow', inputs, 'float');
    return { shape: inputs[0]!.shape, dtype: inputs[0]!.dtype };
  },
  body([a, b]) {
    const size = exp(mul(log(abs(a!)), b!));
    const half = mul(b!, 0.5);
    const odd = equal(sub(half, floor(half)), 0.5);
    const whole = equal(floor(b!), b!);
    const signed = select(odd, neg(size), size);
    // the root of a negative number is NaN
    const below = select(whole, signed, sqrt(a!));
    return [select(equal(b!, 0), 1, select(less(a!, 0), below, size))];
  },
  vjp([g], [a, b], _attrs, [y]) {
    const da = select(equal(b!, 0), 0, mul(b!, bind(powOp, [a!, sub(b!, 1)], {})));
    // 0ᵇ stays 0 as b moves; below 0 the logarithm is NaN, as there is no derivative
    const db = select(equal(y!, 0), 0, mul(y!, log(a!)));
    return [mul(g!, da), mul(g!, db)];
  },
  batch: (size, inputs, mapped) => [bind(powOp, mapAll(size, inputs, mapped), {})],
  flops: ([a]) => 40 * a!.shape.reduce((p, n) => p * n, 1),
  sample(pick) {
    const shape = [pick(1, 3), pick(1, 4)];
    return { operands: [{ shape, range: [0.3, 3] }, { shape }], attrs: {} };
  },
};

/** the largest whole exponent that is written as products */
const PRODUCTS = 64;
function product(a: Tensor, n: number): Tensor {
  if (n === 1) return a;
  const half = product(a, Math.floor(n / 2));
  const square = mul(half, half);
  return n % 2 === 0 ? square : mul(square, a);
}
/**
 * `pow(a, b)`: y = aᵇ. Whole numbers b up to 64 are products, exact for integers; of other exponents see the rules above
 * (a base below 0 has powers for whole exponents only). da = g·b·aᵇ⁻¹, db = g·y·ln a. Dear for exponents that are no whole
 * number. @throws ShapeError for integers with an exponent that is no whole number of at least 0
 */
export function pow(a: Tensor, b: Operand): Tensor {
  if (typeof b === 'number' && Number.isInteger(b) && Math.abs(b) <= PRODUCTS) {
    if (b === 0) return full(a.shape, 1, a.dtype);
    if (b > 0) checkDtypes('pow', [a], 'number');
    else checkDtypes('pow', [a], 'float');
    return b > 0 ? product(a, b) : recip(product(a, -b));
  }
  if (typeof b === 'number') {
    checkDtypes('pow', [a], 'float');
    checkLiteral('pow', [a], b, a.dtype);
    return bind(powOp, [a, full(a.shape, b, a.dtype)], {});
  }
  return bind(powOp, broadcastAll('pow', [a, b]), {});
}
