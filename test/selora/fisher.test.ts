/** Fisher scores by their definition, in one pass and in two; and the decisions made from them. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { evaluate, grad, slice, type Tensor, unsqueeze, valueAndGrad, vmap } from '../../core/index.ts';
import { type Adapter, type Adapters, rankOf } from '../../selora/adapter.ts';
import { expandAdapter } from '../../selora/expand.ts';
import { decide, fisherByRank, fisherScore, ratioOf, type Scores, scoresOf } from '../../selora/fisher.ts';
import { cpu, numbers } from '../support/gradcheck.ts';
import { type Case, loss, randomCase } from '../support/selora-net.ts';

const CASES = 100;

const expanded = (c: Case): Adapters =>
  Object.fromEntries(Object.entries(c.adapters).map(([p, a]) => [p, expandAdapter(a, c.K[p]!)]));
/** ∂ℓᵢ/∂A, ∂ℓᵢ/∂B of every sample, by vmap(grad); all in one evaluation */
const perSample = (c: Case, adapters: Adapters): Adapters =>
  evaluate(
    vmap(
      (a: Adapters, x: Tensor, y: Tensor) =>
        valueAndGrad((p: Adapters) => loss(p, c.base, unsqueeze(x, 0), unsqueeze(y, 0)))(a)[1],
      [null, 0, 0],
    )(adapters, c.x, c.y),
    cpu,
  );
const sumOfSquares = (x: readonly number[]) => x.reduce((s, v) => s + v * v, 0);
const closeTo = (got: number, want: number, relative: number) =>
  expect(Math.abs(got - want)).toBeLessThanOrEqual(relative * Math.abs(want));

describe('per-sample gradients', () => {
  test('equal a loop over samples, and their mean is the gradient of the batch', { timeout: 60_000 }, async () => {
    for (let seed = 0; seed < CASES; seed++) {
      const c = randomCase(seed, 'f64');
      const many = perSample(c, c.adapters);
      const b = c.x.shape[0]!;
      const row = (t: Tensor, i: number) => slice(t, { axis: 0, start: i, stop: i + 1 });
      const gradient = (x: Tensor, y: Tensor) => grad((a: Adapters) => loss(a, c.base, x, y))(c.adapters);
      const [whole, ...ones] = evaluate(
        [gradient(c.x, c.y), ...Array.from({ length: b }, (_, i) => gradient(row(c.x, i), row(c.y, i)))],
        cpu,
      ) as [Adapters, ...Adapters[]];
      for (const path of Object.keys(c.adapters))
        for (const side of ['A', 'B'] as const) {
          const got = await numbers(many[path]![side]);
          const n = got.length / b;
          const sums = new Array<number>(n).fill(0);
          const sizes = new Array<number>(n).fill(0);
          for (const [i, one] of ones.entries()) {
            for (const [j, want] of (await numbers(one[path]![side])).entries()) {
              expect(Math.abs(got[i * n + j]! - want)).toBeLessThanOrEqual(1e-13 * Math.max(1, Math.abs(want)));
              sums[j]! += got[i * n + j]! / b;
              sizes[j]! += Math.abs(got[i * n + j]!) / b;
            }
          }
          for (const [j, want] of (await numbers(whole[path]![side])).entries())
            expect(Math.abs(sums[j]! - want)).toBeLessThanOrEqual(1e-13 * Math.max(1, sizes[j]!));
        }
    }
  });
});

