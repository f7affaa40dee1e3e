/** W' = W0 + s·(A·B)ᵀ as new trees, and back. Weights are PyTorch's [d_out, d_in], kernels [kh, kw, in, out]. */
import {
  add,
  asFloat,
  dot,
  mul,
  permute,
  reshape,
  sqrt,
  square,
  sub,
  sum,
  swap,
  type Tensor,
  type Tree,
} from '../core/index.ts';
import type { Adapter, Adapters } from './adapter.ts';
import { type AdaptedModule, updateLayers } from './attach.ts';

/** ΔW[d_out, d_in] = s·(A·B)ᵀ */
export function deltaWeight({ A, B }: Adapter, scale: number): Tensor {
  const product = dot(reshape(A, [1, ...A.shape]), reshape(B, [1, ...B.shape]));
  return swap(mul(reshape(product, [A.shape[0]!, B.shape[1]!]), scale));
}

/** ΔW in the order of axes of the layer's own weight. */
function changeOf({ weight: { shape } }: AdaptedModule, a: Adapter, scale: number): Tensor {
  const delta = deltaWeight(a, scale);
  if (shape.length !== 4) return delta;
  const [kh, kw, inputs, outputs] = shape as [number, number, number, number];
  return permute(reshape(delta, [outputs, inputs, kh, kw]), [2, 3, 1, 0]);
}

/**
 * Adds every adapter into its weight: W' = W + s·(A·B)ᵀ. The result needs no adapter.
 * @throws RangeError naming the path: no such module, neither a linear layer nor a convolution, or one of another size
 */
export const merge = <P extends Tree<Tensor>>(base: P, adapters: Adapters, scale: number): P =>
  updateLayers(base, adapters, (module, a) => ({
    ...module,
    weight: add(asFloat(module.weight), changeOf(module, a, scale)),
  }));

/** Takes the adapters out again: `unmerge(merge(base, a, s), a, s)` equals base up to two roundings per entry. */
export const unmerge = <P extends Tree<Tensor>>(merged: P, adapters: Adapters, scale: number): P =>
  updateLayers(merged, adapters, (module, a) => ({
    ...module,
    weight: sub(asFloat(module.weight), changeOf(module, a, scale)),
  }));

/** ‖ΔW‖_F and ‖W‖_F of one module: how much it was changed. */
export const changeNorms = (
  weight: Tensor,
  a: Adapter,
  scale: number,
): { readonly delta: Tensor; readonly weight: Tensor } => {
  const d = deltaWeight(a, scale);
  return { delta: sqrt(sum(mul(d, d))), weight: sqrt(sum(square(asFloat(weight)))) };
};
