/** Clusters on wasm mean what their scalar program says, for any views, shapes and outputs, on one and two threads. */
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { clusterPlan } from '../../../core/backends/wasm/cluster/index.ts';
import { createMachine, type Machine } from '../../../core/backends/wasm/machine/machine.ts';
import type { Cluster, ScalarStep } from '../../../core/compile/scalar.ts';
import type { DType } from '../../../core/ir/dtype.ts';
import {
  type Data,
  makeInput,
  meaning,
  outShape,
  randomData,
  shapes,
  size,
  view,
} from '../../support/cluster-cases.ts';
import { runPlan } from '../../support/wasm-harness.ts';

const machines = [1, 2].map((threads) => createMachine({ threads }));
afterAll(() => {
  for (const machine of machines) machine.close();
});

const U = 2 ** -24;
const bytesView = (machine: Machine, dtype: DType, address: number, n: number): Data => {
  const buffer = machine.u8.buffer;
  if (dtype === 'f32') return new Float32Array(buffer, address, n);
  return dtype === 'i32' ? new Int32Array(buffer, address, n) : new Uint32Array(buffer, address, n);
};

/** runs a cluster; guard words around every output must stay untouched */
const run = (machine: Machine, c: Cluster, inputs: readonly Data[]): Data[] => {
  const GUARD = 16;
  const n = size(outShape(c));
  const at = inputs.map((x) => machine.alloc(x.byteLength));
  const outs = c.outputs.map(() => machine.alloc((n + 2 * GUARD) * 4));
  for (const [i, x] of inputs.entries())
    new Uint8Array(machine.u8.buffer, at[i]!, x.byteLength).set(new Uint8Array(x.buffer, x.byteOffset, x.byteLength));
  for (const y of outs) machine.i32.fill(0x55555555, y / 4, y / 4 + n + 2 * GUARD);
  runPlan(machine, clusterPlan(c), [...at, ...outs.map((y) => y + GUARD * 4)]);
  const results = c.outputs.map((step, o) => {
    const words = machine.i32.slice(outs[o]! / 4, outs[o]! / 4 + n + 2 * GUARD);
    for (let g = 0; g < GUARD; g++) {
      expect(words[g]).toBe(0x55555555);
      expect(words[GUARD + n + g]).toBe(0x55555555);
    }
    return bytesView(machine, c.steps[step]!.dtype, outs[o]! + GUARD * 4, n).slice();
  });
  for (const address of [...at, ...outs]) machine.free(address);
  return results;
};

const words = (x: Data): Int32Array => new Int32Array(x.buffer, x.byteOffset, x.length);

/** the same bits on one and two threads, within tolerance of the meaning */
const check = (c: Cluster, inputs: readonly Data[], relative = 0): void => {
  const [one, two] = machines.map((machine) => run(machine, c, inputs)) as [Data[], Data[]];
  const { values, sizes } = meaning(c, inputs);
  const terms = c.reduce ? size(c.shape) / Math.max(1, size(outShape(c))) : 1;
  for (const [k, y] of one.entries()) {
    expect(words(two[k]!)).toEqual(words(y));
    const wrong: string[] = [];
    for (const [i, got] of y.entries()) {
      const want = values[k]![i]!;
      const tolerance =
        y instanceof Float32Array
          ? relative * U * (Math.abs(want) + 8) +
            (c.reduce?.op === 'sum' ? 4 * Math.sqrt(terms) * U * sizes[i]! : 0) +
            2 ** -126
          : 0;
      const modular =
        c.reduce && !(y instanceof Float32Array) ? (y instanceof Int32Array ? want | 0 : want >>> 0) : want;
      if (!(Object.is(got, modular) || got === modular || Math.abs(got - modular) <= tolerance))
        wrong.push(`[${i}] ${got} instead of ${modular}`);
    }
    expect(wrong.slice(0, 5), JSON.stringify(c)).toEqual([]);
  }
};

