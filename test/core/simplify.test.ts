/** simplify: equal nodes merge, different ones never do, barriers stand; deep graphs overflow nothing. */
import { describe, expect, test } from 'vitest';
import { wasmBackend } from '../../core/backends/wasm/index.ts';
import { makeGraph } from '../../core/compile/compile.ts';
import { interpret } from '../../core/compile/interpret.ts';
import { lower } from '../../core/compile/lower.ts';
import { simplify } from '../../core/compile/simplify.ts';
import {
  add,
  alias,
  barrier,
  compile,
  cpuBackend,
  div,
  dot,
  exp,
  full,
  grad,
  key,
  layerNorm,
  mul,
  normal,
  once,
  pad,
  permute,
  print,
  read,
  reshape,
  sin,
  softmax,
  stopGradient,
  sub,
  sum,
  type Tensor,
  tanh,
  tensor,
  vmap,
} from '../../core/index.ts';
import { hole, topo } from '../../core/ir/tensor.ts';
import { table } from '../../core/ops/elementwise.ts';
import { numbers } from '../support/gradcheck.ts';
import { LONG } from '../support/long.ts';

const cpu = cpuBackend();
const none = () => false;
const all = () => true;
const names = (ys: readonly Tensor[]) =>
  topo(ys)
    .map((t) => t.op.name)
    .filter((n) => n !== 'data' && n !== 'hole');
const x = tensor([0.5, -1, 2]);

