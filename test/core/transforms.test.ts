import { describe, expect, expectTypeOf, test } from 'vitest';
import {
  add,
  type Backend,
  clip,
  compile,
  cos,
  customVjp,
  exp,
  grad,
  hessian,
  jacobian,
  jvp,
  linearize,
  MissingRuleError,
  mul,
  openBackend,
  read,
  registry,
  scan,
  sin,
  square,
  stack,
  sum,
  type Tensor,
  tensor,
  type toGraph,
  vmap,
} from '../../core/index.ts';
import { isFloat } from '../../core/ir/dtype.ts';
import type { Attrs, Op, Sample } from '../../core/ir/tensor.ts';
import {
  apply,
  cpu,
  derivative,
  inner,
  numbers,
  operands,
  picker,
  rng,
  scaleOf,
  values,
  widen,
} from '../support/gradcheck.ts';

const f64 = (x: Parameters<typeof tensor>[0], shape?: readonly number[]) => tensor(x, shape, 'f64');
const close = (got: readonly number[], want: readonly number[], tolerance = 1e-12) => {
  expect(got.length).toBe(want.length);
  for (const [i, w] of want.entries())
    expect(Math.abs(got[i]! - w), `[${i}] ${got[i]} ${w}`).toBeLessThanOrEqual(tolerance * (1 + Math.abs(w)));
};
const x = f64([1, 2, 3]);

describe('forward mode', () => {
  // every op by its own sample, as in the battery
  const ops = [...registry.values()].filter((op) => op.vjp !== 'nondifferentiable' && op.name !== 'stopGradient');
  test('of every op: jvp equals differences along the tangent', async () => {
    let compared = 0;
    for (const op of ops as readonly Op[]) {
      const random = rng(op.name.length + 7);
      const sample = widen(op.sample(picker(random)) as Sample<Attrs>);
      const inputs = operands(sample, random);
      const at = inputs.flatMap((t, i) => (isFloat(t.dtype) ? [i] : []));
      const run = (xs: readonly Tensor[]) =>
        apply(
          op,
          inputs.map((t, i) => (at.includes(i) ? xs[at.indexOf(i)]! : t)),
          sample.attrs,
        );
      const outs = run(at.map((i) => inputs[i]!));
      if (at.length === 0 || !isFloat(outs[0]!.dtype)) continue;
      const vs = at.map((i) => values({ shape: inputs[i]!.shape }, random));
      const weights = values({ shape: outs[0]!.shape }, random);
      const tangents = vs.map((v, k) => f64(Float64Array.from(v), inputs[at[k]!]!.shape));
      const [, dy] = jvp(
        (xs: readonly Tensor[]) => run(xs)[0]!,
        at.map((i) => inputs[i]!),
        tangents,
      );
      const base = await Promise.all(at.map((i) => numbers(inputs[i]!)));
      const along = async (h: number) =>
        inner(
          await numbers(
            run(
              base.map((b, k) =>
                f64(
                  Float64Array.from(b, (v, j) => v + h * vs[k]![j]!),
                  inputs[at[k]!]!.shape,
                ),
              ),
            )[0]!,
          ),
          weights,
        );
      const got = await numbers(dy);
      const want = await derivative(along);
      const tolerance = 1e-8 * scaleOf(got, weights) + 1e-9 * Math.abs(await along(0)) + 1e-10;
      expect(Math.abs(inner(got, weights) - want), op.name).toBeLessThanOrEqual(tolerance);
      compared++;
    }
    expect(compared).toBeGreaterThan(45);
  });
  test('linearize is the linear part, for trees; a tangent of another shape is refused', async () => {
    const p = { a: x, b: [f64([4, 5, 6])] as const };
    const [y, push] = linearize((q: typeof p) => ({ s: sum(mul(q.a, q.b[0])), e: exp(q.a) }), p);
    const dy = push({ a: f64([1, 0, 0]), b: [f64([0, 1, 0])] });
    close(await numbers(y.s), [32]);
    close(await numbers(dy.s), [4 + 2]);
    close(await numbers(dy.e), [Math.E, 0, 0]);
    expect(() => push({ a: f64([1]), b: [x] })).toThrow(/^jvp: tangents must have the shapes/);
  });
  test('a Jacobian by rows is that by columns; a Hessian is symmetric and right', async () => {
    const f = (t: Tensor) => mul(sin(t), sum(square(t)));
    const v = [1, 2, 3];
    const want = v.flatMap((a, i) => v.map((b, j) => (i === j ? Math.cos(a) * 14 : 0) + Math.sin(a) * 2 * b));
    for (const mode of ['reverse', 'forward'] as const) {
      const j = jacobian(f, mode)(x);
      expect(j.shape).toEqual([3, 3]);
      close(await numbers(j), want);
    }
    // f = Σ a²·b: ∂²f/∂a∂b is 2a on the diagonal
    const h = hessian((p: { readonly a: Tensor; readonly b: Tensor }) => sum(mul(square(p.a), p.b)))({
      a: x,
      b: f64([4, 5, 6]),
    });
    close(await numbers(h.a.b), [2, 0, 0, 0, 4, 0, 0, 0, 6]);
    close(await numbers(h.b.a), [2, 0, 0, 0, 4, 0, 0, 0, 6]);
    close(await numbers(h.a.a), [8, 0, 0, 0, 10, 0, 0, 0, 12]);
    expect((await numbers(h.b.b)).every((n) => n === 0)).toBe(true);
  });
});

