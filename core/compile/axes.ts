/**
 * The iteration space of a cluster in as few axes as its strides allow: less index arithmetic in a kernel, and fewer
 * different kernels.
 */
import type { Cluster } from './scalar.ts';

export interface Axis {
  readonly size: number;
  /** elements from neighbour to neighbour, for each input */
  readonly strides: readonly number[];
  /** the same for the outputs; 0 where the axis is reduced */
  readonly out: number;
  readonly reduced: boolean;
  /** the axis of the cluster whose coordinate is read here */
  readonly iota?: number;
}

/** How an input moves along the inner axis: nowhere in the kernel, not along a row, to the neighbour, or by a stride. */
export type Access = 'scalar' | 'splat' | 'unit' | 'gather';

/** strides of the row-major result of a cluster, 0 on the reduced axes */
export const resultStrides = ({ shape, reduce }: Pick<Cluster, 'shape' | 'reduce'>): number[] => {
  let out = 1;
  const strides = shape.map(() => 0);
  for (let i = shape.length - 1; i >= 0; i--)
    if (!reduce?.axes.includes(i)) {
      strides[i] = out;
      out *= shape[i]!;
    }
  return strides;
};

/**
 * Drops axes of size 1 and merges neighbours that every input and output walks in one go. Axes whose coordinate is read
 * stay apart.
 */
export const collapse = (cluster: Cluster, outStrides: readonly number[] = resultStrides(cluster)): Axis[] => {
  const { shape, inputs, reduce } = cluster;
  const read = new Set(cluster.steps.flatMap((s) => (s.kind === 'iota' ? [s.axis] : [])));
  const axes: Axis[] = [];
  for (let i = 0; i < shape.length; i++) {
    const size = shape[i]!;
    if (size === 1) continue;
    const axis: Axis = {
      size,
      strides: inputs.map((x) => x.strides[i]!),
      out: outStrides[i]!,
      reduced: reduce?.axes.includes(i) ?? false,
      ...(read.has(i) ? { iota: i } : {}),
    };
    const before = axes.at(-1);
    const joins =
      before &&
      before.iota === undefined &&
      axis.iota === undefined &&
      before.reduced === axis.reduced &&
      before.out === axis.out * size &&
      before.strides.every((s, k) => s === axis.strides[k]! * size);
    if (joins) axes[axes.length - 1] = { ...axis, size: before.size * size };
    else axes.push(axis);
  }
  return axes;
};

/** the inner axis of a space without axes */
export const point = (inputs: number): Axis => ({
  size: 1,
  strides: new Array<number>(inputs).fill(0),
  out: 1,
  reduced: false,
});

/** how each input moves along the inner axis */
export const accesses = (axes: readonly Axis[], inner: Axis): Access[] =>
  inner.strides.map((s, i) => {
    if (axes.every((a) => a.strides[i] === 0)) return 'scalar';
    return s === 0 ? 'splat' : s === 1 ? 'unit' : 'gather';
  });

/** position of an axis with contiguous reads: more inputs that read neighbours, then the longer axis */
export const bestInner = (candidates: readonly Axis[]): Axis => {
  const score = (a: Axis): number => {
    const contiguous = a.strides.reduce((sum, s) => sum + (s === 1 ? 2 : s === 0 ? 1 : 0), 0);
    return a.size < 4 ? contiguous / 2 : contiguous;
  };
  return candidates.reduce((best, a) => {
    const difference = score(a) - score(best);
    return difference > 0 || (difference === 0 && a.size > best.size) ? a : best;
  });
};
