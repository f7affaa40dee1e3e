/** Tensors as they travel between the page and its worker: plain numbers with their shape. */
import { type Backend, type DType, evaluate, read, type Shape, type Tensor, tensor } from '../../../core/index.ts';

/** A tensor's values. */
export interface Numbers {
  readonly shape: Shape;
  readonly dtype: DType;
  readonly values: readonly number[];
}

/** The values of tensors, computed on a backend in one program. */
export async function numbersOf(tensors: readonly Tensor[], backend: Backend): Promise<readonly Numbers[]> {
  const done = evaluate([...tensors], backend);
  return Promise.all(
    done.map(async (t) => ({ shape: t.shape, dtype: t.dtype, values: Array.from(await read(t), Number) })),
  );
}
/** @throws CoreError when there are more or fewer values than the shape holds */
export const tensorOf = ({ values, shape, dtype }: Numbers): Tensor => tensor([...values], shape, dtype);
