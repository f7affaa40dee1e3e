import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { forward, inputGradient } from '../../../core/backends/wasm/conv/index.ts';
import { type ConvShape, outputSize } from '../../../core/backends/wasm/conv/shape.ts';
import { kernelGradient } from '../../../core/backends/wasm/conv/weights.ts';
import { createMachine, type Machine } from '../../../core/backends/wasm/machine/machine.ts';
import type { Tile } from '../../../core/backends/wasm/product/tile.ts';
import { candidates, useTiles } from '../../../core/backends/wasm/product/tune.ts';
import { reference, type Sums, winogradSizes } from '../../support/conv-reference.ts';
import { LONG, longRows, longTest } from '../../support/long.ts';
import { base, runPlan } from '../../support/wasm-harness.ts';
import { LAMBDA, type MatrixSource, placeMatrix, random, SOURCES, U32 } from '../../support/wasm-support.ts';

const check = (name: string, got: Float32Array, { value, size, count }: Sums): void => {
  for (const [i, v] of got.entries()) {
    const y = value[i]!;
    const bound = U32 * (20 * Math.abs(y) + 1.1 * LAMBDA * Math.sqrt(count[i]!) * size[i]!) + 2 ** -126;
    if (!(Math.abs(v - y) <= bound)) throw new Error(`${name}[${i}] is ${v}, not ${y} (± ${bound})`);
  }
};

/** bases of x, w (or dy) and the result, then the workspace */
const operands = { x: base(0), w: base(1), dy: base(1), y: base(2), dw: base(2), workspace: base(3) };

const runCase = (machine: Machine, s: ConvShape, seed: number, source: MatrixSource = 'f32'): Float32Array[] => {
  const [oh, ow] = outputSize(s);
  const x = random(seed, s.n * s.h * s.w * s.c);
  const drawn = random(seed + 1, s.kh * s.kw * (s.c / s.groups) * s.o);
  const { from, seen: w, ...placedW } = placeMatrix(machine, drawn, source);
  const dy = random(seed + 2, s.n * oh * ow * s.o);
  const blocks: number[] = [];
  const place = (values: Float32Array): number => {
    const address = machine.alloc(values.byteLength);
    machine.f32.set(values, address / 4);
    blocks.push(address);
    return address;
  };
  const empty = (length: number): number => place(new Float32Array(length).fill(Number.NaN));
  const at = {
    x: place(x),
    w: placedW.address,
    dy: place(dy),
    y: empty(dy.length),
    dx: empty(x.length),
    dw: empty(w.length),
  };
  const read = (address: number, length: number): Float32Array => machine.f32.slice(address / 4, address / 4 + length);
  runPlan(machine, forward(machine, s, { ...operands, from }), [at.x, at.w, at.y]);
  runPlan(machine, inputGradient(machine, s, { ...operands, from }), [at.dy, at.w, at.dx]);
  runPlan(machine, kernelGradient(machine, s, operands), [at.x, at.dy, at.dw]);
  const [y, dx, dw] = [read(at.y, dy.length), read(at.dx, x.length), read(at.dw, w.length)];
  for (const address of blocks) machine.free(address);
  placedW.free();

  const definition = reference(s, x, w, dy);
  const expected = s.algorithm?.startsWith('winograd') ? winogradSizes(s, w, definition) : definition;
  check('y', y, expected.y);
  check('dx', dx, expected.dx);
  check('dw', dw, expected.dw);
  return [y, dx, dw];
};

const anySource = fc.constantFrom(...SOURCES);
const small = (max: number) => fc.integer({ min: 1, max });
const anyShape: fc.Arbitrary<ConvShape> = fc
  .record({
    n: small(3),
    h: small(11),
    w: small(11),
    cg: fc.constantFrom(1, 2, 3, 4, 5, 8, 9, 17),
    og: fc.constantFrom(1, 2, 3, 4, 5, 8, 9, 17),
    groups: fc.constantFrom(1, 1, 2, 3),
    kh: small(4),
    kw: small(4),
    stride: fc.tuple(small(3), small(3)),
    pad: fc.tuple(fc.tuple(fc.nat(4), fc.nat(4)), fc.tuple(fc.nat(4), fc.nat(4))),
  })
  .map(({ cg, og, ...rest }) => ({ ...rest, c: cg * rest.groups, o: og * rest.groups }))
  .filter((s) => outputSize(s).every((size) => size > 0));

