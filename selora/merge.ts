/** W' = W0 + s·(A·B)ᵀ as new trees, and back. Weights are PyTorch's [d_out, d_in]. */
import { add, dot, mul, reshape, sqrt, sub, sum, swap, type Tensor, type Tree } from '../core/index.ts';
import type { Adapter, Adapters } from './adapter.ts';
import { updateAt } from './attach.ts';

/** ΔW[d_out, d_in] = s·(A·B)ᵀ */
export function deltaWeight({ A, B }: Adapter, scale: number): Tensor {
  const product = dot(reshape(A, [1, ...A.shape]), reshape(B, [1, ...B.shape]));
  return swap(mul(reshape(product, [A.shape[0]!, B.shape[1]!]), scale));
}
type Linear = { readonly weight: Tensor };

/** Adds every adapter into its weight; the result needs no adapter. */
export function merge<P extends Tree<Tensor>>(base: P, adapters: Adapters, scale: number): P {
  let out = base;
  for (const [path, a] of Object.entries(adapters))
    out = updateAt(out, path, (node) => ({
      ...(node as Linear),
      weight: add((node as Linear).weight, deltaWeight(a, scale)),
    }));
  return out;
}
/** Takes the adapters out again: `unmerge(merge(base, a, s), a, s)` equals base up to one rounding per entry. */
export function unmerge<P extends Tree<Tensor>>(merged: P, adapters: Adapters, scale: number): P {
  let out = merged;
  for (const [path, a] of Object.entries(adapters))
    out = updateAt(out, path, (node) => ({
      ...(node as Linear),
      weight: sub((node as Linear).weight, deltaWeight(a, scale)),
    }));
  return out;
}
/** ‖ΔW‖_F and ‖W‖_F of one module: how much it was changed. */
export const changeNorms = (
  weight: Tensor,
  a: Adapter,
  scale: number,
): { readonly delta: Tensor; readonly weight: Tensor } => {
  const d = deltaWeight(a, scale);
  return { delta: sqrt(sum(mul(d, d))), weight: sqrt(sum(mul(weight, weight))) };
};
