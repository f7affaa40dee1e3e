/** The attention kernels against the reference loops at the edges of their blocks, with and without lanes that exchange. */
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { openDevice } from '../../../core/backends/webgpu/device.ts';
import { webgpuBackend } from '../../../core/backends/webgpu/index.ts';
import { attention, type Backend, evaluate, pullback, read, type Tensor, tensor } from '../../../core/index.ts';
import { cpu, rng, values } from '../../support/gradcheck.ts';
import { longRows } from '../../support/long.ts';

// software drivers build pipelines slowly when the machine is busy
vi.setConfig({ testTimeout: 240_000 });

const variants = {
  exchange: {},
  'no exchange': { subgroups: false },
  'for GPUs': { kernels: 'gpu' },
} as const;
type Variant = keyof typeof variants;
const backends = new Map<Variant, Backend>();
beforeAll(async () => {
  for (const [name, options] of Object.entries(variants))
    backends.set(name as Variant, (await webgpuBackend(options)) as Backend);
});
afterAll(() => backends.get('exchange')!.close());

const random = rng(31);
const t = (...shape: number[]): Tensor => tensor(Float32Array.from(values({ shape }, random)), shape);

/** queries, keys, width of a head, heads, batch */
const sizes: readonly (readonly [number, number, number, number, number])[] = [
  [33, 65, 4, 3, 2],
  [33, 65, 40, 2, 1],
  [1, 77, 40, 1, 2],
  [1, 1, 8, 1, 1],
  [9, 5, 7, 2, 2],
  [8, 8, 16, 2, 1],
  [66, 3, 80, 1, 1],
  [3, 34, 160, 1, 1],
];
const cases = sizes.flatMap(([m, n, d, heads, b]) =>
  // the wide kernels are only built once: a software driver takes seconds for each
  (Object.keys(variants) as Variant[])
    .filter((v) => d < 80 || v === 'exchange')
    .map((v) => [m, n, d, heads, b, v] as const),
);

test('the adapter of the tests has subgroups of one size, so that the exchange is really exercised', async () => {
  expect((await openDevice()).subgroup).toBeGreaterThan(1);
});

// a driver takes seconds for the larger ones: without exchange the odd sizes, of the kernels for GPUs none
const shortSize: Readonly<Record<Variant, (m: number, d: number) => boolean>> = {
  exchange: (_, d) => d < 80,
  'no exchange': (m) => m === 9 || m === 1,
  'for GPUs': () => false,
};
test.each(longRows(cases, ([m, , d, , , variant]) => shortSize[variant](m, d)))(
  '%d queries, %d keys, d = %d, %d heads, batch %d: %s',
  async (m, n, d, heads, b, variant) => {
    const c = heads * d;
    const [q, k, v, g] = [t(b, m, c), t(b, n, c), t(b, n, c), t(b, m, c)];
    for (const causal of m === n ? [false, true] : [false]) {
      const o = attention(q, k, v, { heads, causal });
      const outs = [o, ...pullback([o], [g], [q, k, v]).map((x) => x!)];
      const placed = evaluate([...outs], backends.get(variant)!);
      const exact = evaluate([...outs], cpu);
      for (const [i, name] of ['o', 'dq', 'dk', 'dv'].entries()) {
        const want = Array.from(await read(exact[i]!));
        const scale = want.reduce((most, x) => Math.max(most, Math.abs(x)), 0.1);
        const got = await read(placed[i]!);
        expect(got.length).toBe(want.length);
        // sums of n or m products of d: square roots of their numbers of roundings, and the exponential's own error
        const tolerance = 2 ** -23 * (8 + 4 * Math.sqrt(d) + Math.sqrt(Math.max(m, n)));
        const beyond = want.findIndex((x, j) => !(Math.abs(got[j]! - x) / scale <= tolerance));
        expect(beyond, `${name}[${beyond}]: ${got[beyond]} against ${want[beyond]}`).toBe(-1);
      }
    }
  },
);

test('large scores stay finite and the rows sum to one', async () => {
  const [m, n, d] = [17, 23, 8];
  const q = tensor(
    new Float32Array(m * d).map((_, i) => 300 * Math.sin(i)),
    [1, m, d],
  );
  const k = tensor(
    new Float32Array(n * d).map((_, i) => 300 * Math.cos(i)),
    [1, n, d],
  );
  const ones = tensor(new Float32Array(n * d).fill(1), [1, n, d]);
  for (const backend of backends.values()) {
    const got = await read(evaluate(attention(q, k, ones, { heads: 1 }), backend));
    for (const x of got) expect(Math.abs(x - 1)).toBeLessThan(1e-6);
  }
});
