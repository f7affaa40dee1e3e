/** What a dot kernel is made for: sizes, and how each operand's rows lie in memory. */
import type { View } from '../../ir/view.ts';

/** Views of rank 3: a[g,m,k] and b[g,k,n]. */
export interface DotProblem {
  readonly a: View;
  readonly b: View;
}

/** How an operand's rows are read: four along k, four along its free axis (m or n), or one by one. */
export type Order = 'alongK' | 'alongFree' | 'single';

/** Strides by role: the group axis, the free axis (m of a, n of b), and k. */
export interface Side {
  readonly group: number;
  readonly free: number;
  readonly k: number;
  readonly offset: number;
  readonly order: Order;
}

const side = (v: View, free: 1 | 2): Side => {
  const stride = (axis: number) => (v.shape[axis] === 1 ? 0 : v.strides[axis]!);
  const [group, f, k] = [stride(0), stride(free), stride(3 - free)];
  const aligned = (...others: number[]) => others.every((s) => s % 4 === 0) && v.offset % 4 === 0;
  const order: Order =
    k === 1 && v.shape[3 - free]! % 4 === 0 && aligned(group, f)
      ? 'alongK'
      : f === 1 && v.shape[free]! % 4 === 0 && aligned(group, k)
        ? 'alongFree'
        : 'single';
  return { group, free: f, k, offset: v.offset, order };
};

export interface DotSizes {
  readonly g: number;
  readonly m: number;
  readonly k: number;
  readonly n: number;
}
export interface DotPlan extends DotSizes {
  readonly left: Side;
  readonly right: Side;
}

export const planDot = ({ a, b }: DotProblem): DotPlan => {
  const [g, m, k] = a.shape as readonly [number, number, number];
  return { g, m, k, n: b.shape[2]!, left: side(a, 1), right: side(b, 2) };
};
