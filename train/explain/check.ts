/** Live checks of one op: derivative against differences, batching rule against a loop, a backend against the reference. */
import {
  add,
  type Backend,
  cpuBackend,
  evaluate,
  mul,
  ones,
  pullback,
  randomOf,
  read,
  seedKey,
  slice,
  squeeze,
  sum,
  type Tensor,
  tensor,
  vmap,
} from '../../core/index.ts';
import { isFloat } from '../../core/ir/dtype.ts';
import type { Composite, Op } from '../../core/ir/tensor.ts';
import { type Applied, applySample, bindTo, sampleOf, valuesOf } from './application.ts';

const cpu = cpuBackend() as Backend;
const numbers = async (t: Tensor, backend = cpu): Promise<readonly number[]> =>
  Array.from(await read(evaluate(t, backend)));
const inner = (a: readonly number[], b: ArrayLike<number>): number => a.reduce((s, x, i) => s + x * b[i], 0);

export type Check = {
  readonly what: string;
  readonly values: readonly (readonly [name: string, value: string])[];
  /** The difference, and what it may be. */
  readonly error: number;
  readonly tolerance: number;
};

/** Σ ⟨cᵢ, yᵢ⟩ over the results that carry a cotangent. */
const project = (outs: readonly Tensor[], cotangents: readonly Tensor[], carries: readonly boolean[]): Tensor =>
  outs.flatMap((o, i) => (carries[i] ? [sum(mul(o, cotangents[i]))] : [])).reduce((a, b) => add(a, b));

const normals = (shape: readonly number[], draw: () => number): Float64Array =>
  Float64Array.from({ length: shape.reduce((n, side) => n * side, 1) }, draw);

/** Whether there is a derivative to check: a rule that lets gradients of float results through to float operands. */
export function isDifferentiable({ op, inputs, outs }: Applied): boolean {
  if (op.vjp === 'nondifferentiable') return false;
  const cotangents = outs.map((o) => (isFloat(o.dtype) ? ones(o.shape, o.dtype) : undefined));
  return pullback(
    outs,
    cotangents,
    inputs.filter((x) => isFloat(x.dtype)),
  ).some((g) => g !== undefined);
}

/**
 * The results that may carry a cotangent for a composite's closed form to answer: all of floats, or the first alone (the
 * statistics of a norm are no results anybody differentiates). Undefined where there is no closed form.
 */
export function closedFormFor({ op, inputs, attrs, outs }: Applied): readonly boolean[] | undefined {
  if (op.kind !== 'composite' || !op.vjp) return undefined;
  const rule = op.vjp as (...x: unknown[]) => unknown;
  const answers = (wanted: readonly boolean[]): boolean => {
    const cotangents = outs.map((o, i) => (wanted[i] ? ones(o.shape, o.dtype) : undefined));
    return rule(cotangents, inputs, attrs, outs) !== undefined;
  };
  return [outs.map((o) => isFloat(o.dtype)), outs.map((_, i) => i === 0)].find(answers);
}

/** What is differentiated: the op as a program has it, or a composite's body in its place. */
export type Way = 'rule' | 'body';

/**
 * The vjp in one random direction d with random cotangents c, f64: Σ⟨vjp(c), d⟩ against d/dh Σ⟨c, y(x + h·d)⟩ at 0, by
 * central differences at three widths, extrapolated (error O(h⁶)).
 */
