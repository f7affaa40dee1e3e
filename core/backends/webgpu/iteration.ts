/**
 * Iteration spaces in their simplest form: axes of size 1 dropped, axes that every operand walks without a jump merged.
 * Fewer axes mean less index arithmetic in the kernel and fewer different kernels.
 */
import type { Cluster } from '../../compile/scalar.ts';

export interface Axis {
  readonly size: number;
  /** step of each input along this axis, in elements */
  readonly strides: readonly number[];
  readonly reduced: boolean;
  /** the axis of the cluster whose coordinate some step reads, when there is one: such an axis is never merged */
  readonly iota?: number;
}

/** The axes of a cluster, outermost first. */
export const simplify = (cluster: Cluster): readonly Axis[] => {
  const { shape, inputs, steps, reduce } = cluster;
  const used = new Set(steps.flatMap((s) => (s.kind === 'iota' ? [s.axis] : [])));
  const axes: Axis[] = [];
  shape.forEach((size, axis) => {
    if (size === 1) return;
    const next: Axis = {
      size,
      strides: inputs.map((x) => x.strides[axis]!),
      reduced: reduce?.axes.includes(axis) ?? false,
      ...(used.has(axis) ? { iota: axis } : {}),
    };
    const last = axes[axes.length - 1];
    if (
      last &&
      last.iota === undefined &&
      next.iota === undefined &&
      last.reduced === next.reduced &&
      last.strides.every((s, i) => s === next.strides[i]! * size)
    )
      axes[axes.length - 1] = { ...next, size: last.size * size };
    else axes.push(next);
  });
  return axes;
};
