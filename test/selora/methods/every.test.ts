/** What holds for every method: a row each for whatever stands in `selora/methods/index.ts`. */
import { describe, expect, test } from 'vitest';
import { entries, eye, grad, leaves, mul, slice, sum, type Tensor, tensor, unflatten } from '../../../core/index.ts';
import { conv2d, linear } from '../../../nn/index.ts';
import { METHODS } from '../../../selora/methods/index.ts';
import { type Field, type Method, mapFields, type Params, type Settings } from '../../../selora/methods/method.ts';
import { methodOf } from '../../../selora/methods/registry.ts';
import { padParams } from '../../../selora/pad.ts';
import { numbers } from '../../support/gradcheck.ts';
import { lycorisWeight } from '../../support/lycoris.ts';
import { atRankTwo, layer, merged, moved, outputs, places, weightOf } from '../../support/method-layers.ts';

const close = (got: readonly number[], want: readonly number[], by: number, what: string) => {
  expect(got.length, what).toBe(want.length);
  for (const [i, w] of want.entries())
    expect(Math.abs(got[i]! - w), `${what} [${i}]`).toBeLessThanOrEqual(by * (1 + Math.abs(w)));
};

/** methods whose gradient takes something for a constant, by their papers: tests of their own */
const CONSTANT = new Set(['dora']);

