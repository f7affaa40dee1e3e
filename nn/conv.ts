import { add, asFloat, conv, dot, reshape, type Tensor } from '../core/index.ts';
import { fanIn, Param } from './spec.ts';

/** Kernel [kh, kw, in, out] (checkpoints: [out, in, kh, kw]), bias [out]. */
export type Conv<T = Tensor> = { readonly weight: T; readonly bias: T };

/** Zeros around the picture: [[top, bottom], [left, right]], or the same on all sides. */
export type Padding = number | readonly [readonly [number, number], readonly [number, number]];

/** Specification of a convolution with a square kernel. */
export function convSpec(inputs: number, outputs: number, size: number): Conv<Param> {
  const init = fanIn(inputs * size * size);
  return {
    weight: new Param('conv', [outputs, inputs, size, size], init),
    bias: new Param('conv', [outputs], init),
  };
}

/**
 * x[n, h, w, in] → [n, h', w', out]; by default stride 1 and padding that keeps the size. A 1×1 kernel is a `dot`.
 * @throws ShapeError. cost 2·n·h'·w'·kh·kw·in·out flop
 */
export function conv2d(
  p: { readonly weight: Tensor; readonly bias?: Tensor },
  x: Tensor,
  {
    stride = 1,
    padding = Math.floor(p.weight.shape[0]! / 2),
    groups = 1,
  }: { stride?: number; padding?: Padding; groups?: number } = {},
): Tensor {
  const [kh, kw, inputs, outputs] = p.weight.shape as [number, number, number, number];
  const [n, h, w] = x.shape as [number, number, number];
  const weight = asFloat(p.weight);
  const bias = (y: Tensor): Tensor => (p.bias ? add(y, p.bias) : y);
  if (kh === 1 && kw === 1 && stride === 1 && padding === 0 && groups === 1) {
    const rows = reshape(x, [1, n * h * w, x.shape[3]!]);
    return reshape(bias(dot(rows, reshape(weight, [1, inputs, outputs]))), [n, h, w, outputs]);
  }
  const sides = [padding, padding] as const;
  const pad =
    typeof padding === 'number'
      ? ([sides as readonly [number, number], sides as readonly [number, number]] as const)
      : padding;
  return bias(conv(x, weight, { stride: [stride, stride], pad, groups }));
}
