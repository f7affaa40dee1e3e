/** Plans are kept by what they depend on: kernels alike but for one number are not taken for each other. */
import { afterAll, expect, test, vi } from 'vitest';
import { wasmBackend } from '../../../core/backends/wasm/index.ts';
import { kernels } from '../../../core/backends/wasm/kernels.ts';
import { dot, evaluate, mul, pad, read, type Tensor, tensor } from '../../../core/index.ts';

const backend = wasmBackend({ threads: 1 });
afterAll(() => backend.close());
const values = async (t: Tensor): Promise<number[]> => [...(await read(evaluate(t, backend)))];

test('constants: 0 is not −0, NaN is no infinity, in attributes and in clusters', async () => {
  for (const value of [0, -0, Number.NaN, Infinity, -Infinity, 0, 1.5]) {
    const [low, , high] = await values(pad(tensor([2]), [[1, 1]], value));
    expect([low, high]).toEqual([value, value]);
    const product = await values(mul(tensor([-3, 4]), value));
    expect(product).toEqual([-3 * value, 4 * value]);
  }
});

test('products of the same shapes are planned once, others by themselves, in this program and in later ones', async () => {
  const planned = vi.spyOn(kernels.get('dot')!, 'plan');
  const [a, b] = [tensor([[[1, 2]]]), tensor([[[3], [4]]])];
  expect(await values(mul(dot(a, b), dot(mul(a, 2), b)))).toEqual([11 * 22]);
  expect(planned).toHaveBeenCalledTimes(1);
  expect(await values(dot(mul(a, 3), b))).toEqual([33]);
  expect(planned).toHaveBeenCalledTimes(1);
  expect(await values(dot(b, a))).toEqual([3, 6, 4, 8]);
  expect(planned).toHaveBeenCalledTimes(2);
});
