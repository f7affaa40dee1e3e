/** Programs of the WASM backend plan once: tensors that lie elsewhere at every call, small or large, only move addresses. */
import { expect, test, vi } from 'vitest';
import { wasmBackend } from '../../../core/backends/wasm/index.ts';
import { kernels } from '../../../core/backends/wasm/kernels.ts';
import { add, compile, dot, evaluate, mul, read, reshape, sum, type Tensor, tensor } from '../../../core/index.ts';

type State = { readonly w: Tensor; readonly age: Tensor };

test('two states that take turns: right values, donated storages reused, planned once', async () => {
  const backend = wasmBackend({ threads: 1 });
  // w is updated in place; age is read after its successor is written, so that its storage is a new one every time
  const step = compile(
    ({ w, age }: State, x: Tensor): { readonly state: State; readonly y: Tensor } => {
      const next = add(age, 1);
      const y = reshape(dot(reshape(w, [1, 2, 2]), reshape(x, [1, 2, 1])), [2]);
      return { state: { w: add(mul(w, 2), sum(next)), age: next }, y: mul(y, sum(age)) };
    },
    { backend, donate: [0] },
  );
  const start = (w: number[], age: number): State =>
    evaluate({ w: mul(tensor(w, [2, 2]), 1), age: add(tensor([age]), 0) }, backend);
  const states = [start([1, 2, 3, 4], 1), start([5, 6, 7, 8], 10)];
  const expected = [
    { w: [1, 2, 3, 4], age: 1 },
    { w: [5, 6, 7, 8], age: 10 },
  ];
  const planned = vi.spyOn(kernels.get('dot')!, 'plan');
  const storages: number[] = [];
  // held, so that no storage is given back meanwhile
  const held: Tensor[] = [];
  for (let i = 0; i < 10; i++) {
    const turn = i % 2;
    const e = expected[turn]!;
    const x = tensor([i, 1]);
    const done = step(states[turn]!, x);
    held.push(x, done.y);
    states[turn] = done.state;
    const y = [e.w[0]! * i + e.w[1]!, e.w[2]! * i + e.w[3]!].map((v) => v * e.age);
    expected[turn] = { w: e.w.map((v) => 2 * v + e.age + 1), age: e.age + 1 };
    expect([...(await read(done.y))]).toEqual(y);
    expect([...(await read(done.state.w))]).toEqual(expected[turn].w);
    expect([...(await read(done.state.age))]).toEqual([expected[turn].age]);
    storages.push(backend.memory().storages);
  }
  expect(planned).toHaveBeenCalledTimes(1);
  planned.mockRestore();
  // y and x of each call are all that is new
  expect(storages.map((n, i) => n - (storages[i - 1] ?? n))).toEqual([0, ...Array<number>(9).fill(2)]);
  expect(held).toHaveLength(20);
  await backend.close();
});

test('a large input that lies elsewhere at every call: right values, no copy of it, nothing planned or compiled anew', async () => {
  const backend = wasmBackend({ threads: 1 });
  // more than 4 MiB, read by a product, by a cluster and by a copy
  const [rows, width] = [1100, 1000];
  const f = compile(
    (x: Tensor) =>
      [
        sum(mul(x, x)),
        dot(reshape(x, [1, rows, width]), tensor(new Float32Array(width).fill(1), [1, width, 1])),
      ] as const,
    { backend },
  );
  const planned = vi.spyOn(kernels.get('dot')!, 'plan');
  const held: Tensor[] = [];
  const live: number[] = [];
  for (const k of [1, 2, 3]) {
    const x = tensor(new Float32Array(rows * width).fill(k), [rows, width]);
    const [squares, sums] = f(x);
    held.push(x, squares, sums);
    expect((await read(squares))[0]).toBe(k * k * rows * width);
    expect(new Set(await read(sums))).toEqual(new Set([k * width]));
    live.push(backend.memory().liveBytes);
  }
  expect(planned).toHaveBeenCalledTimes(1);
  // each call adds its input and its results
  const each = (rows * width + rows + 1) * 4;
  expect([live[1]! - live[0]!, live[2]! - live[1]!]).toEqual([each, each]);
  expect(held).toHaveLength(9);
  planned.mockRestore();
  await backend.close();
});
