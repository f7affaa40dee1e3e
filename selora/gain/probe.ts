/**
 * Looking at ∂L/∂ΔW = G[d_in, d_out] of a module through q extra ranks, without ever making it: rows R beside columns of
 * zeros have the columns' gradient G·Rᵀ, columns K beside rows of zeros the rows' gradient Kᵀ·G. One of the two is zero, so
 * that the module computes what it did.
 */
import { concat, mul, slice, sum, type Tensor, tensor, unsqueeze, zeros } from '../../core/index.ts';
import type { Adapter } from '../adapter.ts';
import { inputsOf } from '../methods/low-rank.ts';
import type { Measure, Place } from '../methods/method.ts';

/** Ranks beside a module's own: rows R[q, d_out] for a sketch, columns K[d_in, q] for single samples, both for a loss. */
export type Probe = { readonly K?: Tensor; readonly R?: Tensor };
/** What a sketch reads of a module: the gradient of the columns beside R, and the columns it has, with those of its free ranks. */
export type Sketched<T> = { readonly K: T; readonly A: T };
/**
 * What columns read of single samples: `rows`[b, q, d_out] are KᵀGᵢ; `gates`[b, r] the derivative of the loss of each by a
 * factor on each own rank, Σ_j B_rj·∂ℓᵢ/∂B_rj = ⟨Gᵢ, A_r·B_r⟩; and the ranks themselves, free ones too.
 */
export type Asked<T> = { readonly rows: T; readonly gates: T; readonly A: T; readonly B: T };

/** A' = [A | K], B' = [B ; R]. */
export function withProbe({ A, B }: Adapter, { K, R }: Probe): Adapter {
  const q = (K ?? R)!.shape[K ? 1 : 0]!;
  return {
    A: concat([A, K ?? zeros([A.shape[0]!, q], A.dtype)], 1),
    B: concat([B, R ?? zeros([q, B.shape[1]!], B.dtype)], 0),
  };
}

const part = (x: Tensor, axis: number, start: number, stop = x.shape[axis]!) => slice(x, { axis, start, stop });
/** The mean gradient beside a sketch; beside columns what single samples say. */
export const probed: Measure<Adapter, Sketched<Tensor> | Asked<Tensor>, Probe> = {
  single: ({ K }) => K !== undefined,
  samples(g, at, { K }) {
    const own = at.B.shape[0]! - K!.shape[1]!;
    return {
      rows: part(g.B, 1, own),
      gates: sum(mul(part(g.B, 1, 0, own), unsqueeze(part(at.B, 0, 0, own), 0)), 2),
    };
  },
  scores(mean, kept, { A, B }) {
    if (kept) return { ...(kept as Pick<Asked<Tensor>, 'rows' | 'gates'>), A, B };
    return { K: part(mean.A, 1, A.shape[1]!), A };
  },
};

/** ranks a probe of a place has */
export const widthOf = (place: Place, probe: number): number => Math.min(probe, place[0], inputsOf(place));
/** A probe for losses that changes nothing. */
export function still(place: Place, probe: number): Probe {
  const q = widthOf(place, probe);
  const none = (...shape: readonly [number, number]) => tensor(new Float32Array(shape[0] * shape[1]), shape);
  return { K: none(inputsOf(place), q), R: none(q, place[0]) };
}
