import { attention as coreAttention, type Tensor } from '../core/index.ts';
import { type Linear, linear, linearSpec } from './linear.ts';
import type { Param } from './spec.ts';

/** diffusers `Attention`: projections of queries, keys, values and results. */
export type Attention<T = Tensor> = {
  /** makes the queries */
  readonly to_q: Linear<T>;
  /** makes the keys, from the context */
  readonly to_k: Linear<T>;
  /** makes the values, from the context */
  readonly to_v: Linear<T>;
  /** takes the heads' results together */
  readonly to_out: readonly [Linear<T>];
};

/** `context` is the width of what keys and values are made from; `bias` that of the first three projections. */
export const attentionSpec = (width: number, context = width, bias = false): Attention<Param> => ({
  to_q: linearSpec(width, width, { bias }),
  to_k: linearSpec(context, width, { bias }),
  to_v: linearSpec(context, width, { bias }),
  to_out: [linearSpec(width, width)],
});

/**
 * Multi-head attention of x[n, m, c] to context[n, k, d] (to itself by default) → [n, m, c]; scale 1/√(c/heads).
 * Heads stay side by side in the last axis. cost 4·n·m·k·c flop and the projections
 */
export function attention(p: Attention, x: Tensor, heads: number, context: Tensor = x): Tensor {
  const mixed = coreAttention(linear(p.to_q, x), linear(p.to_k, context), linear(p.to_v, context), { heads });
  return linear(p.to_out[0], mixed);
}
