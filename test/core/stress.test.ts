/** The same number by many routes: transformations in every order, nested, with captured values and inside each other. */
import { describe, expect, test } from 'vitest';
import {
  add,
  checkpoint,
  compile,
  cpuBackend,
  div,
  dot,
  exp,
  grad,
  mean,
  mul,
  reshape,
  sin,
  slice,
  softmax,
  stopGradient,
  sub,
  sum,
  swap,
  type Tensor,
  tanh,
  tensor,
  valueAndGrad,
  vjp,
  vmap,
} from '../../core/index.ts';
import { numbers } from '../support/gradcheck.ts';

const s = (value: number): Tensor => tensor([value], [], 'f64');
const at = (values: readonly number[], shape: readonly number[] = [values.length]): Tensor =>
  tensor(values, shape, 'f64');
const one = async (t: Tensor) => (await numbers(t))[0]!;
const near = (got: readonly number[], want: readonly number[], tolerance = 1e-12) => {
  expect(got.length).toBe(want.length);
  for (const [i, w] of want.entries()) expect(Math.abs(got[i]! - w)).toBeLessThanOrEqual(tolerance * (1 + Math.abs(w)));
};

describe('first derivatives of one function', () => {
  /** f(x) = sin(x²)·e^x; f' = e^x (2x cos x² + sin x²) */
  const f = (x: Tensor) => mul(sin(mul(x, x)), exp(x));
  const slope = (x: number) => Math.exp(x) * (2 * x * Math.cos(x * x) + Math.sin(x * x));
  const routes: [string, (x: Tensor) => Tensor][] = [
    ['grad', grad(f)],
    ['valueAndGrad', (x) => valueAndGrad(f)(x)[1]],
    ['vjp with cotangent 1', (x) => vjp(f, x)[1](s(1))],
    ['vjp with cotangent 2, halved', (x) => mul(vjp(f, x)[1](s(2)), 0.5)],
    ['grad of a vmap over one sample', (x) => grad((y: Tensor) => sum(vmap(f, [0])(reshape(y, [1]))))(x)],
    ['vmap of grad over one sample', (x) => reshape(vmap(grad(f), [0])(reshape(x, [1])), [])],
    ['grad of checkpoint', grad((x: Tensor) => checkpoint(f)(x))],
    ['checkpoint of grad', (x) => checkpoint((y: Tensor) => grad(f)(y))(x)],
    [
      'the second leaf of a tree',
      (x) => grad((p: { readonly a: Tensor; readonly b: Tensor }) => mul(f(p.b), p.a))({ a: s(1), b: x }).b,
    ],
    ['a jvp by two vjps', (x) => grad((ct: Tensor) => mul(vjp(f, x)[1](ct), s(1)))(s(0))],
    [
      'a sum of a thousand equal parts',
      grad((x: Tensor) => Array.from({ length: 1000 }, () => mul(f(x), 1e-3)).reduce((a, b) => add(a, b))),
    ],
  ];
  test.each(routes)('%s', async (_name, route) => {
    for (const x of [-1.3, 0, 0.4, 2]) {
      near([await one(route(s(x)))], [slope(x)]);
      const compiled = compile((y: Tensor) => route(y), { backend: cpuBackend() });
      near([await one(compiled(s(x)))], [slope(x)]);
    }
  });
});

