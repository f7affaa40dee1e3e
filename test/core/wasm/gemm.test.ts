import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { createMachine, type Machine } from '../../../core/backends/wasm/machine/machine.ts';
import type { GemmDescription } from '../../../core/backends/wasm/product/description.ts';
import { gemm } from '../../../core/backends/wasm/product/gemm.ts';
import { pack } from '../../../core/backends/wasm/product/pack.ts';
import { columns, type Tile } from '../../../core/backends/wasm/product/tile.ts';
import { candidates, useTiles } from '../../../core/backends/wasm/product/tune.ts';
import { chooseTile, panelBytes } from '../../../core/backends/wasm/product/units.ts';
import { base, runPlan } from '../../support/wasm-harness.ts';
import { LAMBDA, type MatrixSource, placeMatrix, random, SOURCES, U32 } from '../../support/wasm-support.ts';

interface Case {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly groups: number;
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  /** extra elements between rows and between columns: strides that are not contiguous */
  readonly gapA: number;
  readonly columnGapA: number;
  readonly gapB: number;
  readonly gapC: number;
  readonly sharedB: boolean;
  readonly prepacked: boolean;
  readonly source: MatrixSource;
  readonly seed: number;
}

/** runs a case; returns C and checks every element against f64 loops: |C - C64| ≤ u·(16|C| + λ√n·S) */
const runCase = (machine: Machine, t: Case): Float32Array => {
  const { m, n, k, groups } = t;
  const blocks: number[] = [];
  const place = (values: Float32Array): number => {
    const address = machine.alloc(values.byteLength);
    machine.f32.set(values, address / 4);
    blocks.push(address);
    return address;
  };
  const column = t.columnGapA + 1;
  const [aRow, aColumn] = t.transposeA ? [column, m * column + t.gapA] : [k * column + t.gapA, column];
  const [bRow, bColumn] = t.transposeB ? [1, k + t.gapB] : [n + t.gapB, 1];
  const aGroup = Math.max(aRow * m, aColumn * k);
  const bGroup = t.sharedB ? 0 : Math.max(bRow * k, bColumn * n);
  const cRow = n + t.gapC;
  const cGroup = cRow * m + 3;
  const a = random(t.seed, groups * aGroup);
  const drawn = random(t.seed + 1, t.sharedB ? Math.max(bRow * k, bColumn * n) : groups * bGroup);
  // kernels are never given stored numbers that are none
  const { from, seen: b, ...placedB } = placeMatrix(machine, drawn, k > 0 ? t.source : 'f32');
  const c0 = random(t.seed + 3, groups * cGroup);
  const c = place(c0);
  const d: GemmDescription = {
    m,
    n,
    k,
    groups,
    a: { address: base(0), row: aRow, column: aColumn, group: aGroup },
    b: { address: base(1), row: bRow, column: bColumn, group: bGroup },
    c: { address: base(2), row: cRow, group: cGroup },
    fromB: from,
    workspace: base(3),
  };
  const addresses = [place(a), placedB.address, c];
  if (!t.prepacked) runPlan(machine, gemm(machine, d), addresses);
  else {
    const tile = chooseTile(machine, 'once', n);
    const width = columns(tile);
    const sets = t.sharedB ? 1 : groups;
    const packedB = place(new Float32Array((panelBytes(n, k, width) * sets) / 4));
    const bytes = from.type === 'f16' ? 2 : 4;
    const strides = { from, laneStride: bColumn * bytes, kStride: bRow * bytes, groupStride: bGroup * bytes };
    const to = { target: packedB, groups: sets };
    const packing = pack(width, { source: base(1), ...strides, lanes: n, k, stretches: 1, stretchStride: 0, ...to });
    if (k > 0) runPlan(machine, { bytes: 0, commands: [packing] }, addresses);
    runPlan(machine, gemm(machine, { ...d, packedB: { at: packedB, tile } }), addresses);
  }
  const result = machine.f32.slice(c / 4, c / 4 + groups * cGroup);
  for (const address of blocks) machine.free(address);
  placedB.free();

  for (let g = 0; g < groups; g++)
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let sum = 0;
        let size = 0;
        for (let l = 0; l < k; l++) {
          const term = a[g * aGroup + i * aRow + l * aColumn]! * b[g * bGroup + l * bRow + j * bColumn]!;
          sum += term;
          size += Math.abs(term);
        }
        const got = result[g * cGroup + i * cRow + j]!;
        const bound = U32 * (20 * Math.abs(sum) + 1.1 * LAMBDA * Math.sqrt(k) * size);
        if (!(Math.abs(got - sum) <= bound)) throw new Error(`C[${g}][${i}, ${j}] is ${got}, not ${sum} (± ${bound})`);
      }
      for (let j = n; j < cRow; j++)
        if (result[g * cGroup + i * cRow + j] !== c0[g * cGroup + i * cRow + j])
          throw new Error(`C[${g}][${i}, ${j}] was overwritten`);
    }
  return result;
};

