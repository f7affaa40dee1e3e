/** A toy criterion: how many numbers a rank has, d_in in its column of A and d_out in its row of B. */
import { add, sum, zeros } from '../../../core/index.ts';
import type { Adapter } from '../../../selora/adapter.ts';
import type { Criterion } from '../../../selora/criteria/criterion.ts';

const scores = ({ A, B }: Adapter) => ({
  a: sum(add(zeros(A.shape), 1), 0),
  b: sum(add(zeros(B.shape), 1), 1),
});

export const toy: Criterion = { name: 'toy', perSample: { scores }, batch: { scores } };
