/** once: the values and derivatives of the function itself, traced once for a shape, lowered once for operands that lie alike. */
import { afterAll, describe, expect, test, vi } from 'vitest';
import { wasmBackend } from '../../core/backends/wasm/index.ts';
import { makeGraph } from '../../core/compile/compile.ts';
import { checkFinite, NonFiniteError } from '../../core/compile/finite.ts';
import { interpret } from '../../core/compile/interpret.ts';
import { prepare, printKernels } from '../../core/compile/prepare.ts';
import { simplify } from '../../core/compile/simplify.ts';
import {
  add,
  checkpoint,
  compile,
  cpuBackend,
  dot,
  evaluate,
  exp,
  full,
  gather,
  grad,
  hessian,
  jvp,
  log,
  mul,
  once,
  ones,
  permute,
  read,
  reshape,
  sin,
  slice,
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
import { onceOp } from '../../core/transforms/once.ts';
import { numbers } from '../support/gradcheck.ts';

const cpu = cpuBackend();
const wasm = wasmBackend({ threads: 1 });
afterAll(() => wasm.close());

const at = (values: readonly number[]): Tensor => tensor(values, [values.length], 'f64');
const x = at([0.3, -1.2, 2]);
const w = at([1.5, 0.2, -0.7]);
const names = (ys: readonly Tensor[], keeps = true) =>
  topo(simplify(ys, () => keeps)).flatMap((t) => (t.inputs.length > 0 ? [t.op.name] : []));

/** numbers of trees by many routes: plain, differentiated, mapped and any of them of another */
function routes(f: (x: Tensor) => Tensor, y: Tensor): Tensor[] {
  const scalar = (z: Tensor) => sum(mul(f(z), f(z)));
  const rows = mul(tensor([1, 2, 3, 3, 2, 1], [2, 3], y.dtype), y);
  return [
    f(y),
    grad(scalar)(y),
    grad((z: Tensor) => sum(sin(grad(scalar)(z))))(y),
    hessian(scalar)(y),
    ...jvp(f, y, sin(y)),
    vmap(f)(rows),
    vmap(grad(scalar))(rows),
    grad((z: Tensor) => sum(vmap(scalar)(mul(rows, z))))(y),
    vmap((z: Tensor) => vmap((u: Tensor) => f(mul(u, z)))(rows))(rows),
  ];
}

const functions: readonly [string, (y: Tensor) => Tensor][] = [
  ['plain', (y) => mul(sin(y), y)],
  ['returns its argument', (y) => y],
  ['ignores its argument', () => exp(w)],
  ['a constant of its own', (y) => add(y, full([3], 2, y.dtype))],
  ['captures a value', (y) => mul(sin(mul(y, w)), w)],
  [
    'captures a recipe of values',
    (
      (v) => (y: Tensor) =>
        mul(tanh(mul(y, v)), v)
    )(exp(w)),
  ],
  ['another inside', (y) => mul(once((z: Tensor) => mul(sin(z), z))(y), once((z: Tensor) => exp(z))(sin(y)))],
  ['inside checkpoint', (y) => checkpoint((z: Tensor) => mul(once((u: Tensor) => mul(sin(u), u))(z), z))(y)],
  ['checkpoint inside', (y) => mul(checkpoint((z: Tensor) => sin(mul(z, z)))(y), y)],
  ['stops a gradient', (y) => mul(sin(y), stopGradient(exp(y)))],
  ['looks up', (y) => gather(y, tensor(Int32Array.of(2, 0, 2)))],
];

describe('once equals the function', () => {
  test.each(functions)('%s: values, first and second derivatives, mapped, nested', async (_name, f) => {
    // one wrapper for all routes: what it remembers of one must not show in the next
    const [want, got] = [routes(f, x), routes(once(f), x)];
    for (const [i, t] of want.entries()) {
      const [a, b] = [await numbers(t), await numbers(got[i]!)];
      expect(got[i]!.shape, `route ${i}`).toEqual(t.shape);
      for (const [j, v] of a.entries()) expect(Math.abs(b[j]! - v)).toBeLessThanOrEqual(1e-13 * (1 + Math.abs(v)));
    }
  });

  test('on a backend that lowers bodies by themselves: the same bits, but for sums of derivatives in another order', async () => {
    const v = tensor([1.5, 0.2, -0.7]);
    const f = (y: Tensor) => softmax(mul(sin(mul(y, v)), exp(y)));
    const y = tensor([0.3, -1.2, 2]);
    const own = routes(once(f), y);
    for (const [i, t] of routes(f, y).entries()) {
      const [a, b] = [await numbers(t, wasm), await numbers(own[i]!, wasm)];
      // the function, alone and mapped
      if (i === 0 || i === 6) expect(b, `route ${i}`).toEqual(a);
      for (const [j, u] of a.entries()) expect(Math.abs(b[j]! - u)).toBeLessThanOrEqual(4e-6 * (1 + Math.abs(u)));
    }
  });

  test('trees, in and out; a new structure is another trace', async () => {
    let traces = 0;
    const f = once((p: { readonly a: Tensor; readonly more?: Tensor }, list: readonly Tensor[]) => {
      traces++;
      const y = list.reduce((s, t) => add(s, mul(t, p.a)), p.more ?? p.a);
      return { y, twice: [mul(y, 2)] };
    });
    const first = f({ a: x }, [w]);
    expect(await numbers(first.twice[0]!)).toEqual((await numbers(add(x, mul(x, w)))).map((v) => 2 * v));
    f({ a: w }, [x]);
    expect(traces).toBe(1);
    expect(await numbers(f({ a: x, more: w }, [w]).y)).toEqual(await numbers(add(w, mul(x, w))));
    f({ a: x }, [w, w]);
    f({ a: slice(x, { axis: 0, start: 0, stop: 2 }) }, [at([1, 2])]);
    expect(traces).toBe(4);
  });

  test('mapped over two samples, then over three, over one argument or both', async () => {
    const f = (a: Tensor, b: Tensor) => mul(sin(a), add(b, a));
    const g = once(f);
    for (const n of [2, 3])
      for (const axes of [
        [0, null],
        [null, 0],
        [0, 0],
      ] as const) {
        const rows = tensor(
          Array.from({ length: 3 * n }, (_, i) => i / 4 - 1),
          [n, 3],
          'f64',
        );
        const given = [axes[0] === null ? x : rows, axes[1] === null ? w : mul(rows, 2)] as const;
        const [a, b] = [vmap(f, axes)(...given), vmap(g, axes)(...given)];
        expect(b.shape).toEqual([n, 3]);
        expect(await numbers(b)).toEqual(await numbers(a));
      }
  });

  test('each derivative is asked for by itself: of some arguments, through some results', async () => {
    const f = (a: Tensor, b: Tensor) => ({ p: mul(a, sin(b)), q: mul(b, b) });
    const g = once(f);
    for (const of of ['p', 'q'] as const)
      for (const position of [0, 1] as const) {
        const total = (h: typeof f) => (y: Tensor) => sum(h(position === 0 ? y : x, position === 0 ? w : y)[of]);
        expect(await numbers(grad(total(g))(x))).toEqual(await numbers(grad(total(f))(x)));
      }
  });
});

test('derivatives and maps of an application stay one node; a backend without kernels writes all out', () => {
  const f = once((y: Tensor) => mul(sin(y), y));
  expect(names([f(x)])).toEqual(['once']);
  expect(names([grad((y: Tensor) => sum(f(y)))(x)]).filter((name) => name === 'sin' || name === 'once')).toEqual([
    'once',
  ]);
  expect(names([vmap(f)(tensor([1, 2, 3, 4], [2, 2], 'f64'))])).toEqual(['once']);
  expect(names([f(x)], false)).toEqual(['sin', 'mul']);
});

test('equal applications are one, of other operands and of other functions they are not', () => {
  const f = once((y: Tensor) => sin(y));
  expect(names([f(x), f(x)])).toEqual(['once']);
  expect(names([f(x), f(w)])).toEqual(['once', 'once']);
  expect(names([f(x), once((y: Tensor) => exp(y))(x)])).toEqual(['once', 'once']);
});

test('an argument of another function is refused where it is captured: it would be that of the first trace for ever', () => {
  const f = (c: Tensor) => sum(once((y: Tensor) => mul(y, c))(x));
  for (const outer of [() => grad(f)(w), () => vmap(f)(reshape(w, [3, 1])), () => compile(f, { backend: cpu })(w)])
    expect(outer).toThrow(/^once: the function captures .*which is another one's argument: make it an argument$/);
});

describe('lowered by itself', () => {
  const options = (keeps: boolean) => ({
    strided: () => true,
    maxLoads: 7,
    hasKernel: (op: { readonly name: string }) => keeps && op.name !== 'softmax',
    merge: { maxLoads: 7, maxOutputs: 3 },
  });
  const holes = (...shapes: number[][]) => shapes.map((shape) => hole({ shape, dtype: 'f32' }));
  const kernelsOf = (ys: readonly Tensor[], inputs: readonly Tensor[], keeps = true) => {
    const { graph } = makeGraph(ys, inputs, new Set(), cpu, options(keeps).hasKernel as never);
    return prepare(graph, options(keeps));
  };
  const update = (p: Tensor, g: Tensor) => ({ p: sub(p, mul(g, exp(g))), g: mul(g, 0.5) });

  test('operands that lie in any way, twice the same, one behind the other: the numbers of the function', () => {
    const [a, b] = holes([2, 3], [3, 2]) as [Tensor, Tensor];
    const both = (f: typeof update) => {
      const first = f(a, permute(b, [1, 0]));
      const second = f(a, a);
      const third = f(second.p, first.g);
      const rows = f(slice(a, { axis: 0, start: 1, stop: 2 }), slice(a, { axis: 0, start: 0, stop: 1 }));
      return [first, second, third, rows].flatMap((r) => [r.p, r.g]);
    };
    const values = [Float32Array.of(1, 2, 3, -4, 0.5, 6), Float32Array.of(-1, 0.2, 3, 4, -5, 0.6)];
    const run = (ys: readonly Tensor[], keeps: boolean) => interpret(kernelsOf(ys, [a, b], keeps), values);
    expect(run(both(once(update)), true)).toEqual(run(both(update), false));
  });

  test('as many kernels as the function written out, each told for its own operands', () => {
    const inputs = holes([4], [4], [4], [4]);
    const [p, g, q, h] = inputs as [Tensor, Tensor, Tensor, Tensor];
    const two = (f: typeof update) => [f(p, g), f(q, h)].flatMap((r) => [r.p, r.g]);
    const own = kernelsOf(two(once(update)), inputs);
    expect(printKernels(own)).toBe(printKernels(kernelsOf(two(update), inputs, false)));
    // the two are the same object, not only alike
    const [first, second] = own.kernels;
    expect(first?.kind === 'cluster' && second?.kind === 'cluster' && first.cluster === second.cluster).toBe(true);
  });

  test('what nobody reads is not computed', () => {
    const [y] = holes([4]) as [Tensor];
    const f = once((z: Tensor) => [exp(z), sum(sin(z))] as const);
    expect(kernelsOf([f(y)[0]], [y]).kernels).toHaveLength(1);
    expect(kernelsOf([f(y)[1]], [y]).kernels).toHaveLength(1);
    expect(kernelsOf([...f(y)], [y]).kernels).toHaveLength(2);
  });
});

test('wasm: kernels inside stay kernels, carry the module they work for, and later programs lower no body anew', async () => {
  const f = once((p: { readonly scale: Tensor }, y: Tensor) => softmax(dot(y, p.scale)));
  const g = (ps: readonly { readonly scale: Tensor }[], y: Tensor) => sum(ps.reduce((z, p) => f(p, z), y));
  const moduleOf = (label: string) => /^(.*)\.scale$/.exec(label)?.[1];
  const two = () => evaluate(ones([1, 2, 2]), wasm);
  const params = [{ scale: two() }, { scale: two() }];
  const { kernels } = compile(g, { backend: wasm, moduleOf }).inspect(params, ones([1, 2, 2]));
  expect(kernels.map(({ name, label }) => `${name} ${label}`)).toEqual([
    'dot 0',
    'softmax 0',
    'dot 1',
    'softmax 1',
    'reduce sum 1',
  ]);
  const lowered = vi.spyOn(onceOp, 'body');
  for (const rows of [2, 2, 3]) compile(g, { backend: wasm }).inspect(params, ones([1, rows, 2]));
  // the two before were one body, which is there already
  expect(lowered).toHaveBeenCalledTimes(1);
  lowered.mockRestore();
  expect([...(await read(compile(g, { backend: wasm })(params, two())))]).toEqual([2]);
});

test('a program that checks its values looks into bodies', async () => {
  const f = once((y: Tensor) => exp(log(y)));
  const bad = tensor([1, -1]);
  for (const run of [
    async () => read(compile((y: Tensor) => f(y), { backend: wasm, check: 'finite' })(bad)),
    async () => read(evaluate(f(bad), checkFinite(wasm))),
  ]) {
    const error = await run().catch((e: unknown) => e);
    expect(error).toBeInstanceOf(NonFiniteError);
    expect((error as NonFiniteError).op).toBe('log');
  }
});
