/** Ranks padded with zeros to a capacity, so that a grown rank keeps a program's shapes. Only compiled steps see padded trees. */
import { concat, type Tensor, type Tree, unflatten, zeros } from '../core/index.ts';
import { type Fields, mapFields, type Params } from './methods/method.ts';

/** Zeros along the axis that counts ranks, up to a capacity. Exact: a rank that is zero everywhere stays so. */
export const padParams = <P extends Params>(p: P, fields: Fields, capacity: number): P =>
  unflatten(
    p,
    mapFields((x: Tensor, { axis }) => padAxis(x, axis, capacity), p as Tree<Tensor>, fields),
  );

/** Zeros behind an axis, up to so many places; null: as it is. */
export function padAxis(x: Tensor, axis: number | null, capacity: number): Tensor {
  const room = axis === null ? 0 : capacity - x.shape[axis]!;
  if (room <= 0) return x;
  const shape = x.shape.map((side, i) => (i === axis ? room : side));
  return concat([x, zeros(shape, x.dtype)], axis!);
}
