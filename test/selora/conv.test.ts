/** Adapters on convolutions (LoCon): attached, merged and written they are one and the same change. */
import { describe, expect, test } from 'vitest';
import { add, grad, mean, mul, sub, type Tensor, tanh, tensor } from '../../core/index.ts';
import { deltaWeight } from '../../models/io/adapter-file.ts';
import { conv2d, linear, toModelLayout } from '../../nn/index.ts';
import { type Adapter, type Adapters, hostKey } from '../../selora/adapter.ts';
import { attach } from '../../selora/attach.ts';
import { merge, unmerge } from '../../selora/merge.ts';
import { lora } from '../../selora/methods/lora.ts';
import { inputsOf } from '../../selora/methods/low-rank.ts';
import type { Method, Place, Places } from '../../selora/methods/method.ts';
import { settingsOf } from '../../selora/methods/registry.ts';
import { derivative, inner, numbers, rng } from '../support/gradcheck.ts';

const SCALE = 0.7;
/** weights as PyTorch shapes them: a 3×3, a 1×1, a downsampling one, a linear layer at the end */
const places: Places = new Map<string, Place>([
  ['wide', [5, 2, 3, 3]],
  ['point', [4, 5, 1, 1]],
  ['down', [3, 4, 3, 3]],
  ['out', [2, 3]],
]);
const drawer = (seed: number, dtype: 'f32' | 'f64') => {
  const random = rng(seed);
  return (shape: readonly number[]): Tensor =>
    tensor(
      Array.from({ length: shape.reduce((n, side) => n * side, 1) }, () => Math.fround(random() * 2 - 1)),
      shape,
      dtype,
    );
};
type Net = Record<string, { readonly weight: Tensor; readonly bias: Tensor }>;
const netOf = (dtype: 'f32' | 'f64'): Net => {
  const draw = drawer(1, dtype);
  const shapeOf = ([o, i, kh, kw]: Place) => (kh === undefined ? [o, i] : [kh, kw!, i, o]);
  return Object.fromEntries(
    [...places].map(([path, place]) => [path, { weight: draw(shapeOf(place)), bias: draw([place[0]]) }]),
  );
};
const adaptersOf = (dtype: 'f32' | 'f64', rank = 2): Adapters => {
  const draw = drawer(2, dtype);
  return Object.fromEntries(
    [...places].map(([path, place]) => [path, { A: draw([inputsOf(place), rank]), B: draw([rank, place[0]]) }]),
  );
};
const run = (net: Net, x: Tensor): Tensor => {
  const h = tanh(conv2d(net.point!, tanh(conv2d(net.wide!, x))));
  return linear(net.out!, mean(tanh(conv2d(net.down!, h, { stride: 2, padding: [[0, 1], [0, 1]] })), [1, 2])); // biome-ignore format: one line
};
const input = (dtype: 'f32' | 'f64') => drawer(3, dtype)([2, 6, 5, 2]);
const close = (got: readonly number[], want: readonly number[], by: number) => {
  expect(got.length).toBe(want.length);
  for (const [i, w] of want.entries()) expect(Math.abs(got[i]! - w)).toBeLessThanOrEqual(by * (1 + Math.abs(w)));
};

describe('attach and merge', () => {
  test('compute the same network', async () => {
    const [net, adapters, x] = [netOf('f64'), adaptersOf('f64'), input('f64')];
    const [plain, attached, merged] = await Promise.all(
      [net, attach(net, adapters, SCALE), merge(net, adapters, SCALE)].map((n) => numbers(run(n, x))),
    );
    close(attached!, merged!, 1e-13);
    expect(Math.max(...merged!.map((v, i) => Math.abs(v - plain![i]!)))).toBeGreaterThan(0.05);
    const back = unmerge(merge(net, adapters, SCALE), adapters, SCALE);
    for (const [path, { weight }] of Object.entries(net))
      close(await numbers(back[path]!.weight), await numbers(weight), 1e-14);
  });

  test('the change is that of the file: W[out, in, kh, kw] + scale·(A·B)ᵀ', async () => {
    const [net, adapters] = [netOf('f64'), adaptersOf('f64')];
    const merged = merge(net, adapters, SCALE);
    const method: Method = lora as Method;
    for (const [path, place] of places) {
      const { A, B } = adapters[path]!;
      const host = async (t: Tensor) => ({ shape: t.shape, data: Float32Array.from(await numbers(t)) });
      const module = { rank: 2, fields: { A: await host(A), B: await host(B) } };
      const file = method.toFile(module, place, settingsOf(method))!;
      expect(file.kernel).toEqual(place.length === 4 ? [place[2], place[3]] : undefined);
      const delta = toModelLayout({ data: deltaWeight({ ...file, scale: SCALE }), shape: place });
      const W = await numbers(net[path]!.weight);
      close(
        await numbers(merged[path]!.weight),
        W.map((w, i) => w + delta.data[i]!),
        1e-14,
      );
      const again = method.fromFile(file, { scale: 1 } as never, { A, B }) as {
        readonly A: Tensor;
        readonly B: Tensor;
      };
      expect([await numbers(again.A), await numbers(again.B)]).toEqual([await numbers(A), await numbers(B)]);
    }
  });

  test.each(['point', 'wide'])('%s: an adapter of another size is refused by name', (path) => {
    const [net, adapters] = [netOf('f64'), adaptersOf('f64')];
    const other = adapters[path === 'point' ? 'wide' : 'point']!;
    for (const f of [attach, merge, unmerge]) expect(() => f(net, { [path]: other }, 1)).toThrow(`${path}: adapter A[`);
  });
});

test('at the start of a method the function is unchanged to the bit', async () => {
  const [net, x] = [netOf('f32'), input('f32')];
  const c = settingsOf(lora as Method, { rank: 3 });
  const method: Method = lora as Method;
  const fresh = method.init(places, method.ranks(c, { unet: places, text: new Map() }).unet, hostKey(5), c);
  const attached = Object.fromEntries(
    Object.entries(net).map(([path, layer]) => [path, method.attach(layer, fresh[path]!, c)]),
  ) as Net;
  expect(attached.wide).toHaveProperty('adapter');
  expect(await numbers(run(attached, x))).toEqual(await numbers(run(net, x)));
});

test.each([...places.keys()])('%s: gradients of A and B are those of finite differences', async (path) => {
  const [net, adapters, x] = [netOf('f64'), adaptersOf('f64'), input('f64')];
  const target = drawer(9, 'f64')([2, 2]);
  const loss = (own: Adapter): Tensor => {
    const d = sub(run(attach(net, { ...adapters, [path]: own }, SCALE), x), target);
    return mean(mul(d, d));
  };
  const { A, B } = adapters[path]!;
  const draw = drawer(11, 'f64');
  const toward: Adapter = { A: draw(A.shape), B: draw(B.shape) };
  const g = grad(loss)(adapters[path]!);
  const slope = async (side: 'A' | 'B') => inner(await numbers(g[side]), await numbers(toward[side]));
  const moved = (h: number): Adapter => ({ A: add(A, mul(toward.A, h)), B: add(B, mul(toward.B, h)) });
  const want = await derivative(async (h) => (await numbers(loss(moved(h))))[0]!);
  const got = (await slope('A')) + (await slope('B'));
  expect(Math.abs(got - want)).toBeLessThanOrEqual(1e-9 * (1 + Math.abs(want)));
  expect(Math.abs(want)).toBeGreaterThan(1e-3);
});
