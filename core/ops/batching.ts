/** What batching rules share: the samples of a mapped operand lie along axis 0. */
import type { Tensor } from '../ir/tensor.ts';
import { expandTo, reshape, unsqueezeFront } from './layout.ts';

/** x[…] → [size, …]: one operand for all samples, repeated by a view (stride 0). Cost: none. */
export const repeat = (x: Tensor, size: number): Tensor => expandTo(unsqueezeFront(x), [size, ...x.shape]);

/** Every operand with the samples along axis 0; those that are not mapped are repeated. */
export const mapAll = (size: number, inputs: readonly Tensor[], mapped: readonly boolean[]): Tensor[] =>
  inputs.map((x, i) => (mapped[i] ? x : repeat(x, size)));

/** x[size, n, …] → [size·n, …]: the samples become rows of an axis the op treats row by row. */
export const fold = (x: Tensor): Tensor => reshape(x, [x.shape[0]! * x.shape[1]!, ...x.shape.slice(2)]);

/** x[size·n, …] → [size, n, …]: the inverse of `fold`. */
export const unfold = (x: Tensor, size: number): Tensor => reshape(x, [size, x.shape[0]! / size, ...x.shape.slice(1)]);
