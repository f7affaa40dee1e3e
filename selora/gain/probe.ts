/**
 * Looking at ∂L/∂ΔW = G[d_in, d_out] of a module through q extra ranks, without ever making it: with K = 0 beside rows R
 * the columns' gradient is G·Rᵀ, with R = 0 beside columns K the rows' gradient is Kᵀ·G. One of the two is zero, so that
 * the module computes what it did.
 */
import { concat, mul, slice, sum, type Tensor, tensor, unsqueeze } from '../../core/index.ts';
import type { Adapter } from '../adapter.ts';
import { inputsOf } from '../methods/low-rank.ts';
import type { Measure, Place } from '../methods/method.ts';

/**
 * Ranks beside a module's own for a measurement: columns K[d_in, q] and rows R[q, d_out], one of them zero. With weights
 * S[q, d_out] single samples are asked: Σ_j S_kj·(KᵀGᵢ)_kj of each.
 */
export type Probe = { readonly K: Tensor; readonly R: Tensor; readonly S?: Tensor };
/** What is read of a module: gradients of K and R, and the columns it has, with those of its free ranks. */
export type Probed<T> = { readonly K: T; readonly R: T; readonly A: T };
/**
 * What is read of its samples: `each`[b, q] as S weighs them; `gates`[b, r], the derivative of the loss of each by a factor on
 * each own rank, Σ_j B_rj·∂ℓᵢ/∂B_rj = ⟨Gᵢ, A_r·B_r⟩; and the ranks themselves, free ones too.
 */
export type Carried<T> = { readonly each: T; readonly gates: T; readonly A: T; readonly B: T };

/** A' = [A | K], B' = [B ; R]. */
export const withProbe = ({ A, B }: Adapter, { K, R }: Probe): Adapter => ({
  A: concat([A, K], 1),
  B: concat([B, R], 0),
});

/** The mean gradients of the probe and the module's columns; with weights what single samples say. */
export const probed: Measure<Adapter, Probed<Tensor> | Carried<Tensor>, Probe> = {
  single: ({ S }) => S !== undefined,
  samples(g, at, { S }) {
    const own = at.B.shape[0]! - S!.shape[0]!;
    const part = (x: Tensor, axis: number, from: number, to: number) => slice(x, { axis, start: from, stop: to });
    const all = at.B.shape[0]!;
    return {
      each: sum(mul(part(g.B, 1, own, all), unsqueeze(S!, 0)), 2),
      gates: sum(mul(part(g.B, 1, 0, own), unsqueeze(part(at.B, 0, 0, own), 0)), 2),
    };
  },
  scores(mean, kept, { A, B }) {
    if (kept) return { ...(kept as Pick<Carried<Tensor>, 'each' | 'gates'>), A, B };
    const start = A.shape[1]!;
    return { K: slice(mean.A, { axis: 1, start }), R: slice(mean.B, { axis: 0, start }), A };
  },
};

/** ranks a probe of a place has */
export const widthOf = (place: Place, probe: number): number => Math.min(probe, place[0], inputsOf(place));
export const zeros = (shape: readonly [number, number]): Tensor => tensor(new Float32Array(shape[0] * shape[1]), shape);
/** A probe of a place that changes nothing. */
export function still(place: Place, probe: number): Probe {
  const q = widthOf(place, probe);
  return { K: zeros([inputsOf(place), q]), R: zeros([q, place[0]]) };
}