describe('common subexpressions', () => {
  test('equal nodes become one, whatever made them', () => {
    const [y] = simplify([add(mul(sin(x), sin(x)), mul(sin(x), sin(x)))], none);
    expect(names([y!])).toEqual(['sin', 'mul', 'add']);
    const [a, b] = simplify([exp(sin(x)), exp(sin(alias(x)))], none);
    expect(a).toBe(b);
    const [p, q] = simplify([normal(key(1), [3]), normal(key(1), [3])], none);
    expect(p).toBe(q);
  });
  test.each([
    ['NaN and 0', Number.NaN, 0],
    ['NaN and null in JSON', Number.NaN, Number.POSITIVE_INFINITY],
    ['∞ and −∞', Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
    ['0 and −0', 0, -0],
    ['neighbours in f64', 0.1, 0.1 + 2 ** -56],
  ])('constants that differ stay apart: %s', async (_name, p, q) => {
    const [a, b] = simplify([mul(x, full([3], p)), mul(x, full([3], q))], none);
    expect(a).not.toBe(b);
    const f = compile((y: Tensor) => [mul(y, full([3], p, 'f64')), mul(y, full([3], q, 'f64'))], { backend: cpu });
    const [got, other] = f(tensor([1, 1, 1], [3], 'f64')).map((t) => numbers(t));
    expect([(await got!)[0], (await other!)[0]]).toEqual([p, q]);
  });
  test('NaN equals itself here: the same constant is one node', () => {
    const [a, b] = simplify([mul(x, full([3], Number.NaN)), mul(x, full([3], Number.NaN))], none);
    expect(a).toBe(b);
  });
  test('attributes, dtypes and the order of operands count', () => {
    const pairs: [Tensor, Tensor][] = [
      [sum(reshape(x, [1, 3]), 0, true), sum(reshape(x, [1, 3]), 1, true)],
      [pad(x, [[0, 1]]), pad(x, [[1, 0]])],
      [pad(x, [[0, 1]]), pad(x, [[0, 1]], -0)],
      [sub(x, sin(x)), sub(sin(x), x)],
      [full([2], 1, 'f32'), full([2], 1, 'i32')],
      [reshape(x, [3, 1]), reshape(x, [1, 3])],
    ];
    for (const [p, q] of pairs) {
      const [a, b] = simplify([p, q], none);
      expect(a).not.toBe(b);
    }
  });
  test('results of one application stay together and apart from each other', () => {
    const y = layerNorm(reshape(x, [1, 3]), full([3], 1), full([3], 0), 1e-5);
    const z = layerNorm(reshape(x, [1, 3]), full([3], 1), full([3], 0), 1e-5);
    const [a, b] = simplify([y, z], all);
    expect(a).toBe(b);
    expect(names([a!]).filter((n) => n === 'norm')).toHaveLength(1);
  });
});

describe('what is left out and what stays', () => {
  test('identities vanish, nodes no result needs are gone', () => {
    sin(x);
    const [y] = simplify([alias(stopGradient(alias(exp(x))))], none);
    expect(names([y!])).toEqual(['exp']);
  });
  test('composites are inlined unless the backend has a kernel', () => {
    const [inlined] = simplify([softmax(reshape(x, [1, 3]))], none);
    expect(names([inlined!])).not.toContain('softmax');
    expect(names([inlined!])).toContain('exp');
    const [kept] = simplify([softmax(reshape(x, [1, 3]))], all);
    expect(names([kept!])).toEqual(['reshape', 'softmax']);
  });
  test('a barrier separates equal nodes, in simplify and in what runs', async () => {
    const again = barrier([x, full([1], 0)])[0]!;
    const [y] = simplify([add(sin(x), sin(again))], none);
    expect(names([y!]).filter((n) => n === 'sin')).toHaveLength(2);
    expect(names([y!])).toContain('barrier');
    const [p, q] = simplify([barrier([x, x])[0]!, barrier([x, x])[0]!], none);
    expect(p).not.toBe(q);
    expect(await numbers(y!)).toEqual(await numbers(mul(sin(x), 2)));
  });
  test('inputs are shared, not copied: a graph in its final form comes back as it is', () => {
    const y = exp(sin(x));
    expect(simplify([y], none)[0]).toBe(y);
  });
});

describe('neutral constants', () => {
  const special = [0, -0, 1, -1, 0.1, 5e-324, 1e-40, 3e38, Number.MAX_VALUE, 1 / 0, -1 / 0, Number.NaN];
  const integers = [0, 1, -1, 7, 2 ** 31 - 1, -(2 ** 31)];
  const rows = Object.values(table).flatMap(({ name, form }) =>
    form.kind === 'elementwise' && form.neutral ? [{ name, form, neutral: form.neutral }] : [],
  );
  test('every row that has some leaves the other operand as it is, to the bit', () => {
    expect(rows.map((r) => r.name).sort()).toEqual(['add', 'div', 'mul', 'sub']);
    for (const { form, neutral } of rows)
      for (const [i, value] of neutral.entries()) {
        if (value === undefined) continue;
        const at = (f: (...x: number[]) => number, v: number) => (i === 0 ? f(value, v) : f(v, value));
        for (const v of special) expect(Object.is(at(form.js, v), v)).toBe(true);
        for (const v of integers) expect(at(form.integer ?? form.js, v) | 0).toBe(v | 0);
      }
  });
  test('they go, in the function and in its derivative, also where they come in by a composite', () => {
    const f = once((y: Tensor) => sub(div(mul(1, mul(exp(y), 1)), 1), 0));
    expect(names(simplify([f(x)], none))).toEqual(['exp']);
    const [dx] = simplify([grad((y: Tensor) => sum(mul(sin(y), 1)))(x)], none);
    expect(names([dx!])).not.toContain('mul');
  });
  test.each([
    ['x + 0, which makes 0 of −0', (y: Tensor) => add(y, 0)],
    ['0 − x', (y: Tensor) => sub(0, y)],
    ['1/x', (y: Tensor) => div(1, y)],
    ['x·−1', (y: Tensor) => mul(y, -1)],
    ['a neighbour of 1 in f64', (y: Tensor) => mul(y, full([3], 1 + 2 ** -52, y.dtype))],
  ])('others stay: %s', (_name, f) => {
    expect(names(simplify([f(x)], none)).length).toBeGreaterThan(1);
  });
  test('views of views of views are looked through without a frame each', () => {
    let y: Tensor = reshape(x, [1, 3]);
    for (let i = 0; i < 50_000; i++) y = i % 2 === 0 ? permute(y, [1, 0]) : reshape(y, [1, 3]);
    expect(names(simplify([mul(y, 2)], none))).toContain('mul');
  });
  test('a result that is a donated input keeps its values beside one that could take its place', async () => {
    const backend = wasmBackend({ threads: 1 });
    const f = compile((y: Tensor) => [add(y, 1), mul(y, 1), mul(y, 3)], { backend, donate: [0] });
    const [given] = compile((y: Tensor) => [add(y, y)], { backend })(x);
    const parts = await Promise.all(f(given!).map((t) => numbers(t)));
    expect(parts.map((p) => [...p])).toEqual([
      [2, -1, 5],
      [1, -2, 4],
      [3, -6, 12],
    ]);
    await backend.close();
  });
  test('a result that is an input is a value of its own', async () => {
    for (const backend of [cpu, wasmBackend({ threads: 1 })]) {
      const f = compile((y: Tensor) => [mul(y, 1), sub(y, 0), add(y, 1)], { backend });
      const parts = await Promise.all(f(x).map((t) => numbers(t)));
      expect(parts.map((p) => [...p])).toEqual([
        [0.5, -1, 2],
        [0.5, -1, 2],
        [1.5, 0, 3],
      ]);
      if (backend !== cpu) await backend.close();
    }
  });
});

describe('deep graphs', () => {
  // a recursion of one frame a node ends after some 11,000
  const DEPTH = LONG ? 50_000 : 20_000;
  /** yₖ = 0.9·yₖ₋₁ + c as chains of elementwise nodes: DEPTH nodes and more */
  const chain = (y: Tensor): Tensor => {
    let z = y;
    for (let k = 0; k < DEPTH / 2; k++) z = add(mul(z, 0.9), 0.05);
    return z;
  };
  test('simplify, the reference backend, grad, vmap and print', async () => {
    const y = chain(tensor([0, 1, 0.5], [3], 'f64'));
    // the fixed point is 0.5
    for (const v of await numbers(y)) expect(v).toBeCloseTo(0.5, 12);
    const g = grad((z: Tensor) => sum(chain(z)))(tensor([0, 1], [2], 'f64'));
    expect((await numbers(g)).every((v) => v >= 0 && v < 1e-300)).toBe(true);
    const mapped = vmap((z: Tensor) => chain(z), [0])(tensor([[0], [1]].flat(), [2, 1], 'f64'));
    expect((await numbers(mapped)).every((v) => Math.abs(v - 0.5) < 1e-12)).toBe(true);
    expect(print(y).split('\n').length).toBeGreaterThan(DEPTH);
  });
  test('lowering: a long chain becomes many clusters of bounded length', async () => {
    const h = hole({ shape: [3], dtype: 'f32' });
    const { graph } = makeGraph([chain(h)], [h], new Set(), cpu);
    const lowered = lower(graph, { strided: () => false, maxLoads: 7 });
    const lengths = lowered.kernels.map((k) => (k.kind === 'cluster' ? k.cluster.steps.length : 0));
    expect(Math.max(...lengths)).toBeLessThanOrEqual(1024);
    expect(lengths.length).toBeLessThan(DEPTH / 50);
    const [y] = interpret(lowered, [Float32Array.of(0, 1, 0.5)]);
    for (const v of y!) expect(v).toBeCloseTo(0.5, 6);
  });
  test('wasm runs it', async () => {
    const wasm = wasmBackend();
    const y = await numbers(compile(chain, { backend: wasm })(tensor([0, 1, 0.5])), wasm);
    for (const v of y) expect(v).toBeCloseTo(0.5, 6);
    await wasm.close();
  });
  test('lowering: chains of products, views and functions', async () => {
    const h = hole({ shape: [1, 2, 2], dtype: 'f32' });
    let z: Tensor = h;
    for (let k = 0; k < 5000; k++) z = tanh(permute(dot(z, reshape(permute(z, [0, 2, 1]), [1, 2, 2])), [0, 2, 1]));
    const { graph } = makeGraph([z], [h], new Set(), cpu);
    const lowered = lower(graph, { strided: () => true, maxLoads: 7 });
    const start = Float32Array.of(0.5, 0.1, -0.2, 0.4);
    const [y] = interpret(lowered, [start]);
    const want = await read(
      compile(
        (q: Tensor) => {
          let r: Tensor = q;
          for (let k = 0; k < 5000; k++)
            r = tanh(permute(dot(r, reshape(permute(r, [0, 2, 1]), [1, 2, 2])), [0, 2, 1]));
          return r;
        },
        { backend: cpu },
      )(tensor(start, [1, 2, 2])),
    );
    expect(Array.from(y!)).toEqual(Array.from(want));
  });
});
