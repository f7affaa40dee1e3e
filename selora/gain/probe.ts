/**
 * Looking at ∂L/∂ΔW = G[d_in, d_out] of a module through q extra ranks, without ever making it: with K = 0 beside rows R
 * the columns' gradient is G·Rᵀ, with R = 0 beside columns K the rows' gradient is Kᵀ·G. One of the two is zero, so that
 * the module computes what it did.
 */
import { concat, slice, type Tensor } from '../../core/index.ts';
import type { Adapter } from '../adapter.ts';
import type { Measure } from '../methods/method.ts';

/** Ranks beside a module's own for a measurement: columns K[d_in, q] and rows R[q, d_out], one of them zero. */
export type Probe = { readonly K: Tensor; readonly R: Tensor };
/** What is read of a module: gradients of K and R, and the columns it has, with those of its free ranks. */
export type Probed<T> = { readonly K: T; readonly R: T; readonly A: T };

/** A' = [A | K], B' = [B ; R]. */
export const withProbe = ({ A, B }: Adapter, { K, R }: Probe): Adapter => ({
  A: concat([A, K], 1),
  B: concat([B, R], 0),
});

/** The mean gradients of the probe, and the module's columns. */
export const probed: Measure<Adapter, Probed<Tensor>> = {
  scores(mean, _kept, { A }) {
    const start = A.shape[1]!;
    return { K: slice(mean.A, { axis: 1, start }), R: slice(mean.B, { axis: 0, start }), A };
  },
};