describe('scores', () => {
  test('eq. 3 and 4 by hand: mean over samples of squared gradients, summed over entries', async () => {
    for (let seed = 0; seed < 20; seed++) {
      const c = randomCase(seed, 'f64');
      for (const g of Object.values(perSample(c, c.adapters))) {
        const want = (sumOfSquares(await numbers(g.A)) + sumOfSquares(await numbers(g.B))) / c.x.shape[0]!;
        closeTo((await numbers(fisherScore(g)))[0]!, want, 1e-13);
      }
    }
  });

  test('one pass equals two passes: ratio = 1 + FI(new row)/FI(original)', async () => {
    for (let seed = 0; seed < CASES; seed++) {
      const c = randomCase(seed, 'f64');
      const [plain, grown] = [perSample(c, c.adapters), perSample(c, expanded(c))];
      for (const path of Object.keys(c.adapters)) {
        const rank = rankOf(c.adapters[path]!);
        const { a, b } = fisherByRank(grown[path]!);
        const s = scoresOf(await numbers(a), await numbers(b), rank);
        const [original, whole] = [
          (await numbers(fisherScore(plain[path]!)))[0]!,
          (await numbers(fisherScore(grown[path]!)))[0]!,
        ];
        closeTo(s.fiA + s.fiB, original, 1e-13);
        closeTo(s.fiA + s.fiB + s.fiNew, whole, 1e-13);
        closeTo(ratioOf(path, s), whole / original, 1e-13);
        // the candidate column itself carries no information: its row of B is zero
        expect((await numbers(a))[rank]).toBe(0);
      }
    }
  });

  test('is not the published estimate: opposite samples cancel in a batch gradient, not in eq. 3', async () => {
    const { seed, c } = Array.from({ length: 50 }, (_, seed) => ({ seed, c: randomCase(seed, 'f64') })).find(
      (x) => x.c.x.shape[0]! > 1,
    )!;
    const g = grad((a: Adapters) => loss(a, c.base, c.x, c.y))(c.adapters)['l.1']!;
    const batch = sumOfSquares(await numbers(g.A)) + sumOfSquares(await numbers(g.B));
    const score = (await numbers(fisherScore(perSample(c, c.adapters)['l.1']!)))[0]!;
    expect(score, `seed ${seed}`).toBeGreaterThan(batch * 1.01);
  });

  test('at the start (rank 1, B = 0) the ratio is about 2, whatever the gain', async () => {
    // FI(A) is 0; B's one row and the new row see columns of one law, so the expected ratio is 1 + 1/r
    let [total, count] = [0, 0];
    for (let seed = 0; seed < 400; seed++) {
      const c = randomCase(seed, 'f64', { bZero: true });
      if (c.x.shape[1]! < 6) continue;
      const path = 'l.0';
      const { A, B } = c.adapters[path]!;
      const start: Adapter = {
        A: slice(A, { axis: 1, start: 0, stop: 1 }),
        B: slice(B, { axis: 0, start: 0, stop: 1 }),
      };
      const one = { ...c, adapters: { ...c.adapters, [path]: start } };
      const { a, b } = fisherByRank(
        perSample(one, { ...one.adapters, [path]: expandAdapter(start, c.K[path]!) })[path]!,
      );
      const s = scoresOf(await numbers(a), await numbers(b), 1);
      expect(s.fiA).toBe(0);
      total += s.fiNew / (s.fiB + s.fiNew);
      count++;
    }
    // by symmetry of the two columns the new row holds half of the information
    expect(count).toBeGreaterThan(100);
    expect(Math.abs(total / count - 0.5)).toBeLessThan(0.06);
  });
});

const scores = (fiA: number, fiB: number, fiNew: number): Scores => ({ fiA, fiB, fiNew });
const row = (module: string, ratio: number, rank = 1) => ({
  module,
  rank,
  scores: scores(0.25, 0.75, ratio - 1),
  key: `key of ${module}`,
});

describe('ratio', () => {
  test('expanded/original, never below 1 (eq. 5 prints it upside down)', () => {
    const positive = fc.double({ min: 1e-300, max: 1e300, noNaN: true });
    fc.assert(
      fc.property(positive, positive, positive, (a, b, n) => {
        const got = ratioOf('m', scores(a, b, n));
        expect(got).toBeGreaterThanOrEqual(1);
        if (Number.isFinite((a + b + n) / (a + b))) closeTo(got, (a + b + n) / (a + b), 1e-14);
      }),
    );
  });
  test('0/0 is 1, something/0 is infinite', () => {
    expect(ratioOf('m', scores(0, 0, 0))).toBe(1);
    expect(ratioOf('m', scores(0, 0, 1e-30))).toBe(Number.POSITIVE_INFINITY);
  });
  test.each([
    [scores(Number.NaN, 1, 1)],
    [scores(1, Number.POSITIVE_INFINITY, 1)],
    [scores(1, 1, Number.NaN)],
    [scores(1, 1, Number.POSITIVE_INFINITY)],
  ])('a score that is not finite names the module: %o', (s) => {
    expect(() => ratioOf('unet.mid_block.attn1.to_q', s)).toThrow(
      /^unet\.mid_block\.attn1\.to_q: Fisher score is not finite/,
    );
    expect(() => decide([row('a', 2), { module: 'b', rank: 1, scores: s, key: '' }], { lambda: 1.1 })).toThrow(
      /^b: Fisher score is not finite/,
    );
  });
});

