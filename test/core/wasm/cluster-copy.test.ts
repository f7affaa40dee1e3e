/** Kernels that move or draw words: pad, concat, gather, scatterAdd, randomBits. */
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { createMachine } from '../../../core/backends/wasm/machine/machine.ts';
import { permuteView, sizeOf } from '../../../core/ir/view.ts';
import { concatOp } from '../../../core/ops/concat.ts';
import { gatherOp, scatterAddOp } from '../../../core/ops/gather.ts';
import { randomBitsOp } from '../../../core/ops/random.ts';
import { padOp } from '../../../core/ops/slice.ts';
import { dense, type HostOperand, runEverywhere, uniformNumbers } from '../../support/wasm-harness.ts';

const machines = [1, 2].map((threads) => createMachine({ threads }));
afterAll(() => {
  for (const machine of machines) machine.close();
});

/** an operand of this shape, read through permuted axes when asked */
const operand = (shape: readonly number[], seed: number, turned: boolean): HostOperand => {
  if (!turned) return dense(uniformNumbers(sizeOf(shape), seed), shape);
  const reversed = [...shape].reverse();
  const view = permuteView(
    dense(uniformNumbers(0, 1), reversed).view,
    shape.map((_, i) => shape.length - 1 - i),
  );
  return { data: uniformNumbers(sizeOf(shape), seed), dtype: 'f32', view };
};
const small = fc.integer({ min: 0, max: 3 });
const length = fc.oneof(fc.integer({ min: 1, max: 6 }), fc.constantFrom(16, 19, 33));

describe('pad', { timeout: 60_000 }, () => {
  it('equals the definition for any widths, gaps and views', async () => {
    const axis = fc.record({ size: length, low: small, high: small, interior: fc.constantFrom(0, 0, 1, 2) });
    await fc.assert(
      fc.asyncProperty(fc.array(axis, { minLength: 1, maxLength: 4 }), fc.boolean(), async (axes, turned) => {
        fc.pre(axes.reduce((n, a) => n * (a.size * 3 + 6), 1) < 200000);
        const attrs = {
          low: axes.map((a) => a.low),
          high: axes.map((a) => a.high),
          interior: axes.map((a) => a.interior),
          value: 0.25,
        };
        const x = operand(
          axes.map((a) => a.size),
          5,
          turned,
        );
        const { got, want } = await runEverywhere(machines, padOp, [x], attrs);
        expect([...got[0]!]).toEqual(want[0]);
      }),
      { numRuns: 80 },
    );
  });
});

describe('concat', { timeout: 60_000 }, () => {
  it('equals the definition along any axis', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(length, { minLength: 1, maxLength: 3 }),
        fc.array(length, { minLength: 2, maxLength: 4 }),
        fc.nat(2),
        fc.boolean(),
        async (shape, sizes, at, turned) => {
          const axis = at % shape.length;
          const inputs = sizes.map((n, i) =>
            operand(
              shape.map((m, k) => (k === axis ? n : m)),
              i + 1,
              turned && i % 2 === 0,
            ),
          );
          const { got, want } = await runEverywhere(machines, concatOp, inputs, { axis });
          expect([...got[0]!]).toEqual(want[0]);
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe('gather and scatterAdd', { timeout: 60_000 }, () => {
  const cases: [number, number, number[]][] = [
    [5, 3, [4]],
    [7, 64, [2, 5]],
    [100, 129, [300]],
    [3, 1, [1000]],
    [1, 1000, [1]],
  ];
  it.each(cases)('rows of [%i, %i] by ids %j', async (rows, width, idShape) => {
    const count = sizeOf(idShape);
    // some ids lie outside the table on both sides
    const ids = Int32Array.from(uniformNumbers(count, 3, -1, rows + 1), Math.floor);
    const idOperand = dense(ids, idShape, 'i32');
    const table = dense(uniformNumbers(rows * width, 4), [rows, width]);
    const read = await runEverywhere(machines, gatherOp, [table, idOperand], {});
    expect([...read.got[0]!]).toEqual(read.want[0]);
    const g = dense(uniformNumbers(count * width, 5), [...idShape, width]);
    const added = await runEverywhere(machines, scatterAddOp, [g, idOperand], { rows });
    const terms = count / rows + 1;
    for (const [i, y] of added.got[0]!.entries())
      expect(Math.abs(y - added.want[0]![i]!)).toBeLessThanOrEqual(4 * Math.sqrt(terms) * terms * 2 * 2 ** -24);
    // integers exactly
    const whole = dense(
      Int32Array.from(g.data, (x) => Math.round(x * 100)),
      g.view.shape,
      'i32',
    );
    const exact = await runEverywhere(machines, scatterAddOp, [whole, idOperand], { rows });
    expect([...exact.got[0]!]).toEqual(exact.want[0]);
  });
});

describe('randomBits', { timeout: 60_000 }, () => {
  it.each([
    [1, 1],
    [3, 2],
    [5, 7],
    [2, 4095],
    [1, 4096],
    [2, 10001],
  ])('%i keys × %i words equal the reference', async (rows, count) => {
    const key = dense(Uint32Array.from(uniformNumbers(rows * 2, 1, 0, 2 ** 32), Math.floor), [rows, 2], 'u32');
    const offset = dense(
      Uint32Array.from({ length: rows }, (_, i) => (i === 0 ? 2 ** 32 - 3 : i * 1000)),
      [rows],
      'u32',
    );
    for (const stream of [0, 2]) {
      const { got, want } = await runEverywhere(machines, randomBitsOp, [key, offset], {
        count,
        stream,
      });
      expect([...got[0]!]).toEqual(want[0]);
    }
  });
});
