import {
  add,
  asFloat,
  customVjp,
  dot,
  grad,
  mul,
  reshape,
  ShapeError,
  square,
  sum,
  swap,
  type Tensor,
} from '../core/index.ts';
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

/** What looks at a layer's input X[rows, in] and changes nothing: the derivatives by it are measurements, whatever the loss. */
export type Look = {
  /** [in, q], of a convolution [kh, kw, in, q]; the derivative is XᵀX·Q */
  readonly Q: Tensor;
  /** a scalar; the derivative is ‖X‖²_F */
  readonly total: Tensor;
};

/** A linear layer with or without adapter. Every `Linear` is one, so models need not know about adapters. */
export type AdaptedLinear = Linear & {
  /** what is added to the weight */
  readonly adapter?: LowRank;
  /** what measures its input in a backward pass */
  readonly look?: Look;
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
  const plain = reshape(x, [1, x.shape.slice(0, -1).reduce((n, side) => n * side, 1), inputs]);
  const rows = p.look ? looked(plain, p.look, timesMatrix, square) : plain;
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

/** x[1, rows, in]·Q[in, q] */
const timesMatrix = (x: Tensor, Q: Tensor): Tensor => dot(x, reshape(Q, [1, ...Q.shape]));

/**
 * x as it is. `times` is X·Q as the layer would take Q for a weight, `squares` has ‖X‖² for its sum; X has a row for every
 * place of the output.
 */
export function looked(
  x: Tensor,
  { Q, total }: Look,
  times: (x: Tensor, Q: Tensor) => Tensor,
  squares: (x: Tensor) => Tensor,
): Tensor {
  const look = customVjp(
    (input: Tensor, by: Tensor, _total: Tensor) => [input, { input, by }] as const,
    ({ input, by }: { readonly input: Tensor; readonly by: Tensor }, g: Tensor): [Tensor, Tensor, Tensor] => [
      g,
      // ½‖X·Q‖² has the derivative XᵀX·Q
      grad((q: Tensor) => mul(sum(square(times(input, q))), 0.5))(by),
      sum(squares(input)),
    ],
  );
  return look(x, Q, total);
}