describe('decisions', () => {
  test('above λ, not at λ', () => {
    const got = decide([row('below', 1.25), row('at', 1.5), row('above', 1.75)], { lambda: 1.5 });
    expect(got.map((d) => [d.module, d.expanded, d.rankAfter])).toEqual([
      ['below', false, 1],
      ['at', false, 1],
      ['above', true, 2],
    ]);
    expect(got[2]).toEqual({
      module: 'above',
      fiA: 0.25,
      fiB: 0.75,
      fiOriginal: 1,
      fiExpanded: 1.75,
      ratio: 1.75,
      expanded: true,
      overBudget: false,
      rankAfter: 2,
      key: 'key of above',
    });
  });
  test('λ = 1 grows every module that has any signal, and none that has none', () => {
    const got = decide([row('signal', 1.001), row('silent', 1)], { lambda: 1 });
    expect(got.map((d) => d.expanded)).toEqual([true, false]);
  });
  test('with a budget the largest ratios win; ties go to the first in the list; infinite ones come first', () => {
    const rows = [row('a', 2), row('b', 3), row('c', 3), { ...row('d', 2), scores: scores(0, 0, 1) }, row('e', 1.01)];
    const grown = (budget: number) =>
      decide(rows, { lambda: 1.1, budget })
        .filter((d) => d.expanded)
        .map((d) => d.module);
    expect(grown(5)).toEqual([]);
    expect(grown(6)).toEqual(['d']);
    expect(grown(7)).toEqual(['b', 'd']);
    expect(grown(8)).toEqual(['b', 'c', 'd']);
    expect(grown(100)).toEqual(['a', 'b', 'c', 'd']);
    const denied = decide(rows, { lambda: 1.1, budget: 7 });
    expect(denied.filter((d) => d.overBudget).map((d) => d.module)).toEqual(['a', 'c']);
  });
  test('a budget below what is there takes nothing away', () => {
    const got = decide([row('a', 9, 4), row('b', 9, 3)], { lambda: 1.1, budget: 5 });
    expect(got.map((d) => [d.expanded, d.overBudget, d.rankAfter])).toEqual([
      [false, true, 4],
      [false, true, 3],
    ]);
  });
  test('for any scores: order kept, at most one rank each, exactly those above λ that fit, none larger left out', () => {
    const ratio = fc.double({ min: 1, max: 4, noNaN: true });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(ratio, fc.integer({ min: 1, max: 6 })), { minLength: 1, maxLength: 30 }),
        fc.double({ min: 1, max: 4, noNaN: true }),
        fc.option(fc.integer({ min: 1, max: 120 })),
        (list, lambda, budget) => {
          const rows = list.map(([r, rank], i) => row(`m${i}`, r, rank));
          const got = decide(rows, { lambda, ...(budget === null ? {} : { budget }) });
          expect(got.map((d) => d.module)).toEqual(rows.map((r) => r.module));
          for (const [i, d] of got.entries()) expect(d.rankAfter).toBe(rows[i]!.rank + (d.expanded ? 1 : 0));
          const passing = got.filter((d) => d.ratio > lambda);
          const room = Math.max(0, (budget ?? 1e9) - rows.reduce((n, r) => n + r.rank, 0));
          const grown = got.filter((d) => d.expanded);
          expect(grown.length).toBe(Math.min(room, passing.length));
          expect(grown.every((d) => d.ratio > lambda)).toBe(true);
          const least = Math.min(...grown.map((d) => d.ratio));
          for (const d of passing) {
            expect(d.overBudget).toBe(!d.expanded);
            if (!d.expanded && grown.length > 0) expect(d.ratio).toBeLessThanOrEqual(least);
          }
        },
      ),
    );
  });
});
