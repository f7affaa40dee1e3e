/**
 * split cuts a tensor along an axis. A part is a view; the derivative lays the parts' cotangents side by side, where that of
 * slices would put zeros around each and add them up.
 */
import { shapeError } from '../ir/errors.ts';
import { axisOf } from '../ir/rules.ts';
import { bindAll, type Composite, type Tensor } from '../ir/tensor.ts';
import { concat } from './concat.ts';
import { slice } from './slice.ts';

export interface SplitAttrs {
  readonly axis: number;
  /** positions where it is cut */
  readonly cuts: readonly number[];
}
/** first and last position of each part */
const ranges = (n: number, cuts: readonly number[]): readonly (readonly [number, number])[] =>
  [0, ...cuts].map((start, p) => [start, cuts[p] ?? n]);

export const splitOp: Composite<SplitAttrs> = {
  kind: 'composite',
  name: 'split',
  aliases: ['chunk', 'unstack'],
  doc: 'parts along an axis',
  formula: 'y_p = x[…, cut_p … cut_p+1, …]',
  shape([x], { axis, cuts }) {
    const at = axisOf('split', [x!], axis);
    const n = x!.shape[at]!;
    if (cuts.some((c, i) => !Number.isInteger(c) || c < (cuts[i - 1] ?? 0) || c > n))
      throw shapeError('split', [x!], `positions [${cuts.join(', ')}] must rise within the ${n} of axis ${at}`);
    return ranges(n, cuts).map(([start, stop]) => ({
      shape: x!.shape.map((size, i) => (i === at ? stop - start : size)),
      dtype: x!.dtype,
    }));
  },
  body: ([x], { axis, cuts }) => ranges(x!.shape[axis]!, cuts).map(([start, stop]) => slice(x!, { axis, start, stop })),
  // where a part counts for nothing, zeros around the others cost less than zeros in its place
  vjp: (gs, _x, { axis }) => (gs.every((g) => g !== undefined) ? [concat(gs, axis)] : undefined),
  batch: (_size, [x], _mapped, { axis, cuts }) => bindAll(splitOp, [x!], { axis: axis + 1, cuts }),
  takesStored: true,
  sample: (pick) => ({ operands: [{ shape: [pick(1, 3), 5] }], attrs: { axis: 1, cuts: [pick(0, 2), pick(2, 5)] } }),
};
/**
 * `split(x[6,4], 3)` → three [2,4]: equal parts along an axis; `split(x, [1, 4])` cuts before the positions 1 and 4
 * (jax.numpy.split). The keys of a random key come from `splitKey`.
 * @throws ShapeError when the parts would not be equal or positions fall. Cost: none.
 */
export function split(x: Tensor, parts: number | readonly number[], axis = 0): readonly Tensor[] {
  const at = axisOf('split', [x], axis);
  const n = x.shape[at]!;
  if (typeof parts === 'number' && (!Number.isInteger(parts) || parts < 1 || n % parts !== 0))
    throw shapeError('split', [x], `axis ${at} of ${n} does not divide into ${parts} equal parts`);
  const cuts = typeof parts === 'number' ? Array.from({ length: parts - 1 }, (_, i) => ((i + 1) * n) / parts) : parts;
  return bindAll(splitOp, [x], { axis: at, cuts });
}
