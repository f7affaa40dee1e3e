/** layerNorm, groupNorm, their derivatives and softmax against their definitions in f64. */
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { createMachine } from '../../../core/backends/wasm/machine/machine.ts';
import { normGradOp, normOp } from '../../../core/fused/norm.ts';
import { softmaxOp } from '../../../core/fused/softmax.ts';
import type { HostArray } from '../../../core/ir/dtype.ts';
import { type Attrs, bindAll, type Composite, hole } from '../../../core/ir/tensor.ts';
import { sizeOf } from '../../../core/ir/view.ts';
import { LONG, longRows } from '../../support/long.ts';
import { dense, type HostOperand, runEverywhere, runKernel, uniformNumbers } from '../../support/wasm-harness.ts';

const machines = [1, 2].map((threads) => createMachine({ threads }));
afterAll(() => {
  for (const machine of machines) machine.close();
});

const U = 2 ** -24;
/** worst error of a result in units of u·(|want| + size) */
const worst = (got: HostArray, want: readonly number[], size: number): number =>
  Array.from(got).reduce((most, y, i) => Math.max(most, Math.abs(y - want[i]!) / (U * (Math.abs(want[i]!) + size))), 0);
const random = (shape: readonly number[], seed: number, low = -2, high = 2) =>
  dense(uniformNumbers(sizeOf(shape), seed, low, high), shape);
const eps = 1e-5;

/** Every choice of results gives the bits that all of them give. */
const eachSubset = <A extends Attrs>(
  op: Composite<A>,
  operands: readonly HostOperand[],
  attrs: A,
  all: readonly HostArray[],
): void => {
  const holes = operands.map((o) => hole({ shape: o.view.shape, dtype: 'f32' }));
  const outs = bindAll(op, holes, attrs);
  const bits = (x: HostArray): Buffer => Buffer.from(x.buffer, x.byteOffset, x.byteLength);
  for (let subset = 1; subset < 1 << outs.length; subset++) {
    const wanted = outs.map((_, i) => ((subset >> i) & 1) === 1);
    const got = runKernel(machines[0]!, op, operands, attrs, outs, wanted);
    for (const [i, y] of got.entries()) if (wanted[i]) expect(bits(y).equals(bits(all[i]!)), `${wanted}`).toBe(true);
  }
};

const length = fc.oneof(fc.integer({ min: 1, max: 9 }), fc.constantFrom(16, 31, 96, 130, 321));

describe('layerNorm', { timeout: 60_000 }, () => {
  it('equals its definition, forward and backward', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 40 }),
        length.filter((n) => n > 1),
        async (rows, c) => {
          const [x, gamma, beta, g] = [random([rows, c], 1), random([c], 2), random([c], 3), random([rows, c], 4)];
          const attrs = { groups: 1, eps, silu: false };
          const forward = await runEverywhere(machines, normOp, [x, gamma, beta], attrs);
          // near-equal rows amplify: x̂ ≤ √c, 1/σ is large when the spread is small
          const spread = Math.max(1, ...forward.want[2]!);
          for (const [i, y] of forward.got.entries())
            expect(worst(y, forward.want[i]!, 4 * spread)).toBeLessThan(8 * spread);
          eachSubset(normOp, [x, gamma, beta], attrs, forward.got);
          const stats = [1, 2].map((i) => dense(forward.got[i]!, [rows, 1, 1, 1]));
          const operands = [g, x, gamma, ...stats];
          for (const blocks of [1, rows, ...(rows % 2 === 0 ? [rows / 2] : [])]) {
            const gradAttrs = { groups: 1, silu: false, blocks };
            const all = await runEverywhere(machines, normGradOp, operands, gradAttrs);
            expect(worst(all.got[0]!, all.want[0]!, 4 * spread)).toBeLessThan(16);
            for (const i of [1, 2]) expect(worst(all.got[i]!, all.want[i]!, 4 * spread * rows)).toBeLessThan(16);
            eachSubset(normGradOp, operands, gradAttrs, all.got);
          }
        },
      ),
      { numRuns: LONG ? 40 : 15 },
    );
  });
  it('keeps its digits when the mean is large, and constant rows finite', async () => {
    const c = 320;
    const x = dense(
      uniformNumbers(3 * c, 1).map((v, i) => (i < c ? v + 1000 : i < 2 * c ? 7 : v)),
      [3, c],
    );
    const [gamma, beta] = [dense(new Float32Array(c).fill(1), [c]), dense(new Float32Array(c), [c])];
    const { got, want } = await runEverywhere(machines, normOp, [x, gamma, beta], {
      groups: 1,
      eps,
      silu: false,
    });
    expect(worst(got[0]!, want[0]!, 1000)).toBeLessThan(2);
    expect(got[0]!.slice(c, 2 * c).every((v) => v === 0)).toBe(true);
  });
});

