/** What the derivative of parts costs: one concat where each part counts, a pad where one does. */
import { expect, it } from 'vitest';
import { cpuBackend, evaluate, grad, mul, read, split, sum, type Tensor, tensor } from '../../core/index.ts';
import { topo } from '../../core/ir/tensor.ts';

const x = tensor([1, 2, 3, 4, 5, 6], [2, 3]);
const opsOf = (y: Tensor): readonly string[] => topo([y]).map(({ op }) => op.name);

it('lays the cotangents of all parts side by side', async () => {
  const dx = grad((t: Tensor) => {
    const [a, b] = split(t, [1], 1) as [Tensor, Tensor];
    return sum(mul(a, b));
  })(x);
  expect(opsOf(dx)).toContain('concat');
  expect(opsOf(dx)).not.toContain('pad');
  expect([...(await read(evaluate([dx], cpuBackend())[0]!))]).toEqual([5, 1, 1, 11, 4, 4]);
});

it('pads the cotangent of the only part that counts', async () => {
  const dx = grad((t: Tensor) => sum(split(t, 3, 1)[1]!))(x);
  expect(opsOf(dx)).toContain('pad');
  expect(opsOf(dx)).not.toContain('concat');
  expect([...(await read(evaluate([dx], cpuBackend())[0]!))]).toEqual([0, 1, 0, 0, 1, 0]);
});
