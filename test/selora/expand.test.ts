/** An expansion changes no output, to the bit; new ranks learn, ranks that are zero on both sides never do. */
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { wasmBackend } from '../../core/backends/wasm/index.ts';
import { type Backend, compile, cpuBackend, evaluate, grad, read, tensor, zeros } from '../../core/index.ts';
import { parseConfig, unetSchema } from '../../models/config.ts';
import { readJson } from '../../models/io/json.ts';
import { linearPaths, specShapes } from '../../models/spec.ts';
import { unet, unetSpec } from '../../models/unet/index.ts';
import { init } from '../../nn/index.ts';
import { type Adapter, type Adapters, foldKey, hostKey, initAdapters, rankOf } from '../../selora/adapter.ts';
import { attach } from '../../selora/attach.ts';
import { candidate, expandAdapter } from '../../selora/expand.ts';
import { lowRank } from '../../selora/methods/low-rank.ts';
import { padParams } from '../../selora/pad.ts';
import { numbers, rng } from '../support/gradcheck.ts';
import { type Case, type Float, forward, loss, type Net, randomCase } from '../support/selora-net.ts';

const cpu = cpuBackend();
const wasm = wasmBackend();
afterAll(() => wasm.close());

/** Values with their signs: −0 and 0 are told apart. */
const bits = (x: ArrayLike<number>): string => Array.from(x, (v) => (Object.is(v, -0) ? '-0' : String(v))).join(' ');
const expandAll = (adapters: Adapters, K: Case['K']): Adapters =>
  Object.fromEntries(Object.entries(adapters).map(([path, a]) => [path, expandAdapter(a, K[path]!)]));

describe('the output after an expansion is the output before it, bit for bit', () => {
  const cases: [string, Backend, Float][] = [
    ['cpu', cpu, 'f64'],
    ['cpu', cpu, 'f32'],
    ['wasm', wasm, 'f32'],
  ];
  test.each(cases)('%s: 170 random networks, expanded twice', async (_name, backend, dtype) => {
    for (let seed = 0; seed < 170; seed++) {
      const c = randomCase(seed, dtype);
      const once = expandAll(c.adapters, c.K);
      const twice = expandAll(once, c.K);
      const [before, after, last] = [c.adapters, once, twice].map((a) => forward(c.base, a, c.x));
      const done = evaluate({ before: before!, after: after!, last: last! }, backend);
      const want = bits(await read(done.before));
      expect(bits(await read(done.after)), `seed ${seed}`).toBe(want);
      expect(bits(await read(done.last)), `seed ${seed}`).toBe(want);
    }
  });

  test('each side matters: a new row that is not zero changes the output', async () => {
    const c = randomCase(3, 'f64');
    const grown = expandAdapter(c.adapters['l.1']!, c.K['l.1']!);
    const B = Float64Array.from(await numbers(grown.B)).fill(0.5, -1);
    const other = { ...c.adapters, 'l.1': { A: grown.A, B: tensor(B, grown.B.shape) } };
    const [before, after] = [c.adapters, other].map((a) => numbers(forward(c.base, a, c.x)));
    expect(bits(await after!)).not.toBe(bits(await before!));
  });

  test('a whole U-Net with every linear expanded: cpu and wasm', async () => {
    const config = parseConfig(
      unetSchema,
      await readJson(join(import.meta.dirname, '../golden/tiny-sd/unet/config.json')),
      'unet',
    );
    const spec = unetSpec(config);
    const params = init(spec, 5);
    const shapes = specShapes(spec);
    const linears = new Map(
      linearPaths(spec).map((p) => [p, shapes.get(`${p}.weight`) as unknown as readonly [number, number]]),
    );
    const random = rng(11);
    const noise = (shape: readonly number[]) =>
      tensor(
        Float32Array.from({ length: shape.reduce((p, n) => p * n, 1) }, () => random() - 0.5),
        shape,
      );
    const start = initAdapters(hostKey(1), linears, 2, { a: 0 });
    const adapters: Adapters = Object.fromEntries(
      Object.entries(start).map(([p, { A, B }]): [string, Adapter] => [p, { A, B: noise(B.shape) }]),
    );
    const key = foldKey(hostKey(1), 'test');
    const grown: Adapters = Object.fromEntries(
      Object.entries(adapters).map(([p, a]) => [p, expandAdapter(a, candidate(key, p, 40, a.A.shape[0]!, { a: 0 }).K)]),
    );
    expect(Object.values(grown).map(rankOf)).toEqual(Array.from({ length: 116 }, () => 3));
    const [x, context] = [noise([1, 8, 8, 4]), noise([1, 7, config.cross_attention_dim])];
    const t = tensor([500]);
    for (const backend of [cpu, wasm]) {
      const run = compile((a: Adapters) => unet(attach(params, a, 1), config, x, t, context), { backend });
      const [before, after, without] = [adapters, grown, {}].map((a) => read(run(evaluate(a, backend))));
      expect(bits(await after!), backend.name).toBe(bits(await before!));
      expect(bits(await without!), backend.name).not.toBe(bits(await before!));
    }
  });
});

