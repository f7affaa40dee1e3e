/** The kernels of `norm`, its derivative and softmax: rows, or pictures in strips. */
import { isRows, type NormAttrs, type NormGradAttrs } from '../../../fused/norm.ts';
import type { WasmKernel } from '../kernel.ts';
import { pictureNorm, pictureNormGrad } from './pictureNorms.ts';
import { rowNorm, rowNormGrad, softmax } from './rowNorms.ts';

const norm: WasmKernel<NormAttrs> = {
  strided: [],
  partial: true,
  work: (call) => (isRows(call.inputs[0]!.view.shape, call.attrs) ? rowNorm(call) : pictureNorm(call)),
};
const normGrad: WasmKernel<NormGradAttrs> = {
  strided: [],
  partial: true,
  work: (call) => (isRows(call.inputs[1]!.view.shape, call.attrs) ? rowNormGrad(call) : pictureNormGrad(call)),
};
export const normKernels = { norm, normGrad, softmax };
