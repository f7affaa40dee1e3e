/** Attention and its derivatives against their definitions in f64. */
import { afterAll, describe, expect, it } from 'vitest';
import { kernels } from '../../../core/backends/wasm/kernels.ts';
import { createMachine, type Machine } from '../../../core/backends/wasm/machine/machine.ts';
import { attentionGradOp, attentionOp } from '../../../core/fused/attention.ts';
import type { HostArray } from '../../../core/ir/dtype.ts';
import { sizeOf } from '../../../core/ir/view.ts';
import { base, dense, runEverywhere, uniformNumbers } from '../../support/wasm-harness.ts';

const started = [1, 2].map((threads) => createMachine({ threads }));
/** the first, for which code is written as for an engine that joins vectors, or does not: the bits must be the same */
const other: Machine = Object.create(started[0]!, { joins: { value: !started[0]!.joins } });
const machines = [...started, other];
afterAll(() => {
  for (const machine of started) machine.close();
});

const U = 2 ** -24;
const random = (shape: readonly number[], seed: number, high = 2) =>
  dense(uniformNumbers(sizeOf(shape), seed, -high, high), shape);
/** worst error in units of u·(|want| + size) */
const worst = (got: HostArray, want: readonly number[], size: number): number =>
  Array.from(got).reduce((most, y, i) => Math.max(most, Math.abs(y - want[i]!) / (U * (Math.abs(want[i]!) + size))), 0);

