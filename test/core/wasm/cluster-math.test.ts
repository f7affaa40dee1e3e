import { afterAll, describe, expect, it } from 'vitest';
import { assembler, i32, v128 } from '../../../core/backends/wasm/assembler/assemble.ts';
import { exp2ShortF32x4 } from '../../../core/backends/wasm/assembler/vectorMath.ts';
import { clusterPlan } from '../../../core/backends/wasm/cluster/index.ts';
import { createMachine } from '../../../core/backends/wasm/machine/machine.ts';
import type { Cluster } from '../../../core/compile/scalar.ts';
import type { DType } from '../../../core/ir/dtype.ts';
import { type ElementwiseName, table } from '../../../core/ops/elementwise.ts';
import { runPlan } from '../../support/wasm-harness.ts';

const machine = createMachine({ threads: 1 });
afterAll(() => machine.close());

type Data = Float32Array | Int32Array | Uint32Array;
/** fn over whole arrays; the words of the result */
const apply = (fn: string, inputs: readonly Data[], dtypes: readonly DType[], dtype: DType): Int32Array => {
  const n = inputs[0]!.length;
  const at = inputs.map((x) => machine.alloc(x.byteLength));
  const y = machine.alloc(n * 4);
  for (const [i, x] of inputs.entries()) machine.i32.set(new Int32Array(x.buffer, x.byteOffset, n), at[i]! / 4);
  const cluster: Cluster = {
    shape: [n],
    inputs: dtypes.map((d) => ({ dtype: d, strides: [1], offset: 0 })),
    steps: [
      ...dtypes.map((d, input) => ({ kind: 'load', input, dtype: d }) as const),
      { kind: 'call', fn, args: dtypes.map((_, i) => i), dtype, ...(fn === 'cast' ? { converts: true } : {}) },
    ],
    outputs: [dtypes.length],
  };
  runPlan(machine, clusterPlan(cluster), [...at, y]);
  const words = machine.i32.slice(y / 4, y / 4 + n);
  for (const address of [...at, y]) machine.free(address);
  return words;
};
const floats = (words: Int32Array): Float32Array => new Float32Array(words.buffer);
const js = (fn: ElementwiseName) => {
  const { form } = table[fn];
  if (form.kind !== 'elementwise') throw new Error(fn);
  return form.js;
};
const spread = (low: number, high: number, n: number): Float32Array =>
  Float32Array.from({ length: n }, (_, i) => low + ((high - low) * i) / (n - 1));
/** from 2⁻¹²⁰ to 2¹²⁰, both signs */
const wide = Float32Array.from({ length: 20001 }, (_, i) => (i % 2 ? -1 : 1) * 2 ** ((i / 20000) * 240 - 120) * 1.2345);
const special = Float32Array.of(
  0,
  -0,
  1,
  -1,
  Infinity,
  -Infinity,
  Number.NaN,
  3.4e38,
  -3.4e38,
  1e-40,
  -1e-40,
  0.5,
  -2.5,
  88.7,
  -88,
);

