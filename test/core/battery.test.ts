/** Every op of the registry against independent yardsticks: finite differences in f64, loops, and its own body. */
import { describe, expect, test } from 'vitest';
import { functions } from '../../core/functions/catalog.ts';
import {
  add,
  evaluate,
  grad,
  mul,
  pullback,
  registry,
  slice,
  squeeze,
  sum,
  type Tensor,
  tensor,
  vmap,
} from '../../core/index.ts';
import { isFloat } from '../../core/ir/dtype.ts';
import type { Attrs, Composite, Op, Sample } from '../../core/ir/tensor.ts';
import { casesOf } from '../support/drivers.ts';
import {
  apply,
  cpu,
  derivativeNear,
  inner,
  numbers,
  operands,
  picker,
  rng,
  scaleOf,
  values,
  widen,
} from '../support/gradcheck.ts';
import { LONG } from '../support/long.ts';

const CASES = Math.max(casesOf('battery'), LONG ? 12 : 0);
const ops = [...registry.values()];
/** functions written in ops are ops whose body they are; what they are made of has been drawn more often above */
const written = [...functions.values()] as unknown as readonly Op[];
const drawsOf = (op: Op): number => (written.includes(op) ? Math.ceil(CASES / 4) : CASES);
const draw = (op: Op, seed: number) => {
  const random = rng(seed * 7919 + op.name.length * 104729 + op.name.charCodeAt(0));
  const sample = widen(op.sample(picker(random)) as Sample<Attrs>);
  return { random, sample, inputs: operands(sample, random) };
};
const floats = (xs: readonly Tensor[]) => xs.map((x, i) => (isFloat(x.dtype) ? i : -1)).filter((i) => i >= 0);
const project = (outs: readonly Tensor[], cts: readonly Tensor[]): Tensor => {
  const parts = outs.flatMap((o, i) => (isFloat(o.dtype) ? [sum(mul(o, cts[i]!))] : []));
  return parts.reduce((a, b) => add(a, b));
};
const like = (t: Tensor, random: () => number): Tensor =>
  tensor(Float64Array.from(values({ shape: t.shape }, random)), t.shape, 'f64');

/** One expectation for all values: one for each takes longer than what is tested. */
function near(got: readonly number[], want: readonly number[], relative: number, what: string): void {
  expect(got.length, what).toBe(want.length);
  const off = want.findIndex((w, j) => !(Math.abs(got[j]! - w) <= relative * (1 + Math.abs(w))));
  expect(off, `${what} [${off}]: ${got[off]} against ${want[off]}`).toBe(-1);
}

const differentiable = [...ops, ...written].filter((op) => op.vjp !== 'nondifferentiable');