describe('higher derivatives', () => {
  test('five times the derivative of x⁷ and of sin', async () => {
    let [p, q]: ((x: Tensor) => Tensor)[] = [
      (x: Tensor) => Array.from({ length: 6 }).reduce<Tensor>((y) => mul(y, x), x),
      (x: Tensor) => sin(x),
    ];
    const x = 0.7;
    const want = [7 * x ** 6, 42 * x ** 5, 210 * x ** 4, 840 * x ** 3, 2520 * x ** 2];
    const sines = [Math.cos(x), -Math.sin(x), -Math.cos(x), Math.sin(x), Math.cos(x)];
    for (let k = 0; k < 5; k++) {
      [p, q] = [grad(p!), grad(q!)];
      near([await one(p(s(x))), await one(q(s(x)))], [want[k]!, sines[k]!]);
    }
  });
  test('a Hessian by rows, by grad of grad and by vmap', async () => {
    /** f = Σ xᵢ² xᵢ₊₁ on a ring of three: H has 2xᵢ₊₁ on the diagonal, 2xᵢ beside it */
    const f = (x: Tensor) => {
      const next = reshape(dot(reshape(x, [1, 1, 3]), at([0, 0, 1, 1, 0, 0, 0, 1, 0], [1, 3, 3])), [3]);
      return sum(mul(mul(x, x), next));
    };
    const [a, b, c] = [0.5, -1, 2];
    const H = [2 * b, 2 * a, 2 * c, 2 * a, 2 * c, 2 * b, 2 * c, 2 * b, 2 * a];
    const x = at([a, b, c]);
    const basis = at([1, 0, 0, 0, 1, 0, 0, 0, 1], [3, 3]);
    const row = (v: Tensor) => grad((y: Tensor) => sum(mul(grad(f)(y), v)))(x);
    near(await numbers(vmap(row, [0])(basis)), H);
    near(await numbers(vmap((v: Tensor) => vjp(grad(f), x)[1](v), [0])(basis)), H);
    const loops = await Promise.all(
      [0, 1, 2].map((i) => numbers(row(reshape(slice(basis, { axis: 0, start: i, stop: i + 1 }), [3])))),
    );
    near(loops.flat(), H);
  });
});

describe('perturbation confusion', () => {
  test('an inner derivative knows only its own variable', async () => {
    // d/dx (x · d/dy (x + y) at y = 1) = d/dx x = 1
    const f = (x: Tensor) => mul(x, grad((y: Tensor) => add(x, y))(s(1)));
    expect(await one(grad(f)(s(1)))).toBe(1);
    // the same value taken as inner argument: d/dx (x · d/dy (x·y) at y = x) = d/dx x² = 2x
    const g = (x: Tensor) => mul(x, grad((y: Tensor) => mul(x, y))(x));
    expect(await one(grad(g)(s(3)))).toBe(6);
    // differentiating by x twice, once as outer and once as inner variable: d/dx (d/dy (x²y³) at y = x) = d/dx 3x⁴
    const h = (x: Tensor) => grad((y: Tensor) => mul(mul(x, x), mul(y, mul(y, y))))(x);
    near([await one(grad(h)(s(2)))], [12 * 8]);
  });
  test('f may close over the very tensor it is differentiated by', async () => {
    const x = s(5);
    expect(await one(grad((y: Tensor) => mul(y, x))(x))).toBe(5);
    expect(await one(grad((y: Tensor) => mul(stopGradient(y), y))(x))).toBe(5);
    expect(await one(grad((_y: Tensor) => mul(x, x))(x))).toBe(0);
  });
  test('vmap inside vmap: axes do not mix', async () => {
    const [x, y] = [at([1, 2, 3]), at([10, 20])];
    const outer = vmap((a: Tensor) => vmap((b: Tensor) => sub(mul(a, 100), b), [0])(y), [0])(x);
    expect(outer.shape).toEqual([3, 2]);
    expect(await numbers(outer)).toEqual([90, 80, 190, 180, 290, 280]);
    const third = vmap(
      (c: Tensor) => vmap((a: Tensor) => vmap((b: Tensor) => add(add(a, b), c), [0])(y), [0])(x),
      [0],
    )(at([0, 1000]));
    expect(third.shape).toEqual([2, 3, 2]);
    expect((await numbers(third)).slice(6)).toEqual([1011, 1021, 1012, 1022, 1013, 1023]);
  });
});

