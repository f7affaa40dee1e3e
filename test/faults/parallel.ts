/** Wrong orders of the sums that several processes make: what holds N of them to the bits of one. */
import type { Check, Fault } from './fault.ts';

const bits: Check = { file: 'test/train/parallel/means.test.ts', only: 'to the bit' };
const fault = (find: string, replace: string, why: string): Fault => ({
  file: 'train/parallel/means.ts',
  find,
  replace,
  why,
  checks: [bits],
});

export const parallel: readonly Fault[] = [
  fault(
    'tensor(got[i % peers.size]!',
    'tensor(got[(i + peers.rank) % peers.size]!',
    'as they arrive: what is nearest first',
  ),
  fault('tensor(got[i % peers.size]!', 'tensor(got[(batches.length - 1 - i) % peers.size]!', 'the last one first'),
  fault('tensor(1 / (i + 1), [])', 'tensor(1 / peers.size, [])', 'the same share for each'),
  fault('Math.min(k * size + rank, count - 1)', 'Math.min(rank * Math.ceil(count / size) + k, count - 1)', 'in blocks'),
];
