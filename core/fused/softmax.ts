import { axisOf, checkDtypes } from '../ir/rules.ts';
import { type Attrs, bind, type Composite, type Tensor } from '../ir/tensor.ts';
import { div, exp, mul, sub } from '../ops/math.ts';
import { max, sum } from '../ops/reduce.ts';

/**
 * softmax over the last axis     x[…, n] → y[…, n], rows sum to 1. The maximum is taken off first, so ±1e4 is safe.
 * A row of −∞ only is NaN.
 * vjp  dx = y·(g − Σ g·y): needs only the output.
 */
export const softmaxOp: Composite<Attrs> = {
  kind: 'composite',
  name: 'softmax',
  doc: 'normalised exponentials over the last axis',
  formula: 'y = e^(x − max x) / Σ e^(x − max x)',
  shape(inputs) {
    checkDtypes('softmax', inputs, 'float');
    axisOf('softmax', inputs, -1);
    return { shape: inputs[0]!.shape, dtype: inputs[0]!.dtype };
  },
  body([x]) {
    const e = exp(sub(x!, max(x!, -1, true)));
    return [div(e, sum(e, -1, true))];
  },
  vjp: ([g], _x, _attrs, [y]) => [mul(y!, sub(g!, sum(mul(g!, y!), -1, true)))],
  batch: (_size, [x]) => [softmax(x!)],
  flops: ([x]) => 5 * x!.shape.reduce((p, n) => p * n, 1),
  sample: (pick) => ({ operands: [{ shape: [pick(1, 3), pick(1, 5)] }], attrs: {} }),
};
/** `softmax(x[2,5])` → [2,5]: normalised exponentials over the last axis. Cost: about five passes over x where no kernel fuses it. */
export const softmax = (x: Tensor): Tensor => bind(softmaxOp, [x], {});