describe('attention', { timeout: 60_000 }, () => {
  // batch, rows, keys, heads, numbers in a head, causal
  const cases: [number, number, number, number, number, boolean][] = [
    [1, 1, 1, 1, 1, false],
    [2, 5, 7, 3, 3, false],
    [1, 8, 8, 2, 8, true],
    [2, 77, 77, 2, 64, true],
    [1, 49, 97, 4, 16, false],
    [3, 64, 8, 4, 24, false],
    [1, 100, 100, 2, 40, false],
    [1, 130, 77, 1, 160, false],
    [2, 33, 33, 2, 20, true],
    [1, 4, 300, 2, 5, false],
    [1, 3, 50, 1, 4, true],
    [1, 120, 30, 1, 12, true],
    // heads of 4 have kernels of their own; more keys than a block of the backward kernel holds, and whole blocks unseen
    [1, 1, 1, 1, 4, false],
    [2, 50, 71, 3, 4, false],
    [2, 33, 64, 2, 4, false],
    [1, 100, 300, 1, 4, false],
    [1, 150, 150, 2, 4, true],
    [1, 70, 140, 1, 20, true],
    [1, 9, 200, 1, 8, false],
  ];
  it.each(cases)('b %i, m %i, n %i, %i heads of %i, causal %j', async (b, m, n, heads, d, causal) => {
    const c = heads * d;
    const [q, k, v, g] = [random([b, m, c], 1), random([b, n, c], 2), random([b, n, c], 3), random([b, m, c], 4)];
    const attrs = { heads, scale: 1 / Math.sqrt(d), causal };
    const forward = await runEverywhere(machines, attentionOp, [q, k, v], attrs);
    // scores of this size are rounded to u·|s| before the exponential
    const size = 2 + Math.sqrt(d);
    expect(worst(forward.got[0]!, forward.want[0]!, size), 'o').toBeLessThan(8);
    expect(worst(forward.got[1]!, forward.want[1]!, size), 'log-sum-exp').toBeLessThan(8);
    const saved = [dense(forward.got[0]!, [b, m, c]), dense(forward.got[1]!, [b * heads, m, 1])];
    const back = await runEverywhere(machines, attentionGradOp, [g, q, k, v, ...saved], attrs);
    const terms = Math.sqrt(Math.max(m, n));
    for (const [i, name] of ['dq', 'dk', 'dv'].entries())
      expect(worst(back.got[i]!, back.want[i]!, size * terms), name).toBeLessThan(8);
  });

  it.each([1, 2])('survives scores that overflow a plain exponential, %i heads', async (heads) => {
    const [q, k, v] = [random([1, 9, 8], 1, 60), random([1, 11, 8], 2, 60), random([1, 11, 8], 3)];
    const attrs = { heads, scale: 1, causal: false };
    const { got, want } = await runEverywhere(machines, attentionOp, [q, k, v], attrs);
    expect(worst(got[0]!, want[0]!, 2)).toBeLessThan(2 * 8 * 60 * 60);
    expect([...got[0]!].every(Number.isFinite)).toBe(true);
  });

  // A row of a head of 4 has its maximum taken where |q|·max |k| is beyond 40 in base 2, else that bound stands for it.
  it('rows on both sides of the bound, in one block', async () => {
    const [m, n, heads] = [40, 30, 2];
    const [q, k, v, g] = [random([1, m, 8], 1), random([1, n, 8], 2), random([1, n, 8], 3), random([1, m, 8], 4)];
    // |q|·|k|·log₂e from below 1 to about 400
    const sizes = Float32Array.from({ length: m * 8 }, (_, i) => 0.05 * 1.25 ** (i >> 3));
    const grown = dense(
      Float32Array.from(q.data, (x, i) => x * sizes[i]!),
      [1, m, 8],
    );
    const attrs = { heads, scale: 0.5, causal: false };
    const { got, want } = await runEverywhere(machines, attentionOp, [grown, k, v], attrs);
    // a score of s is rounded to u·|s|, and as much by the bound
    expect(worst(got[0]!, want[0]!, 2)).toBeLessThan(2 * 400);
    expect(worst(got[1]!, want[1]!, 2)).toBeLessThan(8);
    for (const [o, y] of [...got[0]!].entries()) if (o < 8 * 8) expect(Math.abs(y - want[0]![o]!)).toBeLessThan(1e-6);
    const saved = [dense(got[0]!, [1, m, 8]), dense(got[1]!, [heads, m, 1])];
    const back = await runEverywhere(machines, attentionGradOp, [g, grown, k, v, ...saved], attrs);
    for (const y of back.got) expect([...y].every(Number.isFinite)).toBe(true);
    const largest = Math.max(...sizes) * 4;
    for (const [i, name] of ['dq', 'dk', 'dv'].entries())
      expect(worst(back.got[i]!, back.want[i]!, largest), name).toBeLessThan(400);
  });

  it.each([1, 2])('takes the maximum over real keys only: scores far below zero, %i heads', async (heads) => {
    const far = (shape: readonly number[], at: number) => dense(uniformNumbers(sizeOf(shape), 1, at, at + 0.1), shape);
    const [q, k, v] = [far([1, 5, 8], 10), far([1, 11, 8], -10), random([1, 11, 8], 3)];
    const attrs = { heads, scale: 1, causal: false };
    const { got, want } = await runEverywhere(machines, attentionOp, [q, k, v], attrs);
    expect(worst(got[0]!, want[0]!, 2)).toBeLessThan(2 * 800);
    expect(worst(got[1]!, want[1]!, 0)).toBeLessThan(8);
  });

  it('a padded key of a head of 4, whose score of 0 is 2^128 times what the row adds up to, stays out of dq', async () => {
    const far = (shape: readonly number[], at: number) => dense(uniformNumbers(sizeOf(shape), 1, at, at + 0.1), shape);
    const [q, k, v, g] = [far([1, 20, 4], 10), far([1, 11, 4], -10), random([1, 11, 4], 3), random([1, 20, 4], 4)];
    // −log₂ of the sum passes 128 by the way
    for (let scale = 0.2; scale < 0.26; scale += 0.005) {
      const attrs = { heads: 1, scale, causal: false };
      const { got } = await runEverywhere(machines, attentionOp, [q, k, v], attrs);
      const saved = [dense(got[0]!, [1, 20, 4]), dense(got[1]!, [1, 20, 1])];
      const back = await runEverywhere(machines, attentionGradOp, [g, q, k, v, ...saved], attrs);
      for (const [i, name] of ['dq', 'dk', 'dv'].entries())
        expect(worst(back.got[i]!, back.want[i]!, 20), name).toBeLessThan(2 * 100);
    }
  });

  it('says when a row of scores does not fit', () => {
    const view = (shape: number[]) => dense(new Float32Array(0), shape).view;
    const inputs = [
      [1, 1, 8],
      [1, 10 ** 6, 8],
      [1, 10 ** 6, 8],
    ].map((s, i) => ({ at: base(i), dtype: 'f32' as const, view: view(s) }));
    const shapes = {
      machine: machines[0]!,
      attrs: { heads: 1, scale: 1, causal: false },
      inputs,
      outputs: inputs,
      workspace: base(3),
    };
    expect(() => kernels.get('attention')!.plan(shapes)).toThrow(
      /attention over 1000000 keys needs \d+ bytes of scratch/,
    );
  });
});
