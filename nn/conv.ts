import { add, asFloat, conv, dot, mul, ones, reshape, ShapeError, square, type Tensor } from '../core/index.ts';
import { type Look, type LowRank, looked } from './linear.ts';
import { fanIn, Param } from './spec.ts';

/** Kernel [kh, kw, in, out] (checkpoints: [out, in, kh, kw]), bias [out]. */
export type Conv<T = Tensor> = {
  /** [kh, kw, in, out] */
  readonly weight: T;
  /** [out] */
  readonly bias: T;
};

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

/** A convolution with or without adapter: A a kernel [kh, kw, in, r] of the same size, B [r, out]. */
export type AdaptedConv = {
  /** [kh, kw, in, out] */
  readonly weight: Tensor;
  /** [out] */
  readonly bias?: Tensor;
  /** what is added to the weight */
  readonly adapter?: LowRank;
  /** what measures its input in a backward pass */
  readonly look?: Look;
};

/**
 * x[n, h, w, in] → x∗W + b + scale·(x∗A)·B  [n, h', w', out]; by default stride 1 and padding that keeps the size.
 * A 1×1 kernel is a `dot`. The low-rank term (LoCon) never forms ΔW = scale·A·B.
 * @throws ShapeError. cost 2·n·h'·w'·kh·kw·in·out (+ 2·n·h'·w'·r·(kh·kw·in + out)) flop
 */
export function conv2d(
  p: AdaptedConv,
  input: Tensor,
  {
    stride = 1,
    padding = Math.floor(p.weight.shape[0]! / 2),
    groups = 1,
  }: { stride?: number; padding?: Padding; groups?: number } = {},
): Tensor {
  const [kh, kw, inputs, outputs] = p.weight.shape as [number, number, number, number];
  const [n, h, w] = input.shape as [number, number, number];
  const weight = asFloat(p.weight);
  const how = { stride, padding, groups };
  const x = p.look
    ? looked(
        input,
        p.look,
        (y, Q) => conv2d({ weight: Q }, y, how),
        (y) => patches(y, kh, kw, how),
      )
    : input;
  const bias = (y: Tensor): Tensor => (p.bias ? add(y, p.bias) : y);
  const adapted = (y: Tensor): Tensor => (p.adapter ? add(y, lowRank(p.adapter, x, p.weight.shape, how)) : y);
  if (kh === 1 && kw === 1 && stride === 1 && padding === 0 && groups === 1) {
    const rows = reshape(x, [1, n * h * w, x.shape[3]!]);
    return adapted(reshape(bias(dot(rows, reshape(weight, [1, inputs, outputs]))), [n, h, w, outputs]));
  }
  const sides = [padding, padding] as const;
  const pad =
    typeof padding === 'number'
      ? ([sides as readonly [number, number], sides as readonly [number, number]] as const)
      : padding;
  return adapted(bias(conv(x, weight, { stride: [stride, stride], pad, groups })));
}

/** The sum of squares of what a kernel sees at every place of its output. */
const patches = (
  x: Tensor,
  kh: number,
  kw: number,
  how: { readonly stride: number; readonly padding: Padding },
): Tensor => conv2d({ weight: ones([kh, kw, x.shape[3]!, 1], x.dtype) }, square(x), how);

/** scale·(x∗A)·B: the kernel of few channels first, then every pixel by itself. */
function lowRank(
  { A, B, scale }: LowRank,
  x: Tensor,
  [kh, kw, inputs, outputs]: readonly number[],
  { groups, ...how }: { readonly stride: number; readonly padding: Padding; readonly groups: number },
): Tensor {
  const rank = B.shape[0]!;
  if (groups !== 1 || A.shape.join() !== [kh, kw, inputs, rank].join() || B.shape.join() !== [rank, outputs].join())
    throw new ShapeError(
      `conv2d: adapter A[${A.shape.join(', ')}], B[${B.shape.join(', ')}] for a kernel ` +
        `[${kh}, ${kw}, ${inputs}, ${outputs}] in ${groups} groups; expected A[kh, kw, in, r], B[r, out] and one group`,
    );
  const narrow = mul(conv2d({ weight: A }, x, how), scale);
  const [n, h, w] = narrow.shape as [number, number, number];
  const wide = dot(reshape(narrow, [1, n * h * w, rank]), reshape(B, [1, rank, outputs!]));
  return reshape(wide, [n, h, w, outputs!]);
}
