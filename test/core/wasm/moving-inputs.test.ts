/** Programs of the WASM backend keep their commands when the tensors they are given lie elsewhere at every call. */
import { expect, test, vi } from 'vitest';
import { wasmBackend } from '../../../core/backends/wasm/index.ts';
import { kernels } from '../../../core/backends/wasm/kernels.ts';
import { add, compile, dot, evaluate, mul, read, reshape, sum, type Tensor, tensor } from '../../../core/index.ts';

type State = { readonly w: Tensor; readonly age: Tensor };

test('two states that take turns: right values, donated storages reused, commands written at most twice', async () => {
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
  const written = vi.spyOn(kernels.get('dot')!, 'work');
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
  expect(written.mock.calls.length).toBeLessThanOrEqual(2);
  // y and x of each call are all that is new
  expect(storages.map((n, i) => n - (storages[i - 1] ?? n))).toEqual([0, ...Array<number>(9).fill(2)]);
  expect(held).toHaveLength(20);
  await backend.close();
});
