/** dot: a contraction of two views. */
import type { Placed, WasmKernel } from '../kernel.ts';
import { gemm } from './gemm.ts';
import { packsStored, sourceOf } from './pack.ts';

const dot: WasmKernel = {
  strided: [true, true],
  // a weight, or its transpose
  widens: (operand, dtype, { shape: [, k, n], strides: [, row, column] }) =>
    operand === 1 && packsStored(dtype, n!, k!, column!, row!),
  plan: ({ machine, inputs: [a, b], outputs: [y], workspace }) => {
    const [groups, m, n] = y!.view.shape as [number, number, number];
    const operand = ({ at, view: { strides } }: Placed) => ({
      address: at,
      group: strides[0]!,
      row: strides[1]!,
      column: strides[2]!,
    });
    const c = { address: y!.at, row: n, group: m * n };
    return gemm(machine, {
      m,
      n,
      k: a!.view.shape[2]!,
      groups,
      a: operand(a!),
      b: operand(b!),
      fromB: sourceOf(b!),
      c,
      workspace,
    });
  },
};
export const productKernels = { dot };
