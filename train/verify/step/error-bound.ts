/**
 * How far an f32 evaluation of a graph may lie from the exact one: first-order forward error analysis, node by node.
 *
 *   e(out) = Σ |∂out/∂in|·e(in) + local,   local = c·u·|y| for a rounded function, λ·√n·u·Σ|terms| for a sum of n terms
 *
 * with u = 2⁻²⁴. A sum stays within λ√n·u·Σ|terms| with probability ≥ 1 − 2n·e^(−λ²/2) (Higham and Mary 2019): λ = 4 is never
 * exceeded in practice, λ = 1 by few elements. The absolute values of a bilinear op's terms are the op of absolute values.
 */

import { simplify } from '../../../core/compile/simplify.ts';
import { abs, add, cast, cpuBackend, evaluate, max, mul, ones, read, type Tensor, zeros } from '../../../core/index.ts';
import { isFloat } from '../../../core/ir/dtype.ts';
import { type Attrs, bindAll, type Primitive, rebind, topo } from '../../../core/ir/tensor.ts';
import { sizeOf } from '../../../core/ir/view.ts';

const cpu = cpuBackend();

/** unit roundoff of f32 */
const U = 2 ** -24;
/** below it results may be flushed to zero */
const TINY = 2 ** -126;

/** Roundings of one function: correctly rounded or exact ops, WGSL's 2.5 ULP for quotients and roots, polynomials. */
const ROUNDINGS: Readonly<Record<string, number>> = {
  ...{ neg: 0, maximum: 0, minimum: 0, select: 0, floor: 0, less: 0, equal: 0, not: 0, isFinite: 0, cast: 0 },
  ...{ add: 1, sub: 1, mul: 1 },
  ...{ div: 8, recip: 8, sqrt: 8, rsqrt: 8 },
};
const POLYNOMIAL = 16;
/** functions near whose zeros or limits the polynomials are right to an absolute, not a relative, rounding */
const ABSOLUTE: Readonly<Record<string, number>> = { sin: 2, cos: 2, log: 2, tanh: 2, erf: 2 };

type Known = { readonly value: Tensor; readonly error: Tensor };

/** Values (exact up to f64) and error bounds of an f64 graph's results, were it computed in f32. */
export async function bounded(
  outputs: readonly Tensor[],
  lambda: number,
): Promise<{ readonly value: ArrayLike<number>; readonly bound: Float64Array }[]> {
  const finals = simplify(outputs, () => false);
  const known = new Map<Tensor, Known>();
  const none = (t: Tensor) => zeros(t.shape, 'f64');
  for (const node of topo(finals)) {
    const op = node.op as Primitive;
    if (op.form.kind === 'leaf') {
      known.set(node, { value: node, error: evaluate(none(node), cpu) });
      continue;
    }
    const inputs = node.inputs.map((x) => known.get(x)!);
    const values = rebind(
      node,
      inputs.map((x) => x.value),
    );
    const errors = values.map((value, i) =>
      isFloat(value.dtype) ? errorOf(node, op, inputs, value, i, lambda) : none(value),
    );
    const done = evaluate({ values: [...values], errors }, cpu);
    for (const [i, o] of node.outs.entries()) known.set(o, { value: done.values[i]!, error: done.errors[i]! });
  }
  const results: { value: ArrayLike<number>; bound: Float64Array }[] = [];
  for (const o of finals) {
    const { value, error } = known.get(o)!;
    results.push({ value: await read(value), bound: Float64Array.from(await read(error), (e) => e + TINY) });
  }
  return results;
}

/** Error of one result of a node from the errors of its operands. */
function errorOf(
  node: Tensor,
  op: Primitive,
  inputs: readonly Known[],
  value: Tensor,
  index: number,
  lambda: number,
): Tensor {
  const again = (xs: readonly Tensor[], attrs: Attrs = node.attrs): Tensor => bindAll(op, xs, attrs)[index]!;
  /** operands with errors for floats, integers as they are */
  const errors = inputs.map(({ value: v, error }) => (isFloat(v.dtype) ? error : v));
  const sizes = inputs.map(({ value: v }) => (isFloat(v.dtype) ? abs(v) : v));
  /** of a sum with n terms whose absolute values add up to `total` */
  const summed = (total: Tensor, n: number) => mul(total, lambda * Math.sqrt(n) * U);
  switch (op.form.kind) {
    case 'fill':
      // a constant is rounded to f32
      return mul(abs(value), U);
    case 'layout':
      return again(errors);
    case 'identity':
      return inputs[index]!.error;
    case 'reduce': {
      const carried = again(errors);
      const terms = sizeOf(inputs[0]!.value.shape) / Math.max(1, sizeOf(value.shape));
      return op.form.combine === 'max' ? carried : add(carried, summed(again(sizes), terms));
    }
    case 'elementwise': {
      const partials =
        op.vjp === 'nondifferentiable'
          ? []
          : op.vjp(
              [ones(value.shape, 'f64')],
              inputs.map((x) => x.value),
              node.attrs,
              [value],
            );
      const local = add(mul(abs(value), (ROUNDINGS[op.name] ?? POLYNOMIAL) * U), (ABSOLUTE[op.name] ?? 0) * U);
      return partials.reduce<Tensor>((sum, p, i) => (p ? add(sum, mul(abs(p), errors[i]!)) : sum), local);
    }
    default:
      return kernelError();
  }

  function kernelError(): Tensor {
    switch (op.name) {
      case 'pad':
        return again(errors, { ...node.attrs, value: 0 });
      case 'gather':
      case 'concat':
        return again(errors);
      case 'scatterAdd':
        return add(again(errors), summed(again(sizes), Math.max(1, sizeOf(inputs[0]!.value.shape))));
      case 'dot':
      case 'conv':
      case 'convInput':
      case 'convKernel': {
        const terms = op.flops!(node.inputs, node.attrs) / 2 / Math.max(1, sizeOf(value.shape));
        const [a, b] = sizes as [Tensor, Tensor];
        const [ea, eb] = errors as [Tensor, Tensor];
        return add(add(again([a, eb]), again([ea, b])), summed(again([a, b]), Math.max(1, terms)));
      }
      case 'fromHalf':
        // every half is a float
        return zeros(value.shape, 'f64');
      case 'fromNf4': {
        // a level times a scale and a mean added up, whose sizes are at most twice the largest weight
        const largest = cast(max(abs(value)), 'f64');
        return mul(add(zeros(value.shape, 'f64'), largest), 4 * U);
      }
      default:
        throw new Error(`no error analysis for ${op.name}`);
    }
  }
}
