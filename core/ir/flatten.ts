/** Strided host arrays in row-major order, for reference kernels that read their operands straight through. */
import type { Nd } from './tensor.ts';

/** Row-major copy of a view (or the view's own data when it already is row-major). */
export function flatten(x: Nd): ArrayLike<number> {
  const n = x.size;
  const { shape, stride, data } = x;
  let step = 1;
  let dense = true;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && stride[i] !== step) dense = false;
    step *= shape[i]!;
  }
  if (dense) return x.offset === 0 && data.length === n ? data : data.subarray(x.offset, x.offset + n);
  const out = new (data.constructor as Float64ArrayConstructor)(n);
  const index = new Array<number>(shape.length).fill(0);
  let at = x.offset;
  for (let i = 0; i < n; i++) {
    out[i] = data[at]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += stride[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      at -= stride[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
  return out;
}
