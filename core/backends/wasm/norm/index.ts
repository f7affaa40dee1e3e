/** The kernels of `norm`, its derivative and softmax: rows, or pictures in strips. */
import { isRows, type NormAttrs, type NormGradAttrs } from '../../../fused/norm.ts';
import type { WasmKernel } from '../kernel.ts';
import { pictureNorm, pictureNormGrad } from './pictureNorms.ts';
import { rowNorm, rowNormGrad, softmax } from './rowNorms.ts';

const norm: WasmKernel<NormAttrs> = {
  strided: [],
  partial: true,
  plan: (shapes) => (isRows(shapes.inputs[0]!.view.shape, shapes.attrs) ? rowNorm(shapes) : pictureNorm(shapes)),
};
const normGrad: WasmKernel<NormGradAttrs> = {
  strided: [],
  partial: true,
  plan: (shapes) =>
    isRows(shapes.inputs[1]!.view.shape, shapes.attrs) ? rowNormGrad(shapes) : pictureNormGrad(shapes),
};
export const normKernels = { norm, normGrad, softmax };
