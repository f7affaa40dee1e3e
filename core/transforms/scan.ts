/** A loop that carries a value: written out, so that it differentiates, maps and compiles like any other graph. */
import { ShapeError } from '../ir/errors.ts';
import type { Tensor } from '../ir/tensor.ts';
import { entries, leaves, mapTree, type Tree, unflatten } from '../ir/tree.ts';
import { stack } from '../ops/concat.ts';
import { squeeze } from '../ops/layout.ts';
import { slice } from '../ops/slice.ts';

/**
 * `scan(f, start, xs)` → [carry, ys]: f(carry, x) → [carry, y] over the first axis of every leaf of xs; ys are stacked along
 * a new first axis (jax.lax.scan). A number in the place of xs counts: f(carry, i).
 * @throws ShapeError when leaves differ in length or the carry changes its shapes. Cost: the graph of f for each step, so
 * meant for up to some hundred steps.
 * @example scan((h: Tensor, x: Tensor) => { const y = tanh(add(dot(h, w), x)); return [y, y]; }, h0, xs)
 */
export function scan<C extends Tree<Tensor>, X extends Tree<Tensor> | number, Y extends Tree<Tensor>>(
  f: (carry: C, x: X) => readonly [C, Y],
  start: C,
  xs: X,
): [C, Y] {
  const shapes = (c: Tree<Tensor>): string =>
    entries<Tensor>(c)
      .map(([path, t]) => `${path && `${path} `}${t.dtype}[${t.shape}]`)
      .join(', ');
  const lengths = typeof xs === 'number' ? [xs] : leaves<Tensor>(xs as Tree<Tensor>).map((t) => t.shape[0]);
  const n = lengths[0];
  if (n === undefined || !Number.isInteger(n) || n < 1 || lengths.some((m) => m !== n))
    throw new ShapeError(
      `scan: every leaf must have one first axis of at least 1 step, not ${lengths.join(', ') || 'no leaf'}`,
    );
  const step = (i: number): X =>
    (typeof xs === 'number'
      ? i
      : mapTree((t: Tensor) => squeeze(slice(t, { axis: 0, start: i, stop: i + 1 }), 0), xs)) as X;
  let carry = start;
  const ys: Y[] = [];
  for (let i = 0; i < n; i++) {
    const [next, y] = f(carry, step(i));
    if (shapes(next) !== shapes(start))
      throw new ShapeError(`scan: step ${i} makes a carry of ${shapes(next)} out of ${shapes(start)}`);
    carry = next;
    ys.push(y);
  }
  const columns = ys.map((y) => leaves<Tensor>(y));
  return [
    carry,
    unflatten(
      ys[0]!,
      columns[0]!.map((_, k) => stack(columns.map((c) => c[k]!))),
    ),
  ];
}
