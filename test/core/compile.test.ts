/** compile: one program per structure and shapes, donated storage, static values, results that are nobody else's. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, describe, expect, test } from 'vitest';
import { wasmBackend } from '../../core/backends/wasm/index.ts';
import {
  add,
  type Backend,
  CoreError,
  compile,
  cpuBackend,
  DonatedError,
  evaluate,
  exp,
  mean,
  mul,
  neg,
  place,
  read,
  reshape,
  square,
  sub,
  swap,
  type Tensor,
  tanh,
  tensor,
  valueAndGrad,
  zeros,
} from '../../core/index.ts';
import { numbers } from '../support/gradcheck.ts';

const cpu = cpuBackend();
const wasm = wasmBackend();
afterAll(() => wasm.close());
const both: [string, Backend][] = [
  ['cpu', cpu],
  ['wasm', wasm],
];

describe('the cache of programs', () => {
  test('new values run the same program, new shapes or structure another', async () => {
    const f = compile((p: { readonly w: readonly Tensor[] }, x: Tensor) => add(mul(p.w[0]!, x), p.w.length), {
      backend: cpu,
    });
    const one = (w: number, x: number[]) => f({ w: [tensor(w)] }, tensor(x));
    expect(await numbers(one(2, [1, 2]))).toEqual([3, 5]);
    expect(await numbers(one(3, [4, 5]))).toEqual([13, 16]);
    expect(f.programs).toBe(1);
    one(1, [1, 2, 3]);
    expect(f.programs).toBe(2);
    expect(await numbers(f({ w: [tensor(1), tensor(1)] }, tensor([1, 2])))).toEqual([3, 4]);
    expect(f.programs).toBe(3);
  });

  test.each([
    ['numbers', 1, 2],
    ['0 and −0', 0, -0],
    ['a number and its text', 1, '1'],
    ['texts with spaces and quotes', 'a" "b', 'a'],
    ['true and "true"', true, 'true'],
    ['null and undefined', null, undefined],
    [
      'functions of one text',
      (
        (k) => () =>
          k
      )(1),
      (
        (k) => () =>
          k
      )(2),
    ],
    ['objects that are no records', new Map([[1, 2]]), new Map([[1, 3]])],
  ])('static values tell programs apart: %s', async (_name, a: unknown, b: unknown) => {
    const seen: unknown[] = [];
    const f = compile<[x: Tensor, value: unknown, more: unknown], Tensor>(
      (x, value) => {
        seen.push(value);
        return neg(x);
      },
      { backend: cpu },
    );
    for (const v of [a, b, a, b]) f(tensor([1]), v, 'end');
    expect(seen).toEqual([a, b]);
  });

  test('two texts are not one text that holds both', () => {
    const f = compile((x: Tensor, _a: string, _b: string) => neg(x), { backend: cpu });
    f(tensor([1]), 'a', 'b c');
    f(tensor([1]), 'a b', 'c');
    f(tensor([1]), 'a" "b', 'c');
    expect(f.programs).toBe(3);
  });

  test('plain values in a result stay plain, also those that could be positions', () => {
    const f = compile((x: Tensor) => ({ n: 0, y: neg(x), one: 1, list: [1, exp(x)] as const, text: 'a' }), {
      backend: cpu,
    });
    const { n, one, list, text } = f(tensor([1]));
    expect([n, one, list[0], text]).toEqual([0, 1, 1, 'a']);
  });

  test('captured tensors keep their values; the trace sees arguments as recipes', async () => {
    const c = tensor([10, 20]);
    const f = compile((x: Tensor) => mul(x, c), { backend: cpu });
    expect(await numbers(f(tensor([1, 2])))).toEqual([10, 40]);
    let leaked: Tensor | undefined;
    compile(
      (x: Tensor) => {
        leaked = x;
        return neg(x);
      },
      { backend: cpu },
    )(tensor([1]));
    await expect(read(leaked!)).rejects.toThrow(/is a recipe, not a value/);
    expect(() => evaluate(neg(leaked!), cpu)).toThrow(/let an argument of another trace escape/);
  });

  test('trim forgets programs, the last used stay', () => {
    const f = compile((x: Tensor) => neg(x), { backend: cpu });
    for (const n of [1, 2, 3]) f(zeros1(n));
    f.trim(1);
    expect(f.programs).toBe(1);
    f(zeros1(3));
    expect(f.programs).toBe(1);
  });
  const zeros1 = (n: number) => tensor(new Float32Array(n));

  test('inspect and profile show the program that would run', async () => {
    const f = compile((x: Tensor) => mean(exp(x)), { backend: cpu, name: 'mean of exp' });
    const { kernels } = f.inspect(tensor([1, 2]));
    expect(kernels.map((k) => k.name)).toContain('exp');
    expect(await numbers(await f.profile(tensor([0, 0])))).toEqual([1]);
    expect(f.inspect(tensor([1, 2])).kernels.every((k) => (k.ms ?? -1) >= 0)).toBe(true);
    expect(f.programs).toBe(1);
  });
});

describe.each(both)('results and donation on %s', (_name, backend) => {
  test('a result shares no storage with arguments or other results', async () => {
    const x = evaluate(tensor([1, 2, 3, 4], [2, 2]), backend);
    const f = compile((a: Tensor) => ({ same: a, view: swap(a), twice: a, sum: add(a, a) }), { backend });
    const r = f(x);
    const over = compile((a: Tensor) => mul(a, 0), { backend, donate: [0] });
    over(r.same);
    expect(await numbers(r.twice, backend)).toEqual([1, 2, 3, 4]);
    expect(await numbers(r.view, backend)).toEqual([1, 3, 2, 4]);
    expect(await numbers(x, backend)).toEqual([1, 2, 3, 4]);
  });

  test('a donated argument is gone; the message names step and tensor', async () => {
    const step = compile((s: { readonly w: Tensor }, g: Tensor) => ({ w: sub(s.w, g) }), {
      backend,
      donate: [0],
      name: 'update',
    });
    const state = { w: tensor([1, 2], [2], 'f32', 'unet.w') };
    const next = step(state, tensor([0.5, 0.5]));
    expect(await numbers(next.w, backend)).toEqual([0.5, 1.5]);
    expect(() => step(state, tensor([0, 0]))).toThrow(
      new DonatedError("unet.w was given to update; use that call's result instead"),
    );
    await expect(read(state.w)).rejects.toThrow(DonatedError);
    expect(() => evaluate(neg(state.w), backend)).toThrow(DonatedError);
  });

  test('a donated tensor may not stand anywhere else: as another argument, twice in its tree, or captured', async () => {
    const step = compile((s: readonly Tensor[], x: Tensor) => [mul(s[0]!, 2), add(s[1]!, x)], {
      backend,
      donate: [0],
      name: 'double',
    });
    const [a, b] = [tensor([1, 2]), tensor([3, 4])];
    const refused = /^double: 0 is donated and stands at another place too$/;
    expect(() => step([a, b], a)).toThrow(refused);
    expect(() => step([a, a], b)).toThrow(refused);
    const inner = compile((s: readonly Tensor[]) => [mul(s[0]!, a)], { backend, donate: [0], name: 'double' });
    expect(() => inner([a])).toThrow(refused);
    // refused before anything was taken
    const [p, q] = step([a, b], tensor([1, 1]));
    expect([await numbers(p!, backend), await numbers(q!, backend)]).toEqual([
      [2, 4],
      [4, 5],
    ]);
  });

  test('1,000 steps with donated state: live bytes stand still', async () => {
    const step = compile(
      (s: { readonly w: Tensor; readonly m: Tensor }, x: Tensor) => {
        const [loss, g] = valueAndGrad((w: Tensor) => mean(square(sub(tanh(mul(w, x)), 0.5))))(s.w);
        const m = add(mul(s.m, 0.9), g);
        return { state: { w: sub(s.w, mul(m, 0.01)), m }, loss };
      },
      { backend, donate: [0] },
    );
    setFlagsFromString('--expose-gc');
    const gc = runInNewContext('gc') as () => void;
    let state = evaluate({ w: zeros([64]), m: zeros([64]) }, backend);
    const x = place(tensor(Float32Array.from({ length: 64 }, (_, i) => i / 64)), backend);
    const live: number[] = [];
    let loss: Tensor | undefined;
    for (let k = 0; k < 1000; k++) {
      const r = step(state, x);
      [state, loss] = [r.state, r.loss];
      if (k % 250 !== 249) continue;
      // finalizers of the losses run in a task of their own
      for (let i = 0; i < 3; i++) {
        gc();
        await new Promise((done) => setTimeout(done, 5));
      }
      live.push(backend.memory().liveBytes);
    }
    expect((await read(loss!))[0]).toBeLessThan(0.25);
    // a leak of one loss a step would be 3,000 bytes; the last few losses may still wait for their finalizer
    expect(Math.max(...live), live.join()).toBeLessThanOrEqual(live[0]! + 40);
  });
});

test('placed tensors live on their backend only', async () => {
  const x = place(tensor([1, 2]), wasm);
  expect(await numbers(neg(x), wasm)).toEqual([-1, -2]);
  expect(() => evaluate(neg(x), cpu)).toThrow(
    new CoreError('this tensor lives on another backend: read it and make a new one, or call place'),
  );
  expect(Array.from(await read(x))).toEqual([1, 2]);
  // one that is still on the host goes to both
  const y = tensor([3]);
  expect([await numbers(neg(y), wasm), await numbers(neg(y), cpu)]).toEqual([[-3], [-3]]);
});

test('values, shapes and dtypes of tensor()', async () => {
  expect(() => tensor([1, 2, 3], [2, 2])).toThrow(new CoreError('tensor: 3 values do not fill [2, 2]'));
  expect([tensor(5).shape, tensor([1, 2]).shape, tensor([]).shape]).toEqual([[], [2], [0]]);
  expect([tensor(Int32Array.of(1)).dtype, tensor(new Float64Array(1)).dtype, tensor([1]).dtype]).toEqual([
    'i32',
    'f64',
    'f32',
  ]);
  expect(await numbers(tensor([1, 0, 2], [3], 'bool'))).toEqual([1, 0, 2]);
  expect(await numbers(reshape(tensor([1, 2, 3, 4]), [2, -1]))).toEqual([1, 2, 3, 4]);
});