/** settings that change what a method computes, each a row of its own */
const VARIANTS: readonly (readonly [name: string, given: Settings])[] = [
  ['dylora', { dyForm: 'block', scale: 0.7 }],
  ['ia3', { factorsOn: 'inputs' }],
  ['lokr', { kronFactor: 2, scale: 0.7 }],
  ['loha', { rank: 3, scale: 0.7 }],
  ['dora', { scale: 0.7 }],
  ['rslora', { rank: 3, scale: 0.7 }],
  ['vera', { scale: 0.7, veraStart: 0.3 }],
  ['oft', { oftBlock: 2 }],
];
const rows = [
  ...METHODS.map((m): [string, Method, Settings] => [m.name, m as Method, {}]),
  ...VARIANTS.map(([name, given]): [string, Method, Settings] => [name + JSON.stringify(given), methodOf(name), given]),
];
describe.each(rows)('%s', (_name, method, given) => {
  const { c, start } = atRankTwo(method, given);

  test('at the start the function is unchanged to the bit', async () => {
    for (const path of places.keys()) {
      const plain = layer(path, weightOf(path), 'f32');
      expect(await outputs(path, method.attach(plain, start[path]!, c), 'f32'), path).toEqual(
        await outputs(path, plain, 'f32'),
      );
    }
  });

  if (method.penalty)
    test('its penalty has no slope, and no NaN, where columns and rows are orthonormal already', async () => {
      for (const path of places.keys()) {
        const unit = (p: Params): Params => {
          const ones = (x: Tensor) => eye(Math.max(...x.shape), { dtype: x.dtype });
          const part = (x: Tensor) => slice(ones(x), { axis: 0, stop: x.shape[0]! }, { axis: 1, stop: x.shape[1]! });
          return { ...p, A: part(p.A as Tensor), B: part(p.B as Tensor) };
        };
        const p = unit(start[path]!);
        const g = grad((q: Params) => method.penalty!([q], c))(p as never) as unknown as { A: Tensor; B: Tensor };
        for (const x of [g.A, g.B])
          expect(await numbers(x), path).toEqual(Array.from({ length: x.shape[0]! * x.shape[1]! }, () => 0));
      }
    });

  test('attached and merged from its file it is one and the same layer, and another than the frozen one', async () => {
    for (const path of places.keys()) {
      const { host, tree } = await moved(method, c, path, start[path]!, 'f64');
      const used = method.whole?.(tree, c) ?? tree;
      const plain = layer(path, weightOf(path), 'f64');
      const attached = await outputs(path, method.attach(plain, used, c), 'f64');
      const file = layer(path, merged(method, c, path, host), 'f64');
      close(attached, await outputs(path, file, 'f64'), 2e-6, path);
      const before = await outputs(path, plain, 'f64');
      expect(Math.max(...attached.map((x, i) => Math.abs(x - before[i]!))), path).toBeGreaterThan(1e-3);
    }
  });

  if (method.toLycoris)
    test('the file in LyCORIS’ form says the same change, as LyCORIS computes it', async () => {
      for (const [path, place] of places) {
        const { host } = await moved(method, c, path, start[path]!, 'f64');
        const own = method.toLycoris!(host, place, c, weightOf(path));
        for (const { shape, data } of Object.values(own)) expect(data.length).toBe(shape.reduce((n, side) => n * side, 1)); // biome-ignore format: one line
        close(lycorisWeight(own, weightOf(path), place), [...merged(method, c, path, host)], 1e-6, path);
      }
    });

  test('padded ranks change nothing and have no gradient', async () => {
    const fields = method.fields([1, 1], 1, c);
    for (const path of places.keys()) {
      const { tree, host } = await moved(method, c, path, start[path]!, 'f64');
      const wide = padParams(tree, fields, 4);
      const plain = layer(path, weightOf(path), 'f64');
      close(
        await outputs(path, method.attach(plain, wide, c), 'f64'),
        await outputs(path, method.attach(plain, tree, c), 'f64'),
        1e-12,
        path,
      );
      const place = places.get(path)!;
      const loss = (p: Params): Tensor => {
        const x = tensor(Array.from({ length: 12 * place[1] }, (_, i) => Math.sin(i)), place.length === 4 ? [1, 4, 3, place[1]] : [12, place[1]], 'f64'); // biome-ignore format: one line
        const module = method.attach(plain, p, c) as never;
        const y = place.length === 4 ? conv2d(module, x) : linear(module, x);
        return sum(mul(y, y));
      };
      const g = (grad(loss as never) as (p: Params) => Params)(wide);
      await Promise.all(
        mapFields(
          async (x: Tensor, { axis, trained }, name) => {
            if (axis === null || !trained) return;
            const inner = x.shape.slice(axis + 1).reduce((n, side) => n * side, 1);
            const values = await numbers(x);
            const free = values.filter((_, i) => Math.floor(i / inner) % 4 >= host.rank);
            expect(free.every((v) => v === 0), `${path} ${name}`).toBe(true); // biome-ignore format: one line
          },
          g,
          fields,
        ),
      );
    }
  });

  test('every trained field has a gradient, the derivative of the loss', async () => {
    const path = 'wide';
    const { tree } = await moved(method, c, path, start[path]!, 'f64');
    const plain = layer(path, weightOf(path), 'f64');
    const fields = method.fields(places.get(path)!, 2, c);
    const frozen = new Set(entries<Field>(fields).filter(([, f]) => !f.trained).map(([name]) => name)); // biome-ignore format: one line
    const x = tensor(Array.from({ length: 40 }, (_, i) => Math.cos(3 * i)), [5, 8], 'f64'); // biome-ignore format: one line
    const loss = (p: Params): Tensor => {
      const y = linear(method.attach(plain, p, c) as never, x);
      return sum(mul(y, mul(y, y)));
    };
    const g = (grad(loss as never) as (p: Params) => Params)(tree);
    const names = entries<Tensor>(tree).map(([name]) => name);
    for (const [at, name] of names.entries()) {
      if (frozen.has(name)) continue;
      const own = leaves<Tensor>(tree);
      const [before, slope] = [await numbers(own[at]!), await numbers(leaves<Tensor>(g)[at]!)];
      expect(slope.some((v) => v !== 0), name).toBe(true); // biome-ignore format: one line
      const shifted = async (h: number) => {
        const next = before.map((v, i) => v + h * Math.sin(1 + i));
        const moved = unflatten(tree, own.map((t, i) => (i === at ? tensor(next, t.shape, 'f64') : t))); // biome-ignore format: one line
        return (await numbers(loss(moved)))[0]!;
      };
      const h = 1e-4;
      const difference = (8 * ((await shifted(h)) - (await shifted(-h))) - ((await shifted(2 * h)) - (await shifted(-2 * h)))) / (12 * h); // biome-ignore format: one line
      const along = slope.reduce((s, v, i) => s + v * Math.sin(1 + i), 0);
      if (!CONSTANT.has(method.name))
        expect(Math.abs(difference - along), name).toBeLessThanOrEqual(1e-6 * (1 + Math.abs(along)));
    }
  });
});
