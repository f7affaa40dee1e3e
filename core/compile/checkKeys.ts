/** Opt-in check against the classic mistake with explicit randomness: two draws that were meant to be independent. */

import { KeyReuseError } from '../ir/errors.ts';
import { type Tensor, topo } from '../ir/tensor.ts';
import { leaves, type Tree } from '../ir/tree.ts';
import { type BitsAttrs, DRAW, randomBitsOp } from '../ops/random.ts';
import { simplify } from './simplify.ts';

const draws = (t: Tensor): boolean => t.op === (randomBitsOp as unknown) && (t.attrs as BitsAttrs).stream === DRAW;

/**
 * `checkKeys(f(x, key))` → the same tree, when no key in its graph is drawn from twice (`uniform`, `normal`). Splitting
 * and folding read streams of their own, so a key may be split and folded as well. Keys are the same when the same ops
 * made them from the same leaves; a draw that `checkpoint` repeats counts once.
 * @throws KeyReuseError with the shapes of both draws
 * @example const step = compile((state, key) => checkKeys(update(state, key)), { backend }); // in a test
 */
export function checkKeys<P extends Tree<Tensor>>(result: P): P {
  const drawing = topo(leaves<Tensor>(result)).filter(draws);
  const keys = simplify(
    drawing.map((node) => node.inputs[0]!),
    () => true,
  );
  const seen = new Map<Tensor, Tensor>();
  for (const [i, node] of drawing.entries()) {
    const key = keys[i]!;
    const first = seen.get(key);
    if (first)
      throw new KeyReuseError(
        `${key.label ?? `key u32[${key.shape.join(', ')}]`} is drawn from twice, for ${words(first)} and for ${words(node)} random words; split it first: const [a, b] = keys(k, 2)`,
      );
    seen.set(key, node);
  }
  return result;
}
const words = (t: Tensor): string => `[${t.shape.join(', ')}]`;