export async function checkVjp(op: Op, seed: number, way: Way = 'rule'): Promise<Check> {
  const applied = applySample(op, 'f64', seed);
  const { attrs, inputs } = applied;
  const apply = (xs: readonly Tensor[]): readonly Tensor[] =>
    way === 'body' ? (op as Composite).body(xs, attrs as never) : bindTo(op, xs, attrs);
  const outs = apply(inputs);
  const closed = way === 'rule' ? closedFormFor(applied) : undefined;
  const carries = outs.map((o, i) => isFloat(o.dtype) && (closed?.[i] ?? true));
  const random = randomOf(seedKey(seed + 1));
  const draw = () => random.normal();
  const cotangents = outs.map((o) => tensor(normals(o.shape, draw), o.shape, 'f64'));
  const at = inputs.flatMap((x, i) => (isFloat(x.dtype) ? [i] : []));
  const directions = at.map((i) => normals(inputs[i].shape, draw));
  const back = pullback(
    outs,
    cotangents.map((c, i) => (carries[i] ? c : undefined)),
    at.map((i) => inputs[i]),
  );
  let [byRule, size] = [0, 0];
  for (const [k, g] of back.entries()) {
    if (g === undefined) continue;
    const values = await numbers(g);
    byRule += inner(values, directions[k]);
    size += values.reduce((s, x, i) => s + Math.abs(x * directions[k][i]), 0);
  }
  const base = await Promise.all(at.map((i) => numbers(inputs[i])));
  const along = async (h: number): Promise<number> => {
    const moved = inputs.map((x, i) => {
      const k = at.indexOf(i);
      return k < 0
        ? x
        : tensor(
            Float64Array.from(base[k], (v, j) => v + h * directions[k][j]),
            x.shape,
            'f64',
          );
    });
    return (await numbers(project(apply(moved), cotangents, carries)))[0];
  };
  const central = async (h: number) => ((await along(h)) - (await along(-h))) / (2 * h);
  const [a, b, c] = [await central(1e-3), await central(5e-4), await central(2.5e-4)];
  const byDifferences = (16 * ((4 * c - b) / 3) - (4 * b - a) / 3) / 15;
  return {
    what: `vjp ${closed ? '(closed form) ' : way === 'body' ? '(of the body) ' : ''}against finite differences, f64, one random direction${closed?.includes(false) ? ', cotangent of the first result' : ''}`,
    values: [
      ['Σ⟨vjp(c), d⟩', byRule.toPrecision(14)],
      ['differences', byDifferences.toPrecision(14)],
    ],
    error: Math.abs(byRule - byDifferences),
    // differences lose about ε/h of the function's size
    tolerance: 1e-8 * size + 1e-9 * Math.abs(await along(0)) + 1e-10,
  };
}

/** vmap over all operands at once, or over some, against the op on each of three samples, f64. */
export async function checkBatch(op: Op, seed: number, mapped?: readonly boolean[]): Promise<Check> {
  const size = 3;
  const random = randomOf(seedKey(seed));
  const { operands, attrs } = sampleOf(op, 'f64');
  const carries = (i: number): boolean => mapped?.[i] ?? true;
  const many = operands.map((o, i) => {
    const shape = carries(i) ? [size, ...o.shape] : o.shape;
    return tensor(valuesOf({ ...o, shape }, random) as unknown as number[], shape, o.dtype);
  });
  const axes = many.map((_, i) => (carries(i) ? 0 : null));
  const batched = vmap((...xs: Tensor[]) => bindTo(op, xs, attrs) as Tensor[], axes)(...many);
  const one = (t: Tensor, i: number) => squeeze(slice(t, { axis: 0, start: i, stop: i + 1 }), 0);
  let [error, largest] = [0, 0];
  for (let i = 0; i < size; i++) {
    const alone = bindTo(
      op,
      many.map((x, k) => (carries(k) ? one(x, i) : x)),
      attrs,
    );
    for (const [k, o] of batched.entries()) {
      const [got, want] = [await numbers(one(o, i)), await numbers(alone[k])];
      for (const [j, w] of want.entries()) {
        // equal infinities differ by NaN
        if (got[j] !== w) error = Math.max(error, Math.abs(got[j] - w));
        largest = Math.max(largest, Math.abs(w));
      }
    }
  }
  return {
    what: `vmap over ${size} samples against a loop, f64`,
    values: [['largest |y|', largest.toPrecision(4)]],
    error,
    tolerance: 1e-11 * (1 + largest),
  };
}

/**
 * The op on a backend (f32) against the reference in f64, on the same f32 numbers.
 * The tolerance counts rounding of inputs and of sums: 2⁻²³ · √n-like growth, taken as 64 units of the largest |y|.
 */
export async function checkBackend(op: Op, backend: Backend, seed: number): Promise<Check> {
  const exact = applySample(op, 'f64', seed);
  const rough = applySample(op, 'f32', seed);
  let [error, largest] = [0, 0];
  for (const [k, o] of exact.outs.entries()) {
    const [want, got] = [await numbers(o), await numbers(rough.outs[k], backend)];
    for (const [j, w] of want.entries()) {
      if (got[j] !== w) error = Math.max(error, Math.abs(got[j] - w));
      largest = Math.max(largest, Math.abs(w));
    }
  }
  return {
    what: `${backend.name} f32 against the reference in f64`,
    values: [['largest |y|', largest.toPrecision(4)]],
    error,
    tolerance: 64 * 2 ** -23 * (1 + largest),
  };
}