const square = (n: number, size: number, c: number, o: number, k = 3, stride = 1, pad = 1): ConvShape => ({
  n,
  h: size,
  w: size,
  c,
  o,
  kh: k,
  kw: k,
  stride: [stride, stride],
  pad: [
    [pad, pad],
    [pad, pad],
  ],
  groups: 1,
});

describe('convolution', { timeout: 60_000 }, () => {
  const one = createMachine({ threads: 1 });
  const two = createMachine({ threads: 2 });
  two.ready();
  afterAll(() => two.close());

  it('and both gradients agree with their definition in f64, with the same bits on 1 and 2 threads', () => {
    fc.assert(
      fc.property(anyShape, fc.nat(), anySource, (s, seed, source) => {
        expect(runCase(two, s, seed, source)).toEqual(runCase(one, s, seed, source));
      }),
      { numRuns: LONG ? 150 : 60 },
    );
  });

  const anyWinograd = anyShape
    .map((s): ConvShape => ({ ...s, kh: 3, kw: 3, stride: [1, 1], groups: 1, algorithm: 'winograd' }))
    .filter((s) => outputSize(s).every((size) => size > 0));
  it('agrees by transform too, down to one channel, for any padding and odd sizes, in blocks and without', () => {
    fc.assert(
      fc.property(anyWinograd, fc.nat(), anySource, (s, seed, source) => {
        const fused = runCase(one, s, seed, source);
        expect(runCase(two, s, seed, source)).toEqual(fused);
        expect(runCase(two, { ...s, algorithm: 'winograd in blocks' }, seed, source)).toEqual(fused);
      }),
      { numRuns: LONG ? 60 : 30 },
    );
  });

  it('gives the same bits for a kernel of halves, wherever it lies, as for the same numbers in f32', () => {
    fc.assert(
      fc.property(fc.oneof(anyShape, anyWinograd), fc.nat(), (s, seed) => {
        const [wide, ...stored] = SOURCES.slice(1).map((source) => runCase(two, s, seed, source));
        for (const y of stored) expect(y).toEqual(wide);
      }),
      { numRuns: LONG ? 40 : 15 },
    );
  });

  it('says when a kernel has no Winograd transform', () => {
    const s: ConvShape = { ...square(1, 8, 16, 16, 3, 2), algorithm: 'winograd' };
    expect(() => forward(one, s, operands)).toThrow('no Winograd transform for a 3 × 3 kernel with stride 2,2');
  });

  const cases: readonly ConvShape[] = [
    square(2, 16, 32, 48),
    { ...square(2, 16, 32, 48), algorithm: 'direct' } satisfies ConvShape,
    { ...square(1, 7, 70, 100), algorithm: 'winograd' } satisfies ConvShape,
    { ...square(3, 14, 66, 80), algorithm: 'winograd' } satisfies ConvShape,
    // blocks of columns, and more channels than one block of the products' k
    { ...square(1, 4, 700, 104), algorithm: 'winograd in blocks' } satisfies ConvShape,
    // the last block is so narrow that alone it would have another tile
    { ...square(1, 4, 1000, 76), algorithm: 'winograd in blocks' } satisfies ConvShape,
    // pictures of a batch in one tile, with a part of a unit's columns left
    square(3, 4, 330, 50),
    square(2, 7, 66, 133),
    square(1, 4, 300, 20),
    square(1, 9, 16, 16, 3, 2),
    square(1, 8, 600, 4, 1, 1, 0),
    {
      ...square(1, 9, 12, 20, 3, 2, 0),
      pad: [
        [0, 1],
        [0, 1],
      ],
    } satisfies ConvShape,
    { ...square(1, 300, 1, 3), h: 2 },
  ];
  it.each(longRows(cases, ({ c }) => c !== 66))('computes %o', (s) => {
    expect(runCase(two, s, 7)).toEqual(runCase(one, s, 7));
  });

  it.each([true, false])('gives the same bits with every tile shape (fused multiplication: %s)', (fma) => {
    const shapes = candidates('taps', 'wide', fma);
    const machines = shapes.map((wide, i) => {
      const [half, narrow] = (['half', 'narrow'] as const).map((width) => {
        const all = candidates('taps', width, fma);
        return all[i % all.length]!;
      }) as [Tile, Tile];
      const machine = createMachine({ threads: 1 });
      useTiles(machine, { wide, half, narrow });
      return machine;
    });
    fc.assert(
      fc.property(anyShape, fc.nat(), (s, seed) => {
        const [first, ...others] = machines.map((machine) => runCase(machine, s, seed));
        for (const other of others) expect(other).toEqual(first);
      }),
      { numRuns: LONG ? 25 : 12 },
    );
  });

  it.each([
    [64, 96, 'winograd'],
    [16, 16, 'winograd'],
    [15, 16, 'direct'],
    [16, 15, 'direct'],
  ] as const)('takes, by itself, F(4×4) from 16 channels on: %i → %i is %s', (c, o, algorithm) => {
    const s = square(2, 7, c, o);
    const by = (shape: ConvShape) => runCase(one, shape, 3);
    const other = algorithm === 'direct' ? 'winograd' : 'direct';
    expect(by(s)).toEqual(by({ ...s, algorithm }));
    expect(by(s)).not.toEqual(by({ ...s, algorithm: other }));
  });

  it.each([
    [1, 4, 'direct'],
    [2, 4, 'winograd'],
    [1, 7, 'winograd'],
    [8, 3, 'winograd'],
    [8, 2, 'direct'],
    [8, 1, 'direct'],
  ] as const)('takes it where the pictures have pixels enough: %i of %i² is %s', (n, size, algorithm) => {
    const s = square(n, size, 20, 24);
    const by = (shape: ConvShape) => runCase(one, shape, 3);
    const other = algorithm === 'direct' ? 'winograd' : 'direct';
    expect(by(s)).toEqual(by({ ...s, algorithm }));
    expect(by(s)).not.toEqual(by({ ...s, algorithm: other }));
  });

  it('rounds at most 2.5 times as much through the transform as without it, at the fewest channels that take it', () => {
    const s = square(1, 24, 16, 16);
    const size = 24 * 24 * 16;
    const [x, w] = [random(1, size), random(2, 9 * 16 * 16)];
    const { value } = reference(s, x, w, new Float32Array(size)).y;
    const root = (algorithm: 'direct' | 'winograd'): number => {
      const shape = { ...s, algorithm };
      const at = [x.length, w.length, size].map((n) => one.alloc(n * 4));
      const [atX, atW, y] = at as [number, number, number];
      one.f32.set(x, atX / 4);
      one.f32.set(w, atW / 4);
      runPlan(one, forward(one, shape, operands), at);
      const got = one.f32.slice(y / 4, y / 4 + size);
      for (const address of at) one.free(address);
      return Math.sqrt(got.reduce((sum, v, i) => sum + (v - value[i]!) ** 2, 0) / size);
    };
    // 9216 errors: their root mean square is known to about 1%
    expect(root('winograd') / root('direct')).toBeLessThan(2.5);
  });

  longTest('takes pictures with many patches in blocks: two at once are as each alone', () => {
    const s: ConvShape = { ...square(2, 256, 64, 4), algorithm: 'winograd' };
    const single = { ...s, n: 1 };
    const [pixels, results] = [256 * 256 * 64, 256 * 256 * 4];
    const at = [2 * pixels * 4, 9 * 64 * 4 * 4, 2 * results * 4].map(two.alloc);
    const [x, w, y] = at as [number, number, number];
    two.f32.set(random(1, 2 * pixels), x / 4);
    two.f32.set(random(2, 9 * 64 * 4), w / 4);
    const both = () => two.f32.slice(y / 4, y / 4 + 2 * results);
    runPlan(two, forward(two, s, operands), at);
    const together = both();
    two.f32.fill(0, y / 4, y / 4 + 2 * results);
    for (const i of [0, 1]) runPlan(two, forward(two, single, operands), [x + i * pixels * 4, w, y + i * results * 4]);
    const alone = both();
    expect(alone.findIndex((v, i) => v !== together[i])).toBe(-1);
    for (const address of at) two.free(address);
  });

  it('leaves no memory behind', () => {
    expect(two.stats().blocks).toBe(two.threads);
  });
});