describe('what the new rank can learn', () => {
  const gradients = (c: Case, path: string, a: Adapter) =>
    grad((all: Adapters, base: Net) => loss(all, base, c.x, c.y))({ ...c.adapters, [path]: a }, c.base)[path]!;

  test('the candidate column has gradient zero, its row has not: s·Kᵀxᵀg', async () => {
    let moving = 0;
    for (let seed = 0; seed < 30; seed++) {
      const c = randomCase(seed, 'f64');
      const rank = rankOf(c.adapters['l.1']!);
      const g = gradients(c, 'l.1', expandAdapter(c.adapters['l.1']!, c.K['l.1']!));
      const [gA, gB] = [await numbers(g.A), await numbers(g.B)];
      expect(gA.filter((_, i) => i % (rank + 1) === rank).every((v) => v === 0)).toBe(true);
      moving += gB.slice(rank * g.B.shape[1]!).some((v) => v !== 0) ? 1 : 0;
      // the old entries' gradients are what they were
      const old = gradients(c, 'l.1', c.adapters['l.1']!);
      expect(gA.filter((_, i) => i % (rank + 1) !== rank)).toEqual(await numbers(old.A));
      expect(gB.slice(0, rank * g.B.shape[1]!)).toEqual(await numbers(old.B));
    }
    expect(moving).toBe(30);
  });

  test('zero on both sides: gradient identically zero, the rank stays dead', async () => {
    for (let seed = 0; seed < 30; seed++) {
      const c = randomCase(seed, 'f64');
      const a = c.adapters['l.1']!;
      const rank = rankOf(a);
      const g = gradients(c, 'l.1', expandAdapter(a, zeros([a.A.shape[0]!, 1], 'f64')));
      expect((await numbers(g.A)).filter((_, i) => i % (rank + 1) === rank).every((v) => v === 0)).toBe(true);
      expect((await numbers(g.B)).slice(rank * g.B.shape[1]!).every((v) => v === 0)).toBe(true);
    }
  });
});

describe('shapes', () => {
  test('expanding appends the column and a zero row, and leaves its arguments alone', async () => {
    const a: Adapter = { A: tensor([1, 2, 3, 4], [2, 2]), B: tensor([5, 6, 7, 8, 9, 10], [2, 3]) };
    const e = expandAdapter(a, tensor([0.5, -0.5], [2, 1]));
    expect([await numbers(e.A), e.A.shape]).toEqual([
      [1, 2, 0.5, 3, 4, -0.5],
      [2, 3],
    ]);
    expect([await numbers(e.B), e.B.shape]).toEqual([
      [5, 6, 7, 8, 9, 10, 0, 0, 0],
      [3, 3],
    ]);
    expect([await numbers(a.A), rankOf(a)]).toEqual([[1, 2, 3, 4], 2]);
  });
  test('padding to a capacity keeps the product, to the bit', () => {
    const rank = fc.integer({ min: 1, max: 4 });
    return fc.assert(
      fc.asyncProperty(fc.nat(1000), rank, async (seed, extra) => {
        const c = randomCase(seed, 'f64');
        const padded: Adapters = Object.fromEntries(
          Object.entries(c.adapters).map(([p, a]) => [
            p,
            padParams(a, lowRank.fields([1, 1], 1), rankOf(a) + extra - 1),
          ]),
        );
        for (const [p, a] of Object.entries(padded)) expect(rankOf(a)).toBe(rankOf(c.adapters[p]!) + extra - 1);
        const [want, got] = [c.adapters, padded].map((a) => numbers(forward(c.base, a, c.x)));
        expect(bits(await got!)).toBe(bits(await want!));
      }),
      { numRuns: 40 },
    );
  });
});
