/** Ranks in another order, some of them gone: a product with a matrix of zeros and ones, which is exact. */
import { dot, reshape, swap, type Tensor, tensor } from '../../core/index.ts';
import type { Adapter } from '../adapter.ts';
import type { Slot } from './method.ts';

/** X[n, k]·Y[k, m] */
export const product = (x: Tensor, y: Tensor): Tensor =>
  reshape(dot(reshape(x, [1, ...x.shape]), reshape(y, [1, ...y.shape])), [x.shape[0]!, y.shape[1]!]);

/** [room, room]: the row of each of `before` ranks has a 1 where it goes to when those lost are gone, or zeros */
export function orderOf(before: number, lost: readonly number[], room: number): Tensor {
  const order = new Float32Array(room * room);
  const stay = Array.from({ length: before }, (_, r) => r).filter((r) => !lost.includes(r));
  for (const [to, from] of stay.entries()) order[from * room + to] = 1;
  return tensor(order, [room, room]);
}
/** a number for every rank [room] in the new order */
export const inOrder = (x: Tensor, order: Tensor): Tensor =>
  reshape(product(reshape(x, [1, x.shape[0]!]), order), x.shape);
/** columns of A and rows of B in the new order */
export const pairInOrder = ({ A, B }: Adapter, order: Tensor): Adapter => ({
  A: product(A, order),
  B: product(swap(order), B),
});
/** The same with moments and ages. */
export const reordered = ({ p, m, v, age }: Slot<Adapter>, order: Tensor): Slot<Adapter> => ({
  p: pairInOrder(p, order),
  m: pairInOrder(m, order),
  v: pairInOrder(v, order),
  age: inOrder(age, order),
});
