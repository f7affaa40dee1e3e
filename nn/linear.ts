import { add, asFloat, dot, mul, reshape, ShapeError, swap, type Tensor } from '../core/index.ts';
import { fanIn, type Init, Param } from './spec.ts';

/** Weight [out, in] as PyTorch stores it, bias [out]. */
export type Linear<T = Tensor> = {
  /** [out, in] */
  readonly weight: T;
  /** [out] */
  readonly bias?: T;
};

/** A low-rank addition to a weight: ΔW = scale·(A·B)ᵀ with A [in, r] (of a convolution [kh, kw, in, r]), B [r, out]. */
export type LowRank = {
  /** [in, r], of a convolution [kh, kw, in, r] */
  readonly A: Tensor;
  /** [r, out] */
  readonly B: Tensor;
  /** a factor, the same for every rank */
  readonly scale: number | Tensor;
};

/** A linear layer with or without adapter. Every `Linear` is one, so models need not know about adapters. */
export type AdaptedLinear = Linear & {
  /** what is added to the weight */
  readonly adapter?: LowRank;
};

/** Specification of a linear layer; PyTorch's default start unless `init` says otherwise. */
export function linearSpec(
  inputs: number,
  outputs: number,
  {
    bias = true,
    init = fanIn(inputs),
    biasInit = fanIn(inputs),
  }: { bias?: boolean; init?: Init; biasInit?: Init } = {},
): Linear<Param> {
  const weight = new Param('linear', [outputs, inputs], init);
  return bias ? { weight, bias: new Param('linear', [outputs], biasInit) } : { weight };
}

/**
 * x[…, in] → x·Wᵀ + b + scale·(x·A)·B  [… , out]. The low-rank term never forms ΔW.
 * The weight is read transposed in place (a view).
 * @throws ShapeError when x has another number of features than the weight or the adapter takes
 * cost 2·rows·in·out (+ 2·rows·r·(in + out)) flop
 * @example linear({ weight, bias }, x)
 */
export function linear(p: AdaptedLinear, x: Tensor): Tensor {
  const [outputs, inputs] = p.weight.shape as [number, number];
  if (x.shape.at(-1) !== inputs)
    throw new ShapeError(`linear: x[${x.shape.join(', ')}] for ${p.weight.label ?? 'weight'}[${outputs}, ${inputs}]`);
  const rows = reshape(x, [1, x.shape.slice(0, -1).reduce((n, side) => n * side, 1), inputs]);
  let y = dot(rows, swap(reshape(asFloat(p.weight), [1, outputs, inputs])));
  if (p.bias) y = add(y, p.bias);
  if (p.adapter) y = add(y, lowRank(p.adapter, rows, inputs, outputs));
  return reshape(y, [...x.shape.slice(0, -1), outputs]);
}

/** scale·(x·A)·B of x[1, rows, in]; the scale goes to the narrow product, which has only r columns. */
function lowRank({ A, B, scale }: LowRank, x: Tensor, inputs: number, outputs: number): Tensor {
  const rank = A.shape[1]!;
  if (A.shape[0] !== inputs || B.shape[0] !== rank || B.shape[1] !== outputs)
    throw new ShapeError(
      `linear: adapter A[${A.shape.join(', ')}], B[${B.shape.join(', ')}] for a weight [${outputs}, ${inputs}]; ` +
        'expected A[in, r], B[r, out]',
    );
  const narrow = mul(dot(x, reshape(A, [1, inputs, rank])), scale);
  return dot(narrow, reshape(B, [1, rank, outputs]));
}
