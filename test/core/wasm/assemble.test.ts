import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  assembler,
  call,
  type Expr,
  type FunctionBuilder,
  f32,
  f32x4,
  f64,
  i32,
  i32x4,
  i64,
  type Local,
  type ValType,
  v128,
} from '../../../core/backends/wasm/assembler/assemble.ts';
import { withConstants } from '../../../core/backends/wasm/assembler/encode.ts';
import { CONSTANT_BYTES, constantsAt } from '../../../core/backends/wasm/machine/constants.ts';

type Op<T extends ValType, R extends ValType = T> = (a: Expr<T>, b: Expr<T>) => Expr<R>;
type Callable = (...args: number[]) => number;

/** instantiates `build` as the exported function `f` over a memory of one page */
const compile = (build: (m: ReturnType<typeof assembler>) => void) => {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 65536, shared: true });
  const m = assembler();
  build(m);
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(m.bytes()), { env: { memory } });
  return { f: exports.f as Callable, memory };
};
const ofTwo = <T extends 'i32' | 'f32' | 'f64', R extends ValType>(type: T, result: R, op: Op<T, R>): Callable =>
  compile((m) => {
    m.func('f', [type, type], result, (f, a, b) => f.return(op(a as Local<T>, b as Local<T>)));
  }).f;

const int = fc.oneof(fc.integer(), fc.constantFrom(0, 1, -1, 2 ** 31 - 1, -(2 ** 31)));
const float = fc.float({ noNaN: true });