describe('groupNorm', { timeout: 60_000 }, () => {
  const cases: [readonly number[], number][] = [
    [[2, 4, 4, 16], 4],
    [[1, 5, 7, 40], 4],
    [[3, 3, 5, 6], 2],
    [[2, 8, 8, 96], 32],
    [[1, 28, 28, 320], 32],
    [[2, 2, 2, 1280], 1],
    [[1, 1, 3, 7], 7],
    [[20, 6, 6, 12], 3],
    [[1, 16, 16, 130], 10],
  ];
  const both = cases.flatMap(([shape, groups]) => [false, true].map((silu) => [shape, groups, silu] as const));
  it.each(longRows(both, ([shape, , silu]) => silu || shape[3] !== 320))(
    '%j in %i groups, silu %j',
    async (shape, groups, silu) => {
      const c = shape[3]!;
      const [x, gamma, beta, g] = [random(shape, 1, -1, 3), random([c], 2), random([c], 3), random(shape, 4)];
      const attrs = { groups, eps, silu };
      const forward = await runEverywhere(machines, normOp, [x, gamma, beta], attrs);
      const spread = Math.max(1, ...forward.want[2]!);
      for (const [i, y] of forward.got.entries())
        expect(worst(y, forward.want[i]!, 4 * spread)).toBeLessThan(8 * spread);
      eachSubset(normOp, [x, gamma, beta], attrs, forward.got);
      const stats = [1, 2].map((i) => dense(forward.got[i]!, [shape[0]!, 1, groups, 1]));
      const operands = [g, x, gamma, ...stats, ...(silu ? [beta] : [])];
      const gradAttrs = { groups, silu, blocks: shape[0]! };
      const all = await runEverywhere(machines, normGradOp, operands, gradAttrs);
      expect(worst(all.got[0]!, all.want[0]!, 4 * spread)).toBeLessThan(24);
      eachSubset(normGradOp, operands, gradAttrs, all.got);
      // sums over the pixels of a picture
      const pixels = shape[1]! * shape[2]!;
      for (const i of [1, 2]) expect(worst(all.got[i]!, all.want[i]!, 4 * spread)).toBeLessThan(8 * Math.sqrt(pixels));
    },
  );
});

describe('softmax', { timeout: 60_000 }, () => {
  it('equals its definition; rows add up to 1', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 40 }), length, fc.constantFrom(1, 10, 1e4), async (rows, n, scale) => {
        const x = random([rows, n], 1, -scale, scale);
        const { got, want } = await runEverywhere(machines, softmaxOp, [x], {});
        // the input's own rounding: x − max is exact only to u·|x|
        expect(worst(got[0]!, want[0]!, 1e-30)).toBeLessThan(16 + 4 * scale);
        for (let r = 0; r < rows; r++)
          expect(Array.from(got[0]!.slice(r * n, (r + 1) * n)).reduce((s, v) => s + v, 0)).toBeCloseTo(1, 5);
      }),
      { numRuns: 40 },
    );
  });
  it('gives masked entries nothing', async () => {
    const x = dense(Float32Array.of(1, -Infinity, 2, -1e30, -Infinity), [1, 5]);
    const { got, want } = await runEverywhere(machines, softmaxOp, [x], {});
    expect([...got[0]!].map((v) => Math.round(v * 1e6))).toEqual(want[0]!.map((v) => Math.round(v * 1e6)));
    expect(got[0]![1]).toBe(0);
  });
});