describe('elementwise functions as SIMD', { timeout: 60_000 }, () => {
  /** most units in the last place (2⁻²⁴ of the result) each may be off */
  const cases: readonly [ElementwiseName, number, readonly Float32Array[]][] = [
    ['exp', 4, [spread(-87, 88.7, 100003), spread(-1, 1, 10001)]],
    ['log', 4, [spread(1e-3, 10, 100003), wide.map(Math.abs), spread(0.99, 1.01, 10001)]],
    ['sin', 4, [spread(-20, 20, 100003), spread(-30000, 30000, 100003)]],
    ['cos', 4, [spread(-20, 20, 100003), spread(-30000, 30000, 100003)]],
    ['tanh', 6, [spread(-12, 12, 100003), wide]],
    ['erf', 8, [spread(-5, 5, 100003), wide]],
    ['sigmoid', 6, [spread(-80, 80, 100003)]],
    ['sqrt', 1, [wide.map(Math.abs)]],
    ['rsqrt', 3, [wide.map(Math.abs)]],
    ['recip', 1, [wide]],
    ['neg', 0, [wide]],
    ['floor', 0, [wide, spread(-5, 5, 1001)]],
  ];
  it.each(cases)('%s stays within %i ulp', (fn, ulp, ranges) => {
    const f = js(fn);
    for (const x of ranges) {
      const y = floats(apply(fn, [x], ['f32'], 'f32'));
      let worst = 0;
      let where = 0;
      for (const [i, got] of y.entries()) {
        const want = f(x[i]!);
        const error = Math.abs(got - want) - 2 ** -126;
        const ulps = error <= 0 ? 0 : error / (Math.abs(want) * 2 ** -24);
        if (!(ulps <= worst)) [worst, where] = [ulps, x[i]!];
      }
      expect(worst, `${fn}(${where})`).toBeLessThanOrEqual(ulp);
    }
  });

  it.each(cases.map(([fn]) => fn))('%s treats zeros, infinities and NaN as the reference does', (fn) => {
    const f = js(fn);
    const y = floats(apply(fn, [special], ['f32'], 'f32'));
    for (const [i, x] of special.entries()) {
      const want = Math.fround(f(x));
      if (Math.abs(x) > 1e9 && (fn === 'sin' || fn === 'cos')) continue;
      if (Number.isFinite(want))
        expect(Math.abs(y[i]! - want), `${fn}(${x})`).toBeLessThanOrEqual(Math.abs(want) * 1e-6 + 2 ** -126);
      else expect(y[i], `${fn}(${x})`).toBe(want);
    }
  });

  const pairs = [...special].flatMap((a) => [...special].map((b) => [a, b] as const));
  it.each([
    ['add', 'f32'],
    ['sub', 'f32'],
    ['mul', 'f32'],
    ['div', 'f32'],
    ['maximum', 'f32'],
    ['minimum', 'f32'],
    ['less', 'bool'],
    ['equal', 'bool'],
  ] as const)('%s of floats is exact', (fn, dtype) => {
    const f = js(fn);
    const a = Float32Array.from(pairs, (p) => p[0]);
    const b = Float32Array.from(pairs, (p) => p[1]);
    const words = apply(fn, [a, b], ['f32', 'f32'], dtype);
    const got = dtype === 'f32' ? [...floats(words)] : [...words];
    expect(got).toEqual([...a].map((x, i) => (dtype === 'f32' ? Math.fround(f(x, b[i]!)) : f(x, b[i]!))));
  });

  const numbers = [0, 1, 2, 3, 7, 511, 512, 513, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 123456789];
  const products = numbers.flatMap((a) => numbers.map((b) => [a, b] as const));
  it.each(['add', 'sub', 'mul', 'div', 'maximum', 'minimum', 'less', 'equal'] as const)(
    '%s of integers wraps',
    (fn) => {
      for (const signed of [true, false]) {
        const make = (x: number[]): Data => (signed ? Int32Array.from(x) : Uint32Array.from(x));
        const a = make(products.map((p) => p[0]));
        const b = make(products.map((p) => p[1]));
        const dtype = signed ? 'i32' : 'u32';
        const f = js(fn);
        const words = apply(fn, [a, b], [dtype, dtype], fn === 'less' || fn === 'equal' ? 'bool' : dtype);
        const want = [...a].map((x, i) => {
          // products beyond 2⁵³ need exact arithmetic
          if (fn === 'mul') return Math.imul(x, b[i]!);
          return b[i] === 0 && fn === 'div' ? 0 : f(x, b[i]!) | 0;
        });
        // the one quotient without a value: −2³¹ / −1
        const known = want.map((w, i) => (signed && fn === 'div' && a[i] === -(2 ** 31) && b[i] === -1 ? words[i] : w));
        expect([...words]).toEqual(known);
      }
    },
  );

  it('casts as the reference does', () => {
    const x = Float32Array.of(0, -0, 1.9, -1.9, 0.3, -0.3, 1e6, -1e6, 16777216, Number.NaN);
    expect([...apply('cast', [x], ['f32'], 'i32')]).toEqual([0, 0, 1, -1, 0, 0, 1e6, -1e6, 16777216, 0]);
    expect([...apply('cast', [x.map(Math.abs)], ['f32'], 'u32')]).toEqual([0, 0, 1, 1, 0, 0, 1e6, 1e6, 16777216, 0]);
    expect([...apply('cast', [x], ['f32'], 'bool')]).toEqual([0, 0, 1, 1, 1, 1, 1, 1, 1, 0]);
    const i = Int32Array.of(0, -5, 7, 2 ** 31 - 1);
    expect([...floats(apply('cast', [i], ['i32'], 'f32'))]).toEqual([0, -5, 7, 2 ** 31]);
    expect([...floats(apply('cast', [Uint32Array.of(4294967295, 5)], ['u32'], 'f32'))]).toEqual([2 ** 32, 5]);
    expect([...floats(apply('cast', [Uint32Array.of(1, 0, 1)], ['bool'], 'f32'))]).toEqual([1, 0, 1]);
    expect([...apply('cast', [Uint32Array.of(1, 0, 1)], ['bool'], 'i32')]).toEqual([1, 0, 1]);
  });

  it('knows bools, finite numbers and choices', () => {
    expect([...apply('isFinite', [special], ['f32'], 'bool')]).toEqual([...special].map((x) => +Number.isFinite(x)));
    const c = Uint32Array.of(1, 0, 0, 1, 1);
    expect([...apply('not', [c], ['bool'], 'bool')]).toEqual([0, 1, 1, 0, 0]);
    const [a, b] = [Float32Array.of(1, 2, 3, 4, 5), Float32Array.of(-1, -2, -3, -4, -5)];
    expect([...floats(apply('select', [c, a, b], ['bool', 'f32', 'f32'], 'f32'))]).toEqual([1, -2, -3, 4, 5]);
  });

  it('refuses what has no meaning', () => {
    expect(() => apply('exp', [Int32Array.of(1)], ['i32'], 'i32')).toThrow('no elementwise function exp for i32');
  });
});

