/** take and takeAlong against numbers written out by hand, along every axis from either end. */
import { describe, expect, test } from 'vitest';
import { cpuBackend } from '../../core/backends/cpu/index.ts';
import { type Backend, evaluate, read, type Tensor, take, takeAlong, tensor } from '../../core/index.ts';

const cpu = cpuBackend() as Backend;
const numbers = async (t: Tensor) => [...(await read(evaluate(t, cpu)))];
const x = tensor([0, 1, 2, 10, 11, 12], [2, 3]);
const ids = (values: readonly number[], shape: readonly number[]) => tensor(Int32Array.from(values), shape);

describe.each([
  [0, -2],
  [1, -1],
])('axis %i, %i from the end', (axis, same) => {
  const picked = [
    [10, 11, 12, 0, 1, 2],
    [1, 0, 11, 10],
  ][axis]!;
  test.each([axis, same])('take %i', async (at) => {
    const y = take(x, ids([1, 0], [2]), at);
    expect(y.shape).toEqual(axis === 0 ? [2, 3] : [2, 2]);
    expect(await numbers(y)).toEqual(picked);
  });
  const [along, want] = [
    [ids([1, 0, 1], [1, 3]), [10, 1, 12]],
    [ids([2, 0], [2, 1]), [2, 10]],
  ][axis] as [Tensor, number[]];
  test.each([axis, same])('takeAlong %i', async (at) => {
    expect(await numbers(takeAlong(x, along, at))).toEqual(want);
  });
});