describe('a derivative of one’s own', () => {
  const clipped = customVjp(
    (t: Tensor) => [mul(t, 1), {}] as const,
    (_kept, g) => [clip(g, -1, 1)] as [Tensor],
  );
  const w = f64([5, 0.5, -7]);
  test('is used, alone, inside vmap and outside of it', async () => {
    const loss = (t: Tensor) => sum(mul(clipped(t), w));
    close(await numbers(clipped(x)), [1, 2, 3]);
    close(await numbers(grad(loss)(x)), [1, 0.5, -1]);
    const many = stack([x, x]);
    close(await numbers(vmap(grad(loss))(many)), [1, 0.5, -1, 1, 0.5, -1]);
    close(await numbers(grad((m: Tensor) => sum(mul(vmap(clipped)(m), w)))(many)), [1, 0.5, -1, 1, 0.5, -1]);
  });
  test('is differentiated again through what it keeps', async () => {
    const own = customVjp(
      (t: Tensor) => [sin(t), t] as const,
      (kept, g) => [mul(g, cos(kept))] as [Tensor],
    );
    const second = grad((t: Tensor) => sum(grad((s: Tensor) => sum(own(s)))(t)))(x);
    close(
      await numbers(second),
      [1, 2, 3].map((a) => -Math.sin(a)),
    );
  });
  test('refuses what it closes over where that is differentiated, and cotangents that do not fit', () => {
    const outer = (a: Tensor) =>
      sum(
        customVjp(
          (t: Tensor) => [mul(t, a), {}] as const,
          (_k, g) => [g] as [Tensor],
        )(x),
      );
    expect(() => grad(outer)(w)).toThrow(MissingRuleError);
    const bad = customVjp(
      (t: Tensor) => [mul(t, 2), {}] as const,
      (_k, g) => [sum(g)] as [Tensor],
    );
    expect(() => grad((t: Tensor) => sum(bad(t)))(x)).toThrow(
      /backward must return one cotangent for each argument: .* is \[\] for \[3\]/,
    );
  });
});

