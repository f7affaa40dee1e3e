/** What looks inside: consoles, graphs as data, capture, checked gradients and values. Against closed forms. */
import { inspect } from 'node:util';
import { describe, expect, expectTypeOf, test } from 'vitest';
import {
  add,
  type Backend,
  capture,
  cast,
  checkFinite,
  checkGrad,
  compile,
  customVjp,
  div,
  evaluate,
  exp,
  floor,
  grad,
  log,
  MissingRuleError,
  mark,
  matmul,
  mean,
  mul,
  NonFiniteError,
  openBackend,
  print,
  read,
  square,
  sub,
  sum,
  type Tensor,
  tanh,
  tensor,
  toGraph,
  zipTrees,
} from '../../core/index.ts';
import { numbers } from '../support/gradcheck.ts';

const f64 = (x: Parameters<typeof tensor>[0], shape?: readonly number[]) => tensor(x, shape, 'f64');
const close = (got: readonly number[], want: readonly number[], tolerance = 1e-12) => {
  expect(got.length).toBe(want.length);
  for (const [i, w] of want.entries())
    expect(Math.abs(got[i]! - w), `[${i}] ${got[i]} ${w}`).toBeLessThanOrEqual(tolerance * (1 + Math.abs(w)));
};
const x = f64([1, 2, 3]);
describe('looking inside', () => {
  test('a console shows a tensor on one line', () => {
    expect(inspect(tensor([[1, 2]]))).toBe('Tensor f32[1, 2] data');
    expect(inspect({ y: mul(tensor([1, 2]), 2) })).toBe('{ y: Tensor f32[2] = mul(f32[2], f32[2]) }');
  });
  test('toGraph says what print says', () => {
    const tree = { loss: sum(exp(mul(x, 2))) };
    const graph = toGraph(tree);
    expect(print(tree).split('\n')).toHaveLength(graph.nodes.length + graph.outputs.length + 1);
    expect(JSON.parse(JSON.stringify(graph))).toEqual(graph);
    expect(graph.nodes.at(-1)).toMatchObject({ op: 'reshape', form: 'layout' });
    expect(graph.outputs).toEqual([{ path: 'loss', id: graph.nodes.at(-1)!.outs[0]!.id }]);
  });
  const params = {
    l1: {
      weight: f64([
        [0.1, 0.2],
        [0.3, -0.4],
      ]),
      bias: f64([0, 0.5]),
    },
    l2: { weight: f64([[1], [2]]) },
  };
  const input = f64([
    [1, 2],
    [3, 4],
  ]);
  const loss = (p: typeof params, t: Tensor) => {
    const h = mark(tanh(add(matmul(t, p.l1.weight), p.l1.bias)), 'hidden');
    return mean(matmul(h, p.l2.weight));
  };
  test('capture finds values and cotangents by marks and by modules', async () => {
    const { value, intermediates, cotangents } = capture(loss, ['hidden', 'l1', 'l2'])(params, input);
    const h = [0.7, -0.1, 1.5, -0.5].map(Math.tanh);
    close(await numbers(intermediates.hidden!), h);
    close(await numbers(intermediates.l1!), h);
    close(await numbers(value), [(h[0]! + 2 * h[1]! + h[2]! + 2 * h[3]!) / 2]);
    close(await numbers(cotangents.hidden!), [0.5, 1, 0.5, 1]);
    close(await numbers(cotangents.l2!), [1]);
    expect(Object.keys(capture(loss)(params, input).intermediates)).toEqual(['hidden']);
    expect(() => capture(loss, ['l3'])(params, input)).toThrow(
      'capture: nothing has the path l3; there are hidden, l1, l2',
    );
  });
  test('checkGrad tells a right derivative from a wrong one, and backends from each other', async () => {
    const backend: Backend = await openBackend('wasm', { threads: 1 });
    const plain = tensor([
      [1, 2],
      [3, 4],
    ]);
    const right = await checkGrad((p: typeof params) => loss(p, cast(plain, p.l1.weight.dtype)), params, {
      backends: [backend],
    });
    expect([right.ok, right.dtype, right.backends[0]!.name]).toEqual([true, 'f64', 'wasm']);
    // central differences: error ∝ h²
    expect(right.byStep[1]!.error / right.byStep[0]!.error).toBeLessThan(0.02);
    const twice = customVjp(
      (t: Tensor) => [square(t), t] as const,
      (kept, g) => [mul(g, kept)] as [Tensor],
    );
    const wrong = await checkGrad(
      (t: Tensor) => sum(twice(t)),
      f64([
        [1, 2],
        [3, 4],
      ]),
    );
    expect(wrong.ok).toBe(false);
    expect(wrong.worst).toMatchObject({ path: '', index: [1, 1], got: 4 });
    expect(Math.abs(wrong.worst.want - 8)).toBeLessThan(1e-6);
    expect(wrong.text).toMatch(/^WRONG in f64, worst x\[1, 1\]: 4 against (8|7\.99)/);
    await backend.close();
  });
  test('zipTrees keeps the type of the first tree', () => {
    const sums = zipTrees((a: Tensor, b: Tensor) => add(a, b), params, params);
    expectTypeOf(sums).toEqualTypeOf<{ l1: { weight: Tensor; bias: Tensor }; l2: { weight: Tensor } }>();
    expect(sums.l1.bias.shape).toEqual([2]);
  });
  test('differentiating what has no derivative is refused, unless its argument is a constant', async () => {
    expect(() => grad((t: Tensor) => sum(floor(t)))(x)).toThrow(MissingRuleError);
  });
});

describe.each(['cpu', 'wasm', 'webgpu', 'gpujs'] as const)(
  'values that are not finite, on %s',
  { timeout: 120_000 },
  (name) => {
    type P = { readonly head: { readonly w: Tensor }; readonly x: Tensor };
    const f = (p: P) => sum(log(div(p.x, p.head.w)));
    const fine = {
      head: {
        w: tensor([
          [1, 1, 1],
          [1, 1, 1],
        ]),
      },
      x: tensor([
        [1, 2, 3],
        [4, 5, 6],
      ]),
    };
    const bad = {
      ...fine,
      x: tensor([
        [1, 2, 3],
        [4, -5, 6],
      ]),
    };
    test('are named at the next read: op, module and place', async () => {
      const backend: Backend = await openBackend(name, { threads: 1 });
      const moduleOf = (label: string) => (label.includes('.') ? label.split('.')[0] : undefined);
      const step = compile(f, { backend, check: 'finite', name: 'step', moduleOf });
      const plain = compile(f, { backend });
      expect([...(await read(step(fine)))]).toEqual([...(await read(plain(fine)))]);
      const y = step(bad);
      const error = await read(y).then(
        () => undefined,
        (e: unknown) => e as NonFiniteError,
      );
      expect(error).toBeInstanceOf(NonFiniteError);
      expect(error).toMatchObject({ op: 'log', module: 'head', position: [1, 1] });
      expect(error!.message).toBe(
        'step: the first value that is not finite is made by log in head: f32[2, 3] at [1, 1]',
      );
      // told once; the value itself can still be read
      expect(Number.isNaN((await read(y))[0])).toBe(true);
      const checked = checkFinite(backend);
      const given = tensor([1, Number.POSITIVE_INFINITY]);
      await expect(read(evaluate(sub(given, 1), checked))).rejects.toThrow(
        /^program: the first value that is not finite is argument/,
      );
      await backend.close();
    });
  },
);