describe('a network with attention-like parts', () => {
  const [W, V] = [
    at(
      Array.from({ length: 12 }, (_, i) => Math.sin(i)),
      [3, 4],
    ),
    at(
      Array.from({ length: 8 }, (_, i) => Math.cos(i)),
      [4, 2],
    ),
  ];
  type P = { readonly W: Tensor; readonly V: Tensor };
  /** one sample x[3] → scalar */
  const loss = (p: P, x: Tensor, y: Tensor) => {
    const h = tanh(reshape(dot(reshape(x, [1, 1, 3]), reshape(p.W, [1, 3, 4])), [1, 4]));
    const z = softmax(reshape(dot(reshape(h, [1, 1, 4]), reshape(p.V, [1, 4, 2])), [1, 2]));
    return sum(mul(sub(z, y), sub(z, y)));
  };
  const X = at(
    Array.from({ length: 15 }, (_, i) => Math.sin(3 * i)),
    [5, 3],
  );
  const Y = at(
    Array.from({ length: 10 }, (_, i) => (i % 3) / 2),
    [5, 2],
  );
  const p = { W, V };
  const sample = (t: Tensor, i: number) => reshape(slice(t, { axis: 0, start: i, stop: i + 1 }), [-1]);

  test('per-sample gradients by vmap(grad), by a loop, nested in halves, mapped over another axis, checkpointed', async () => {
    const loop = await Promise.all([0, 1, 2, 3, 4].map((i) => numbers(grad(loss)(p, sample(X, i), sample(Y, i)).W)));
    const want = loop.flat();
    near(await numbers(vmap(grad(loss), [null, 0, 0])(p, X, Y).W), want);
    near(await numbers(vmap(grad(loss), [null, 1, 1])(p, swap(X), swap(Y)).W), want);
    const far = vmap(grad(loss), [null, 0, 0] as const, 2)(p, X, Y).W;
    expect(far.shape).toEqual([3, 4, 5]);
    near(await numbers(vmap((g: Tensor) => g, [2])(far)), want);
    near(
      await numbers(
        vmap(
          grad((q: P, x: Tensor, y: Tensor) => checkpoint(loss)(q, x, y)),
          [null, 0, 0],
        )(p, X, Y).W,
      ),
      want,
    );
    // the parameters mapped too, one copy for each sample
    const many = { W: vmap((_x: Tensor) => W, [0])(X), V: vmap((_x: Tensor) => V, [0])(X) };
    near(await numbers(vmap(grad(loss), [0, 0, 0])(many, X, Y).W), want);
  });

  test('their mean is the gradient of the mean; it goes through a second derivative too', async () => {
    const batchLoss = (q: P) => mean(vmap(loss, [null, 0, 0])(q, X, Y));
    const per = vmap(grad(loss), [null, 0, 0])(p, X, Y);
    for (const k of ['W', 'V'] as const) near(await numbers(mean(per[k], 0)), await numbers(grad(batchLoss)(p)[k]));
    // Σᵢ ‖gᵢ‖² differentiated: per-sample gradients are values like any other
    const energy = (q: P) =>
      sum(mul(vmap(grad(loss), [null, 0, 0])(q, X, Y).W, vmap(grad(loss), [null, 0, 0])(q, X, Y).W));
    const single = (q: P, i: number) => {
      const g = grad(loss)(q, sample(X, i), sample(Y, i)).W;
      return sum(mul(g, g));
    };
    const looped = (q: P) => [0, 1, 2, 3, 4].map((i) => single(q, i)).reduce((a, b) => add(a, b));
    near([await one(energy(p))], [await one(looped(p))]);
    near(await numbers(grad(energy)(p).V), await numbers(grad(looped)(p).V), 1e-11);
  });

  test('zero where nothing depends on it, in the shape of the argument', async () => {
    const g = grad((q: P) => sum(mul(q.W, 2)))(p);
    expect([await numbers(g.W), await numbers(g.V)]).toEqual([new Array(12).fill(2), new Array(8).fill(0)]);
    expect(await numbers(grad((x: Tensor) => sum(div(stopGradient(x), 2)))(X))).toEqual(new Array(15).fill(0));
  });
});