const plain: Case = {
  m: 1,
  n: 1,
  k: 1,
  groups: 1,
  transposeA: false,
  transposeB: false,
  gapA: 0,
  columnGapA: 0,
  gapB: 0,
  gapC: 0,
  sharedB: true,
  prepacked: false,
  source: 'f32',
  seed: 1,
};

const size = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 17 }) },
  fc.constantFrom(1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 67),
);
const anyCase: fc.Arbitrary<Case> = fc.record({
  m: size,
  n: size,
  k: fc.oneof(size, fc.constantFrom(0, 128, 255, 256, 257, 300, 515)),
  groups: fc.constantFrom(1, 1, 2, 3),
  transposeA: fc.boolean(),
  transposeB: fc.boolean(),
  gapA: fc.constantFrom(0, 0, 1, 4),
  columnGapA: fc.constantFrom(0, 0, 0, 1),
  gapB: fc.constantFrom(0, 0, 3),
  gapC: fc.constantFrom(0, 0, 1, 5),
  sharedB: fc.boolean(),
  prepacked: fc.boolean(),
  source: fc.constantFrom(...SOURCES),
  seed: fc.nat(),
});

describe('gemm', { timeout: 60_000 }, () => {
  const one = createMachine({ threads: 1 });
  const two = createMachine({ threads: 2 });
  two.ready();
  afterAll(() => two.close());

  it('agrees with f64 loops for any shape and stride, with the same bits on 1 and 2 threads', () => {
    fc.assert(
      fc.property(anyCase, (t) => {
        expect(runCase(two, t)).toEqual(runCase(one, t));
      }),
      { numRuns: 300 },
    );
  });

  it.each<Partial<Case>>([
    { m: 2048, n: 4, k: 96 },
    { m: 2048, n: 4, k: 96, transposeB: true },
    { m: 4, n: 96, k: 2048, transposeA: true },
    { m: 96, n: 4, k: 2048, transposeA: true },
    { groups: 8, m: 96, n: 4, k: 256, transposeA: true, sharedB: false },
    { m: 1, n: 300, k: 1200 },
    { m: 1, n: 300, k: 1200, transposeB: true },
    { m: 300, n: 1, k: 1200 },
    { m: 7, n: 5, k: 5000 },
    { m: 130, n: 129, k: 513, transposeA: true, transposeB: true },
    { m: 100, n: 256, k: 64, prepacked: true },
    { m: 9, n: 67, k: 2100, source: 'halves' },
    { m: 9, n: 67, k: 2100, source: 'halves outside' },
    { m: 9, n: 67, k: 2100, transposeB: true, source: 'halves outside' },
    { groups: 2, m: 1, n: 5, k: 1030, sharedB: false, source: 'halves outside' },
  ])('computes %o', (t) => {
    const whole = { ...plain, ...t };
    expect(runCase(two, whole)).toEqual(runCase(one, whole));
  });

  it.each([true, false])('gives the same bits with every tile shape (fused multiplication: %s)', (fma) => {
    const shapes = candidates('once', 'wide', fma);
    const machines = shapes.map((wide, i) => {
      const [half, narrow] = (['half', 'narrow'] as const).map((width) => {
        const all = candidates('once', width, fma);
        return all[i % all.length]!;
      }) as [Tile, Tile];
      const machine = createMachine({ threads: 1 });
      useTiles(machine, { wide, half, narrow });
      return machine;
    });
    fc.assert(
      fc.property(anyCase, (t) => {
        const [first, ...others] = machines.map((machine) => runCase(machine, t));
        for (const other of others) expect(other).toEqual(first);
      }),
      { numRuns: 40 },
    );
  });

  it('gives the same bits for halves, wherever they lie, as for the same numbers in f32', () => {
    fc.assert(
      fc.property(anyCase, (t) => {
        const [wide, ...stored] = SOURCES.slice(1).map((source) => runCase(two, { ...t, source }));
        for (const y of stored) expect(y).toEqual(wide);
      }),
      { numRuns: 60 },
    );
  });

  it('gives the bits of the register tile where k is so short that a kernel of its own computes it', () => {
    const short = fc.record({
      m: size,
      n: fc.integer({ min: 8, max: 70 }),
      k: fc.integer({ min: 1, max: 7 }),
      groups: fc.constantFrom(1, 3),
      transposeB: fc.boolean(),
      sharedB: fc.boolean(),
      gapA: fc.constantFrom(0, 3),
      gapB: fc.constantFrom(0, 3),
      gapC: fc.constantFrom(0, 5),
      seed: fc.nat(),
    });
    fc.assert(
      fc.property(short, (t) => {
        const whole = { ...plain, ...t };
        // panels that are there already are for the tile
        expect(runCase(one, whole)).toEqual(runCase(one, { ...whole, prepacked: true }));
      }),
      { numRuns: 150 },
    );
    for (const k of [1, 4, 6]) {
      const large = { ...plain, m: 3000, n: 36, k, gapC: 1 };
      const result = runCase(one, large);
      expect(runCase(two, large)).toEqual(result);
      expect(runCase(one, { ...large, prepacked: true })).toEqual(result);
    }
  });

  it('leaves no memory behind', () => {
    expect(two.stats().blocks).toBe(two.threads);
  });
});