describe('loops and axes', () => {
  const step = (h: Tensor, t: Tensor) => {
    const next = add(mul(h, 0.5), t);
    return [next, square(next)] as const;
  };
  test('scan carries, stacks, differentiates and maps', async () => {
    const [last, all] = scan(step, f64(0, []), x);
    close(await numbers(last), [4.25]);
    close(await numbers(all), [1, 6.25, 18.0625]);
    close(await numbers(grad((t: Tensor) => scan(step, f64(0, []), t)[0])(x)), [0.25, 0.5, 1]);
    close(await numbers(vmap((t: Tensor) => scan(step, f64(0, []), t)[0])(stack([x, mul(x, 2)]))), [4.25, 8.5]);
    const [count] = scan((h: Tensor, i: number) => [add(h, i), h] as const, f64(0, []), 4);
    close(await numbers(count), [6]);
  });
  test('scan refuses a carry that changes, and lengths that differ', () => {
    expect(() => scan((h: Tensor) => [stack([h, h]), h] as const, f64(0, []), 2)).toThrow(
      'scan: step 0 makes a carry of f64[2] out of f64[]',
    );
    expect(() => scan(step, f64(0, []), tensor([]))).toThrow(/^scan: every leaf/);
  });
  test('vmap takes trees of axes, for results too, and 0 for what is left out', async () => {
    const f = (p: { readonly w: Tensor; readonly x: Tensor }) => ({ y: mul(p.w, p.x), z: sum(p.x) });
    const batch = {
      w: f64(2, []),
      x: f64([
        [1, 2],
        [3, 4],
        [5, 6],
      ]),
    };
    const y = vmap(f, [{ w: null, x: 0 }], { y: 1, z: 0 })(batch);
    expect([y.y.shape, y.z.shape]).toEqual([[2, 3], [3]]);
    close(await numbers(y.y), [2, 6, 10, 4, 8, 12]);
    close(await numbers(vmap((a: Tensor, b: Tensor) => mul(a, b))(x, x)), [1, 4, 9]);
    expect(() => vmap(f, [{ x: 0 }])(batch)).toThrow('vmap: argument 0.w needs an axis or null');
    expect(() => vmap(f, [{ w: null, x: 0, v: 1 }])(batch)).toThrow('vmap: argument 0 has no v to give an axis to');
  });
});

describe('compiled functions', () => {
  const f = compile((a, b) => sum(mul(a, square(b))), { backend: cpu });
  test('infer tensors, and are differentiated, mapped and nested', async () => {
    expectTypeOf(f).parameters.toEqualTypeOf<[a: Tensor, b: Tensor]>();
    close(await numbers(grad((t: Tensor) => f(t, t))(x)), [3, 12, 27]);
    close(await numbers(vmap(f, [null, 0])(x, stack([x, x]))), [36, 36]);
    const before = f.programs;
    const outer = compile((t) => grad((s: Tensor) => f(t, s))(t), { backend: cpu });
    close([...(await read(outer(x)))], [2, 8, 18]);
    expect([f.programs, outer.programs]).toEqual([before, 1]);
    // a recipe that no trace is waiting for is still told
    expect(() => f(mul(x, 2), x)).toThrow(/is a recipe, not a value/);
  });
  test('show every stage, as text and as JSON', async () => {
    const backend: Backend = await openBackend('wasm', { threads: 1 });
    const g = compile((a, b) => sum(mul(a, square(b))), { backend });
    const t = tensor([1, 2, 3]);
    const { traced, simplified, lowered, planned } = g.stages(t, t);
    expect(traced.text).toContain('%2: f32[3] = mul %1 %1');
    expect(simplified.text).toContain('= sum %3 {axes: [0]}');
    expect(lowered!.text).toContain('reduce sum [3] over 0: mul mul');
    expect(planned!.text).toContain('→ %2');
    const { nodes } = JSON.parse(JSON.stringify(traced.data)) as ReturnType<typeof toGraph>;
    expect(nodes.map((n) => n.op)).toEqual(['hole', 'hole', 'mul', 'mul', 'sum', 'reshape']);
    expect(JSON.parse(JSON.stringify(planned!.data))).toMatchObject({
      kernels: [{ name: 'reduce sum', inputs: [{}, {}] }],
    });
    expect(f.stages(x, x).lowered).toBeUndefined();
    await backend.close();
  });
});