describe('functions that only kernels call', () => {
  it('2^x of heads of four: within 2.5 units of the last place, 1 at 0, 0 from -127 on', () => {
    const m = assembler();
    m.kernel('short2', (f, { args, start, end }) => {
      const u = f.local('i32');
      f.for(u, start, end, 1, () => {
        const at = f.let(i32.shl(u, 4));
        const x = f.let(v128.load(i32.add(i32.load(args, 0), at)));
        f.emit(v128.store(i32.add(i32.load(args, 4), at), exp2ShortF32x4(f, x)));
      });
    });
    machine.addModule(m.bytes());
    const x = Float32Array.of(...spread(-126, 127, 100_000), 0, -127, -1000, -Infinity);
    const [from, to] = [machine.alloc(x.byteLength), machine.alloc(x.byteLength)];
    machine.f32.set(x, from / 4);
    machine.run(machine.prepare([{ kernel: 'short2', args: [from, to], grid: x.length / 4 }]));
    const y = machine.f32.slice(to / 4, to / 4 + x.length);
    expect([...y.slice(-4)]).toEqual([1, 0, 0, 0]);
    let [worst, where] = [0, 0];
    for (let i = 0; i < 100_000; i++) {
      const want = 2 ** x[i]!;
      const ulp = 2 ** (Math.floor(Math.log2(want)) - 23);
      const off = Math.abs(y[i]! - want) / ulp;
      if (!(off <= worst)) [worst, where] = [off, x[i]!];
    }
    expect(worst, `2^${where}`).toBeLessThanOrEqual(2.5);
  });
});