describe('assembler', { timeout: 60_000 }, () => {
  it.each<[string, Op<'i32'>, (a: number, b: number) => number]>([
    ['add', i32.add, (a, b) => (a + b) | 0],
    ['sub', i32.sub, (a, b) => (a - b) | 0],
    ['mul', i32.mul, Math.imul],
    ['and', i32.and, (a, b) => a & b],
    ['or', i32.or, (a, b) => a | b],
    ['xor', i32.xor, (a, b) => a ^ b],
    ['shl', i32.shl, (a, b) => a << b],
    ['shr_s', i32.shr_s, (a, b) => a >> b],
    ['shr_u', i32.shr_u, (a, b) => (a >>> b) | 0],
    [
      'rotl',
      i32.rotl,
      (a, b) =>
        Number(BigInt.asIntN(32, (BigInt(a >>> 0) << BigInt(b & 31)) | (BigInt(a >>> 0) >> BigInt(32 - (b & 31))))),
    ],
    ['eq', i32.eq, (a, b) => Number(a === b)],
    ['ne', i32.ne, (a, b) => Number(a !== b)],
    ['lt_s', i32.lt_s, (a, b) => Number(a < b)],
    ['lt_u', i32.lt_u, (a, b) => Number(a >>> 0 < b >>> 0)],
    ['gt_s', i32.gt_s, (a, b) => Number(a > b)],
    ['gt_u', i32.gt_u, (a, b) => Number(a >>> 0 > b >>> 0)],
    ['le_u', i32.le_u, (a, b) => Number(a >>> 0 <= b >>> 0)],
    ['ge_u', i32.ge_u, (a, b) => Number(a >>> 0 >= b >>> 0)],
  ])('i32.%s is what JavaScript computes', (_, op, expected) => {
    const f = ofTwo('i32', 'i32', op);
    fc.assert(fc.property(int, int, (a, b) => Object.is(f(a, b), expected(a, b))));
  });

  it.each<[string, Op<'f32'>, (a: number, b: number) => number]>([
    ['add', f32.add, (a, b) => a + b],
    ['sub', f32.sub, (a, b) => a - b],
    ['mul', f32.mul, (a, b) => a * b],
    ['div', f32.div, (a, b) => a / b],
    ['min', f32.min, Math.min],
    ['max', f32.max, Math.max],
  ])('f32.%s is what JavaScript computes, rounded once', (_, op, expected) => {
    const f = ofTwo('f32', 'f32', op);
    fc.assert(fc.property(float, float, (a, b) => Object.is(f(a, b), Math.fround(expected(a, b)))));
  });

  it.each<[string, (a: Expr<'v128'>, b: Expr<'v128'>) => Expr<'v128'>, (a: number, b: number) => number]>([
    ['add', f32x4.add, (a, b) => a + b],
    ['sub', f32x4.sub, (a, b) => a - b],
    ['mul', f32x4.mul, (a, b) => a * b],
    ['div', f32x4.div, (a, b) => a / b],
    ['pmin', f32x4.pmin, (a, b) => [a, b][Number(b < a)]!],
    ['pmax', f32x4.pmax, (a, b) => [a, b][Number(a < b)]!],
    ['abs', (a) => f32x4.abs(a), Math.abs],
    ['neg', (a) => f32x4.neg(a), (a) => -a],
    ['sqrt', (a) => f32x4.sqrt(f32x4.abs(a)), (a) => Math.sqrt(Math.abs(a))],
    ['floor', (a) => f32x4.floor(a), Math.floor],
    ['ceil', (a) => f32x4.ceil(a), Math.ceil],
    ['trunc', (a) => f32x4.trunc(a), Math.trunc],
  ])('f32x4.%s works lane by lane', (_, op, expected) => {
    const { f, memory } = compile((m) => {
      m.func('f', ['i32', 'i32', 'i32'], 'void', (b, x, y, z) => b.emit(v128.store(z, op(v128.load(x), v128.load(y)))));
    });
    const four = fc.array(float, { minLength: 4, maxLength: 4 });
    fc.assert(
      fc.property(four, four, (a, b) => {
        const numbers = new Float32Array(memory.buffer);
        numbers.set([...a, ...b]);
        f(0, 16, 32);
        expect([...numbers.subarray(8, 12)]).toEqual(a.map((x, i) => Math.fround(expected(x, b[i]!))));
      }),
    );
  });

  it('shuffles, selects and moves lanes', () => {
    const { f, memory } = compile((m) => {
      m.func('f', [], 'void', (b) => {
        const [x, y] = [b.let(v128.load(0)), b.let(v128.load(16))];
        b.emit(
          v128.store(32, v128.shuffle32(x, y, [3, 4, 0, 7])),
          v128.store(48, v128.bitselect(x, y, i32x4.gt_s(x, 2))),
          v128.store(64, i32x4.replace_lane(x, 2, i32x4.extract_lane(y, 1))),
          v128.store(80, v128.load32_splat(8)),
          v128.store(96, v128.load32_lane(20, x, 3)),
          v128.store32_lane(112, y, 2),
          v128.store64_lane(116, y, 0),
        );
      });
    });
    const words = new Int32Array(memory.buffer);
    words.set([1, 2, 3, 4, 50, 60, 70, 80]);
    f();
    expect([...words.subarray(8, 31)]).toEqual([
      4, 50, 1, 80, 50, 60, 3, 4, 1, 2, 60, 4, 3, 3, 3, 3, 1, 2, 3, 60, 70, 50, 60,
    ]);
  });

  it('encodes constants of any size', () => {
    fc.assert(
      fc.property(int, float, fc.double({ noNaN: true }), (a, b, c) => {
        const { f, memory } = compile((m) => {
          m.func('f', [], 'void', (body) =>
            body.emit(i32.store(0, a), f32.store(4, b), f64.store(8, c), i64.store(16, i64.const(BigInt(a) << 20n))),
          );
        });
        f();
        expect(new Int32Array(memory.buffer)[0]).toBe(a);
        expect(new Float32Array(memory.buffer)[1]).toBe(b);
        expect(new Float64Array(memory.buffer)[1]).toBe(c);
        expect(new BigInt64Array(memory.buffer)[2]).toBe(BigInt(a) << 20n);
      }),
      { numRuns: 50 },
    );
  });

  it('reaches far offsets', () => {
    const { f, memory } = compile((m) => {
      m.func('f', ['i32'], 'i32', (b, p) => b.return(i32.load(p, 60_000)));
    });
    new Int32Array(memory.buffer)[15_001] = 7;
    expect(f(4)).toBe(7);
  });

  /** sums what `body` adds to a local, for a limit n */
  const summing = (body: (f: FunctionBuilder, n: Local<'i32'>, add: (x: Expr<'i32'>) => void) => void): Callable =>
    compile((m) => {
      m.func('f', ['i32'], 'i32', (f, n) => {
        const sum = f.local('i32');
        body(f, n, (x) => f.set(sum, i32.add(sum, x)));
        f.return(sum);
      });
    }).f;

  it('loops, branches and breaks', () => {
    const loop = summing((f, n, add) => {
      const i = f.local('i32');
      f.for(i, 3, n, 2, () => add(i));
    });
    expect([0, 3, 4, 8].map((n) => loop(n))).toEqual([0, 0, 3, 3 + 5 + 7]);
    const halves = summing((f, n, add) => {
      f.while(n, () => {
        f.if(
          i32.and(n, 1),
          () => add(i32.const(1)),
          () => add(i32.const(100)),
        );
        f.set(n, i32.shr_u(n, 1));
      });
    });
    expect(halves(0b1010)).toBe(202);
    const broken = summing((f, n, add) => {
      const i = f.local('i32');
      f.block((exit) => {
        f.for(i, 0, 100, 1, () => {
          f.breakIf(exit, i32.eq(i, n));
          f.if(i32.eq(i, 50), () => f.break(exit));
          add(i32.const(1));
        });
        add(i32.const(1000));
      });
    });
    expect([7, 60].map((n) => broken(n))).toEqual([7, 50]);
  });

  it('calls functions, also imported ones', () => {
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 65536, shared: true });
    const m = assembler();
    const twice = m.importFunc('twice', ['i32'], 'i32');
    const square = m.func('', ['i32'], 'i32', (f, x) => f.return(i32.mul(x, x)));
    m.func('f', ['i32'], 'i32', (f, x) => f.return(call(square, [call(twice, [i32.add(x, 1)])])));
    const env = { memory, twice: (x: number) => 2 * x };
    const { f } = new WebAssembly.Instance(new WebAssembly.Module(m.bytes()), { env }).exports;
    expect((f as Callable)(4)).toBe(100);
  });

  it('takes constant vectors from memory where it is told to, and makes those that have no place', () => {
    const written = new Map<number, number>();
    const place = constantsAt(1024, (address, bits) => written.set(address, bits));
    const { f, memory } = compile((m) => {
      withConstants(place, () =>
        m.func('f', ['i32'], 'void', (f, at) => {
          const x = f.let(f32x4.add(f32x4.mul(v128.load(at), 0.1), 3));
          f.emit(v128.store(at, f32x4.max(f32x4.mul(x, 0.1), 0)));
          f.emit(v128.store(at, i32x4.add(v128.load(at, 16), 12345), 16));
        }),
      );
    });
    // 0.1 has one place, 0 none
    expect([...written.keys()]).toEqual([1024, 1028, 1032]);
    const run = (): readonly number[] => {
      const [floats, ints] = [new Float32Array(memory.buffer), new Int32Array(memory.buffer)];
      for (const [address, bits] of written) ints[address / 4] = bits;
      floats.set([1, -50, 3, 4]);
      ints.set([1, 2, 3, -4], 4);
      f(0);
      return [...floats.slice(0, 4), ...ints.slice(4, 8)];
    };
    const [tenth, three] = [Math.fround(0.1), 3];
    const scaled = (x: number): number => Math.max(Math.fround(Math.fround(Math.fround(x * tenth) + three) * tenth), 0);
    const ints = [12346, 12347, 12348, 12341];
    expect(run()).toEqual([...[1, -50, 3, 4].map(scaled), ...ints]);
    // read, not written into the code
    written.set(1028, 0);
    expect(run()).toEqual([
      ...[1, -50, 3, 4].map((x) => Math.max(Math.fround(Math.fround(x * tenth) * tenth), 0)),
      ...ints,
    ]);

    for (let bits = 2; bits < 2 + CONSTANT_BYTES / 4 - 3; bits++) expect(place(bits)).toBe(1024 + 4 * (bits + 1));
    expect(place(0x7654321)).toBeUndefined();
    const full = compile((m) => {
      withConstants(place, () =>
        m.func('f', ['i32'], 'void', (f, at) => f.emit(v128.store(at, i32x4.add(v128.load(at), 0x7654321)))),
      );
    });
    full.f(0);
    expect(new Int32Array(full.memory.buffer)[0]).toBe(0x7654321);
  });

  it('tells mistakes', () => {
    const m = assembler();
    const square = m.func('square', ['i32'], 'i32', (f, x) => f.return(i32.mul(x, x)));
    expect(() => call(square, [])).toThrow('assembler: square takes 1 arguments, got 0');
    expect(() => call(square, [f32.const(1)])).toThrow('assembler: argument 0 of square is f32, not i32');
    expect(() => m.importFunc('late', [], 'void')).toThrow('assembler: import late before the first function');
  });
});
