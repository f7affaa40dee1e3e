/** Adam and AdamW against plain numbers, and what per-rank ages are for. */
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { wasmBackend } from '../../../core/backends/wasm/index.ts';
import { full, type Tensor, tensor } from '../../../core/index.ts';
import {
  type AdamOptions,
  adamDefaults,
  adamUpdate,
  clipFactor,
  globalNorm,
  oneMinusPower,
} from '../../../train/optimise/optimizer.ts';
import { cpu, numbers } from '../../support/gradcheck.ts';

const wasm = wasmBackend();
afterAll(() => wasm.close());

type Entry = { p: number; m: number; v: number };
/** torch.optim.Adam and AdamW for one number, in f64, as their documentation writes it. */
function reference(e: Entry, gradient: number, t: number, lr: number, o: AdamOptions): Entry {
  let [p, g] = [e.p, gradient];
  if (o.decoupled) p -= lr * o.weightDecay * p;
  else g += o.weightDecay * p;
  const m = o.beta1 * e.m + (1 - o.beta1) * g;
  const v = o.beta2 * e.v + (1 - o.beta2) * g * g;
  const corrected = [m / (1 - o.beta1 ** t), v / (1 - o.beta2 ** t)] as const;
  return { p: p - (lr * corrected[0]) / (Math.sqrt(corrected[1]) + o.eps), m, v };
}
const at = (values: readonly number[], dtype: 'f32' | 'f64' = 'f64'): Tensor => tensor(values, [values.length], dtype);

describe('one update', () => {
  test.each([
    ['Adam', { ...adamDefaults }],
    ['Adam with weight decay', { ...adamDefaults, weightDecay: 0.1 }],
    ['AdamW', { ...adamDefaults, weightDecay: 0.1, decoupled: true }],
    ['other betas and eps', { beta1: 0.5, beta2: 0.9, eps: 1e-3, weightDecay: 0.01, decoupled: false }],
  ] as const)('%s: 40 steps of 25 numbers equal the formula', async (_name, o) => {
    const entries: Entry[] = Array.from({ length: 25 }, (_, i) => ({ p: Math.sin(i + 1), m: 0, v: 0 }));
    let [p, m, v] = [at(entries.map((e) => e.p)), at(entries.map(() => 0)), at(entries.map(() => 0))];
    for (let t = 1; t <= 40; t++) {
      const g = entries.map((e, i) => Math.cos(3 * t + i) * 10 ** ((i % 7) - 4) + 0.1 * e.p);
      const lr = 1e-2 / t;
      const next = adamUpdate(p, at(g), { m, v }, tensor([t - 1], [], 'f64'), tensor([lr], [], 'f64'), o);
      for (const [i, e] of entries.entries()) entries[i] = reference(e, g[i]!, t, lr, o);
      [p, m, v] = [at(await numbers(next.p)), at(await numbers(next.m)), at(await numbers(next.v))];
      for (const [i, x] of (await numbers(p)).entries()) expect(Math.abs(x - entries[i]!.p)).toBeLessThan(1e-13);
    }
  });

  test('the first update is −lr·sign(g) when eps is small against g', async () => {
    const next = adamUpdate(
      at([1, 1, 1]),
      at([3, -0.02, 0]),
      { m: at([0, 0, 0]), v: at([0, 0, 0]) },
      tensor([0], [], 'f64'),
      tensor([0.1], [], 'f64'),
      adamDefaults,
    );
    const [up, down, still] = await numbers(next.p);
    expect(up).toBeCloseTo(0.9, 8);
    expect(down).toBeCloseTo(1.1, 6);
    expect(still).toBe(1);
  });

  test("ages per rank: a rank of age 0 beside an old one gets a fresh Adam's update", async () => {
    // A[2, 2]: rank 0 has had 1000 updates, rank 1 none; both see the same gradients from now on
    const g = tensor([0.3, 0.3, -0.2, -0.2], [2, 2], 'f64');
    const zero = () => full([2, 2], 0, 'f64');
    const update = (age: readonly number[]) =>
      adamUpdate(
        zero(),
        g,
        { m: zero(), v: zero() },
        tensor(age, [1, 2], 'f64'),
        tensor([1e-2], [], 'f64'),
        adamDefaults,
      );
    const mixed = await numbers(update([1000, 0]).p);
    const fresh = await numbers(update([0, 0]).p);
    expect([mixed[1], mixed[3]]).toEqual([fresh[1], fresh[3]]);
    // with the old rank's age the same gradient over-shoots: (1 − β₁)/√(1 − β₂) times the rate in the long run
    const overshoot = 0.1 / (1 - 0.9 ** 1001) / Math.sqrt(0.001 / (1 - 0.999 ** 1001));
    expect(mixed[0]! / fresh[0]!).toBeCloseTo(overshoot, 5);
    expect(overshoot).toBeGreaterThan(2.5);
  });
});

describe('1 − βᵗ', () => {
  const exact = (beta: number, t: number) => -Math.expm1(t * Math.log(beta));
  test('keeps its relative precision for every age, f64 and f32', async () => {
    const ages = [1, 2, 3, 4, 5, 10, 30, 100, 347, 348, 349, 350, 351, 352, 1000, 5000, 1e5, 1e7];
    for (const beta of [0.5, 0.9, 0.95, 0.99, 0.999, 0.9999])
      for (const [dtype, tolerance, backend] of [
        ['f64', 4e-15, cpu],
        ['f32', 4e-7, cpu],
        ['f32', 8e-7, wasm],
      ] as const)
        for (const [i, got] of (await numbers(oneMinusPower(beta, at(ages, dtype)), backend)).entries()) {
          const want = exact(beta, ages[i]!);
          expect(Math.abs(got / want - 1), `${backend.name} ${dtype} β ${beta} t ${ages[i]}`).toBeLessThan(tolerance);
        }
  });
  test('the plain formula would not: f32 1 − 0.999 is off by 1.7e-5', () => {
    expect(Math.abs((1 - Math.fround(0.999)) / 0.001 - 1)).toBeGreaterThan(1e-6);
  });
});

describe('clipping', () => {
  test('the norm is over all tensors together; the factor brings it to the limit and never raises it', async () => {
    const gradients = [at([3, 0]), at([0]), at([4, 12])];
    const norm = globalNorm(gradients);
    expect((await numbers(norm))[0]).toBe(13);
    const factor = async (limit: number) => (await numbers(clipFactor(norm, limit)))[0]!;
    // torch.nn.utils.clip_grad_norm_: limit/(norm + 1e-6)
    expect(await factor(1)).toBeCloseTo(1 / (13 + 1e-6), 15);
    expect(await factor(13)).toBeLessThan(1);
    expect(await factor(14)).toBe(1);
    expect((await numbers(clipFactor(globalNorm([at([0, 0])]), 1)))[0]).toBe(1);
  });
  test('any gradients: ‖factor·g‖ ≤ limit', () => {
    const values = fc.array(fc.double({ min: -1e3, max: 1e3, noNaN: true }), { minLength: 1, maxLength: 5 });
    return fc.assert(
      fc.asyncProperty(values, values, fc.double({ min: 1e-3, max: 10, noNaN: true }), async (a, b, limit) => {
        const norm = Math.hypot(...a, ...b);
        const factor = (await numbers(clipFactor(globalNorm([at(a), at(b)]), limit)))[0]!;
        expect(norm * factor).toBeLessThanOrEqual(limit * (1 + 1e-12));
        expect(factor).toBeLessThanOrEqual(1);
        if (norm + 1e-6 <= limit) expect(factor).toBe(1);
      }),
      { numRuns: 60 },
    );
  });
});
