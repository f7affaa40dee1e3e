/** checkpoint: the same values and derivatives, recomputed behind a barrier, whatever the function captures. */
import { describe, expect, test } from 'vitest';
import { simplify } from '../../core/compile/simplify.ts';
import {
  add,
  cast,
  checkpoint,
  compile,
  cpuBackend,
  exp,
  floor,
  gather,
  grad,
  key,
  keys,
  mul,
  normal,
  sin,
  stopGradient,
  sum,
  type Tensor,
  tanh,
  tensor,
  valueAndGrad,
  vmap,
} from '../../core/index.ts';
import { topo } from '../../core/ir/tensor.ts';
import { numbers } from '../support/gradcheck.ts';

const at = (values: readonly number[]): Tensor => tensor(values, [values.length], 'f64');
const x = at([0.3, -1.2, 2]);
const w = at([1.5, 0.2, -0.7]);
const count = (ys: readonly Tensor[], name: string) => topo(ys).filter((t) => t.op.name === name).length;

/** values, gradients and second derivatives of f and of its checkpointed form */
async function same(f: (x: Tensor) => Tensor): Promise<void> {
  const g = checkpoint(f);
  const scalar = (h: (x: Tensor) => Tensor) => (y: Tensor) => sum(mul(h(y), h(y)));
  for (const [a, b] of [
    [f(x), g(x)],
    [grad(scalar(f))(x), grad(scalar(g))(x)],
    [grad((y: Tensor) => sum(sin(grad(scalar(f))(y))))(x), grad((y: Tensor) => sum(sin(grad(scalar(g))(y))))(x)],
    [
      vmap(grad(scalar(f)), [0])(tensor([1, 2, 3, 4, 5, 6], [2, 3], 'f64')),
      vmap(grad(scalar(g)), [0])(tensor([1, 2, 3, 4, 5, 6], [2, 3], 'f64')),
    ],
    [
      grad((y: Tensor) =>
        sum(
          vmap(
            scalar(f),
            [0],
          )(
            mul(
              y,
              tensor(
                [
                  [1, 2, 3],
                  [3, 2, 1],
                ].flat(),
                [2, 3],
                'f64',
              ),
            ),
          ),
        ),
      )(x),
      grad((y: Tensor) =>
        sum(
          vmap(
            scalar(g),
            [0],
          )(
            mul(
              y,
              tensor(
                [
                  [1, 2, 3],
                  [3, 2, 1],
                ].flat(),
                [2, 3],
                'f64',
              ),
            ),
          ),
        ),
      )(x),
    ],
  ] as const) {
    const [want, got] = [await numbers(a), await numbers(b)];
    for (const [i, v] of want.entries()) expect(Math.abs(got[i]! - v)).toBeLessThanOrEqual(1e-13 * (1 + Math.abs(v)));
  }
}

describe('checkpoint equals the function', () => {
  test.each([
    ['plain', (y: Tensor) => mul(sin(y), y)],
    ['captures a tensor', (y: Tensor) => mul(sin(mul(y, w)), w)],
    [
      'captures a recipe',
      (
        (v) => (y: Tensor) =>
          mul(tanh(mul(y, v)), v)
      )(exp(w)),
    ],
    ['returns its argument', (y: Tensor) => y],
    ['ignores its argument', () => exp(w)],
    ['a constant', () => tensor([1, 2, 3], [3], 'f64')],
    ['nested', (y: Tensor) => checkpoint((z: Tensor) => mul(sin(z), checkpoint((u: Tensor) => exp(mul(u, w)))(z)))(y)],
    ['stops a gradient inside', (y: Tensor) => mul(sin(y), stopGradient(exp(y)))],
    ['draws inside', (y: Tensor) => mul(y, cast(normal(keys(key(4), 2)[1]!, [3]), 'f64'))],
    ['looks up inside', (y: Tensor) => gather(y, tensor(Int32Array.of(2, 0, 2)))],
  ] as [string, (y: Tensor) => Tensor][])('%s', async (_name, f) => same(f));
});

test('a captured value is differentiated too: trees of arguments and results', async () => {
  const f = (p: { readonly a: Tensor; readonly list: readonly Tensor[] }, y: Tensor) => ({
    u: mul(p.a, sin(mul(p.list[0]!, y))),
    v: [add(y, p.a)],
  });
  const total = (h: typeof f) => (p: Parameters<typeof f>[0], y: Tensor) => {
    const r = h(p, y);
    return sum(mul(r.u, r.v[0]!));
  };
  const p = { a: at([1, 2, 3]), list: [at([0.5, -0.5, 1])] };
  const [[v, g], [cv, cg]] = [valueAndGrad(total(f))(p, x), valueAndGrad(total(checkpoint(f)))(p, x)];
  expect(await numbers(cv)).toEqual(await numbers(v));
  for (const pick of [(t: typeof p) => t.a, (t: typeof p) => t.list[0]!]) {
    const [want, got] = [await numbers(pick(g as typeof p)), await numbers(pick(cg as typeof p))];
    for (const [i, w0] of want.entries()) expect(got[i]).toBeCloseTo(w0, 13);
  }
});

test('the captured tensor of an outer grad gets its derivative through the closed body', async () => {
  const f = (c: Tensor) => sum(mul(checkpoint((y: Tensor) => sin(mul(y, c)))(x), c));
  const plain = (c: Tensor) => sum(mul(sin(mul(x, c)), c));
  expect(await numbers(grad(f)(w))).toEqual(await numbers(grad(plain)(w)));
});

test('an argument nobody differentiates may pass through an op without derivative', async () => {
  const f = (y: Tensor, t: Tensor) => mul(y, floor(t));
  const g = grad((y: Tensor) => sum(checkpoint(f)(y, w)))(x);
  expect(await numbers(g)).toEqual([1, 0, -1]);
});

describe('what it saves', () => {
  /** a chain of sines: the backward pass needs every argument again */
  const chain = (y: Tensor) => {
    let z = y;
    for (let i = 0; i < 5; i++) z = sin(z);
    return z;
  };
  test('the backward pass runs the function again, after the cotangent is there', () => {
    const g = grad((y: Tensor) => sum(exp(checkpoint(chain)(y))))(x);
    const [simple] = simplify([g], () => false);
    // 5 sines forward (for exp's derivative), 4 again for the cosines' arguments; never merged
    expect(count([simple!], 'sin')).toBe(9);
    expect(count([simple!], 'barrier')).toBe(1);
    const [kept] = simplify([grad((y: Tensor) => sum(exp(chain(y))))(x)], () => false);
    expect(count([kept!], 'sin')).toBe(5);
  });
  test('per-sample gradients keep the barrier; a forward pass alone has none', () => {
    const per = vmap(
      grad((y: Tensor) => sum(checkpoint(chain)(y))),
      [0],
    )(tensor([1, 2, 3, 4, 5, 6], [2, 3], 'f64'));
    expect(
      count(
        simplify([per], () => false),
        'barrier',
      ),
    ).toBe(1);
    expect(
      count(
        simplify([checkpoint(chain)(x)], () => false),
        'barrier',
      ),
    ).toBe(0);
  });
  test('compiled: the same numbers', async () => {
    const f = compile((y: Tensor) => grad((z: Tensor) => sum(exp(checkpoint(chain)(z))))(y), { backend: cpuBackend() });
    expect(await numbers(f(x))).toEqual(await numbers(grad((y: Tensor) => sum(exp(chain(y))))(x)));
  });
});