describe.each(differentiable.map((op) => [op.name, op] as const))('%s', (_name, op) => {
  test('vjp equals finite differences in a random direction (f64)', async () => {
    for (let seed = 0; seed < drawsOf(op); seed++) {
      const { random, sample, inputs } = draw(op, seed);
      const outs = apply(op, inputs, sample.attrs);
      const at = floats(inputs);
      if (at.length === 0 || !outs.some((o) => isFloat(o.dtype)) || op.name === 'stopGradient') continue;
      const cts = outs.map((o) => like(o, random));
      const directions = at.map((i) => values({ shape: inputs[i]!.shape }, random));
      const xs = at.map((i) => inputs[i]!);
      const back = pullback(
        outs,
        outs.map((o, i) => (isFloat(o.dtype) ? cts[i] : undefined)),
        xs,
      );
      let [got, scale] = [0, 0];
      for (const [k, g] of back.entries()) {
        if (!g) continue;
        const v = await numbers(g);
        got += inner(v, directions[k]!);
        scale += scaleOf(v, directions[k]!);
      }
      const base = await Promise.all(xs.map((x) => numbers(x)));
      const f = async (h: number) => {
        const moved = inputs.map((x, i) => {
          const k = at.indexOf(i);
          return k < 0
            ? x
            : tensor(Float64Array.from(base[k]!.map((v, j) => v + h * directions[k]![j]!)), x.shape, 'f64');
        });
        return (await numbers(project(apply(op, moved, sample.attrs), cts)))[0]!;
      };
      const tolerance = 1e-8 * scale + 1e-9 * Math.abs(await f(0)) + 1e-10;
      const want = await derivativeNear(f, got, tolerance);
      expect(Math.abs(got - want), `seed ${seed}: vjp ${got}, differences ${want}`).toBeLessThanOrEqual(tolerance);
    }
  });

  test('vmap equals a loop over samples, for every subset of mapped inputs', async () => {
    for (let seed = 0; seed < drawsOf(op); seed++) {
      const { random, sample, inputs } = draw(op, seed);
      const n = inputs.length;
      if (n === 0) continue;
      const size = 1 + (seed % 3);
      for (let subset = 1; subset < 1 << n; subset++) {
        if (n > 3 && subset !== (1 << n) - 1 && (subset * 7 + seed) % 5 !== 0) continue;
        const mapped = inputs.map((_, i) => ((subset >> i) & 1) === 1);
        const many = sample.operands.map((o, i) =>
          mapped[i] ? operands({ operands: [{ ...o, shape: [size, ...o.shape] }], attrs: {} }, random)[0]! : inputs[i]!,
        );
        const outs = evaluate(
          vmap(
            (...xs: Tensor[]) => apply(op, xs, sample.attrs) as Tensor[],
            mapped.map((m) => (m ? 0 : null)),
          )(...many),
          cpu,
        );
        const values = await Promise.all(outs.map((o) => numbers(o)));
        for (let b = 0; b < size; b++) {
          const one = many.map((x, i) => (mapped[i] ? squeeze(slice(x, { axis: 0, start: b, stop: b + 1 }), 0) : x));
          const want = evaluate([...apply(op, one, sample.attrs)], cpu);
          for (const [k, o] of outs.entries()) {
            const ref = await numbers(want[k]!);
            const got = values[k]!.slice(b * ref.length, (b + 1) * ref.length);
            expect(o.shape, `subset ${mapped}`).toEqual([size, ...want[k]!.shape]);
            near(got, ref, 1e-11, `seed ${seed} subset ${mapped} sample ${b}`);
          }
        }
      }
    }
  });

  test('vmap(grad) equals a loop of grad; second derivatives equal differences of first ones', async () => {
    for (let seed = 0; seed < Math.ceil(drawsOf(op) / 3); seed++) {
      const { random, sample, inputs } = draw(op, seed);
      const at = floats(inputs)[0];
      const outs = apply(op, inputs, sample.attrs);
      if (at === undefined || !outs.some((o) => isFloat(o.dtype)) || op.name === 'stopGradient') continue;
      const cts = outs.map((o) => like(o, random));
      // squared, so that the second derivative is not zero for linear ops
      const f = (x: Tensor, ...rest: Tensor[]) => {
        const p = project(apply(op, [...rest.slice(0, at), x, ...rest.slice(at)], sample.attrs), cts);
        return mul(p, p);
      };
      const rest = inputs.filter((_, i) => i !== at);
      const xs = operands(
        { operands: [{ ...sample.operands[at]!, shape: [2, ...sample.operands[at]!.shape] }], attrs: {} },
        random,
      )[0]!;
      const many = evaluate(vmap(grad(f), [0, ...rest.map(() => null)] as [number, ...null[]])(xs, ...rest), cpu);
      const both = await numbers(many);
      for (let b = 0; b < 2; b++) {
        const one = squeeze(slice(xs, { axis: 0, start: b, stop: b + 1 }), 0);
        const want = await numbers(grad(f)(one, ...rest));
        const got = both.slice(b * want.length, (b + 1) * want.length);
        near(got, want, 1e-10, `seed ${seed} sample ${b}`);
      }
      const x0 = await numbers(inputs[at]!);
      const [u, v] = [values({ shape: inputs[at]!.shape }, random), values({ shape: inputs[at]!.shape }, random)];
      const ut = tensor(Float64Array.from(u), inputs[at]!.shape, 'f64');
      const slope = (x: Tensor) => sum(mul(grad(f)(x, ...rest), ut));
      const hv = await numbers(grad(slope)(inputs[at]!));
      const got = inner(hv, v);
      const tolerance = 1e-7 * scaleOf(hv, v) + 1e-8;
      const moved = (h: number) => Float64Array.from(x0.map((q, j) => q + h * v[j]!));
      const want = await derivativeNear(
        async (h) => (await numbers(slope(tensor(moved(h), inputs[at]!.shape, 'f64'))))[0]!,
        got,
        tolerance,
      );
      expect(Math.abs(got - want), `seed ${seed}: second order ${got} against ${want}`).toBeLessThanOrEqual(tolerance);
    }
  });

  if (op.kind === 'composite' && !written.includes(op))
    test('shape rule and closed-form vjp agree with the body', async () => {
      for (let seed = 0; seed < drawsOf(op); seed++) {
        const { random, sample, inputs } = draw(op, seed);
        const outs = apply(op, inputs, sample.attrs);
        const body = (op as Composite).body(inputs, sample.attrs);
        expect(outs.map((o) => o.shape)).toEqual(body.map((o) => o.shape));
        const at = floats(inputs);
        const xs = at.map((i) => inputs[i]!);
        const cts = outs.map((o, i) => (i === 0 ? like(o, random) : undefined));
        const [mine, theirs] = [pullback(outs, cts, xs), pullback(body, cts, xs)];
        // an op that takes the results of another (…Grad) may be differentiated with respect to them as free inputs
        for (const k of at.keys()) {
          const [a, b] = [mine[k] ? await numbers(mine[k]!) : [], theirs[k] ? await numbers(theirs[k]!) : []];
          const n = Math.max(a.length, b.length);
          const padded = (v: readonly number[]) => Array.from({ length: n }, (_, j) => v[j] ?? 0);
          near(padded(a), padded(b), 1e-10, `seed ${seed}, operand ${at[k]}`);
        }
      }
    });
});

test('every op says what it is', () => {
  for (const op of [...ops, ...written]) expect([op.name, op.doc.length > 2].join()).toBe(`${op.name},true`);
});