describe('clusters', { timeout: 60_000 }, () => {
  it('compute an expression over any views, shapes and outputs', () => {
    fc.assert(
      fc.property(shapes, view, view, view, fc.integer({ min: 0, max: 3 }), (shape, a, b, c, axis) => {
        const [x, y, m] = [makeInput('f32', shape, a), makeInput('f32', shape, b), makeInput('bool', shape, c)];
        const steps: ScalarStep[] = [
          { kind: 'load', input: 0, dtype: 'f32' },
          { kind: 'load', input: 1, dtype: 'f32' },
          { kind: 'load', input: 2, dtype: 'bool' },
          { kind: 'const', value: 0.5, dtype: 'f32' },
          { kind: 'call', fn: 'mul', args: [0, 3], dtype: 'f32' },
          { kind: 'call', fn: 'sub', args: [4, 1], dtype: 'f32' },
          { kind: 'call', fn: 'select', args: [2, 5, 1], dtype: 'f32' },
          { kind: 'call', fn: 'less', args: [0, 1], dtype: 'bool' },
          ...(axis < shape.length
            ? ([
                { kind: 'iota', axis, dtype: 'f32' },
                { kind: 'call', fn: 'maximum', args: [6, 8], dtype: 'f32' },
              ] as const)
            : []),
        ];
        const cluster: Cluster = {
          shape,
          inputs: [x.input, y.input, m.input],
          steps,
          outputs: axis < shape.length ? [9, 7] : [6, 7],
        };
        check(cluster, [x.data, y.data, m.data], 8);
      }),
      { numRuns: 80 },
    );
  });

  it('reduce any axes of any views', () => {
    const axes = fc.subarray([0, 1, 2, 3], { minLength: 1 });
    fc.assert(
      fc.property(
        shapes,
        view,
        view,
        axes,
        fc.constantFrom('sum' as const, 'max' as const),
        fc.constantFrom('f32' as const, 'i32' as const, 'u32' as const),
        (shape, a, b, all, op, dtype) => {
          const [x, y] = [makeInput(dtype, shape, a), makeInput(dtype, shape, b)];
          const inside = all.filter((i) => i < shape.length);
          const cluster: Cluster = {
            shape,
            inputs: [x.input, y.input],
            steps: [
              { kind: 'load', input: 0, dtype },
              { kind: 'load', input: 1, dtype },
              { kind: 'call', fn: 'mul', args: [0, 1], dtype },
              ...(inside.length > 0
                ? [{ kind: 'iota', axis: inside[0]!, dtype } as const]
                : [{ kind: 'const', value: 2, dtype } as const]),
              { kind: 'call', fn: 'add', args: [2, 3], dtype },
            ],
            outputs: [4],
            reduce: { op, axes: inside },
          };
          check(cluster, [x.data, y.data], 8);
        },
      ),
      { numRuns: 100 },
    );
  });

  it.each([
    [[200000], [0]],
    [[3, 70001], [1]],
    [[70001, 3], [0]],
    [[20000, 20], [0]],
    [
      [9000, 2, 7],
      [0, 2],
    ],
    [[4, 9000, 5], [1]],
  ])('cut long reductions of %j over %j into segments', (shape, axes) => {
    const x = randomData('f32', size(shape), 7);
    const strides = shape.map((_, i) => size(shape.slice(i + 1)));
    for (const op of ['sum', 'max'] as const)
      check(
        {
          shape,
          inputs: [{ dtype: 'f32', strides, offset: 0 }],
          steps: [{ kind: 'load', input: 0, dtype: 'f32' }],
          outputs: [0],
          reduce: { op, axes },
        },
        [x],
      );
  });

  it.each([
    [[90000], [1], [0]],
    [
      [300, 300],
      [1, 300],
      [300, 1],
    ],
    [
      [5, 60, 300],
      [300, 1500, 1],
      [0, 0, 1],
    ],
    [
      [20000, 3],
      [3, 1],
      [0, 1],
    ],
    [
      [44, 44, 44],
      [1, 44, 1936],
      [1936, 44, 1],
    ],
  ])(
    'share a large space %j among threads',
    (shape, strides, others) => {
      const room = (s: readonly number[]) => shape.reduce((n, size, i) => n + (size - 1) * s[i]!, 1);
      const steps: ScalarStep[] = [
        { kind: 'load', input: 0, dtype: 'f32' },
        { kind: 'load', input: 1, dtype: 'f32' },
        { kind: 'call', fn: 'mul', args: [0, 1], dtype: 'f32' },
        { kind: 'iota', axis: shape.length - 1, dtype: 'f32' },
        { kind: 'call', fn: 'add', args: [2, 3], dtype: 'f32' },
      ];
      check(
        {
          shape,
          inputs: [strides, others].map((s) => ({ dtype: 'f32', strides: s, offset: 0 })),
          steps,
          outputs: [2, 4],
        },
        [randomData('f32', room(strides), 3), randomData('f32', room(others), 4)],
        8,
      );
    },
    30_000,
  );

  it('give the neutral value where there is nothing to reduce', () => {
    for (const [op, want] of [
      ['sum', 0],
      ['max', -Infinity],
    ] as const) {
      const cluster: Cluster = {
        shape: [3, 0],
        inputs: [{ dtype: 'f32', strides: [0, 1], offset: 0 }],
        steps: [{ kind: 'load', input: 0, dtype: 'f32' }],
        outputs: [0],
        reduce: { op, axes: [1] },
      };
      expect([...run(machines[0]!, cluster, [new Float32Array(1)])[0]!]).toEqual([want, want, want]);
    }
  });

  it('let no reduction swallow NaN', () => {
    for (const [shape, axes] of [
      [[37], [0]],
      [[9, 21], [0]],
    ] as const)
      for (const op of ['sum', 'max'] as const) {
        const x = randomData('f32', size(shape), 5);
        x[20] = Number.NaN;
        const cluster: Cluster = {
          shape,
          inputs: [{ dtype: 'f32', strides: shape.map((_, i) => size(shape.slice(i + 1))), offset: 0 }],
          steps: [{ kind: 'load', input: 0, dtype: 'f32' }],
          outputs: [0],
          reduce: { op, axes },
        };
        const y = run(machines[0]!, cluster, [x])[0]!;
        expect(y[20 % y.length]).toBeNaN();
        expect([...y].filter(Number.isNaN)).toHaveLength(1);
      }
  });

  it('never compile a new kernel for a new shape', () => {
    const kernels = [
      [6, 10],
      [100, 7],
    ].map(([a, b]) => {
      const cluster: Cluster = {
        shape: [a!, b!],
        inputs: [
          { dtype: 'f32', strides: [b!, 1], offset: 0 },
          { dtype: 'f32', strides: [0, 1], offset: 0 },
        ],
        steps: [
          { kind: 'load', input: 0, dtype: 'f32' },
          { kind: 'load', input: 1, dtype: 'f32' },
          { kind: 'const', value: a!, dtype: 'f32' },
          { kind: 'call', fn: 'add', args: [0, 1], dtype: 'f32' },
          { kind: 'call', fn: 'mul', args: [3, 2], dtype: 'f32' },
        ],
        outputs: [4],
      };
      return clusterPlan(cluster).commands.map((c) => c.kernel);
    });
    expect(kernels[0]).toEqual(kernels[1]);
  });
});
