import { asFloat, cast, concat, cos, gather, mul, pad, reshape, sin, type Tensor, tensor } from '../core/index.ts';
import { gaussian, Param } from './spec.ts';

/** A table of vectors [count, width]. */
export type Embedding<T = Tensor> = {
  /** [count, width] */
  readonly weight: T;
};

/** Specification of a table of `count` vectors, normal with the given deviation. */
export const embeddingSpec = (count: number, width: number, std = 1): Embedding<Param> => ({
  weight: new Param('embedding', [count, width], gaussian(std)),
});

/** ids[…] (integers) → rows of the table [… , width]. A table of stored halves is not converted, only its rows are. */
export const embedding = (p: Embedding, ids: Tensor): Tensor => asFloat(gather(p.weight, ids));

export type TimestepEmbeddingOptions = {
  /** of the result */
  readonly dtype: 'f32' | 'f64';
  /** true: [cos, sin]; false: [sin, cos] */
  readonly flipSinToCos?: boolean;
  /** taken from dim/2 in the exponent's denominator: 0 in Stable Diffusion, 1 in Ho et al. */
  readonly freqShift?: number;
};

/**
 * Sinusoidal embedding of timesteps t[n] → [n, dim]: frequencies 10000^(−i/(dim/2 − shift)), i < dim/2; an odd dim ends
 * on a zero. The frequencies are worked out in double on the host.
 * Source: diffusers `get_timestep_embedding`; Ho et al. 2020.
 */
export function timestepEmbedding(
  t: Tensor,
  dim: number,
  { dtype, flipSinToCos = true, freqShift = 0 }: TimestepEmbeddingOptions,
): Tensor {
  const half = Math.floor(dim / 2);
  const frequencies = Array.from({ length: half }, (_, i) => Math.exp((-Math.log(10000) * i) / (half - freqShift)));
  const n = t.shape[0]!;
  const angle = mul(reshape(cast(t, dtype), [n, 1]), tensor(frequencies, [1, half], dtype));
  const both = concat(flipSinToCos ? [cos(angle), sin(angle)] : [sin(angle), cos(angle)], 1);
  return dim % 2 === 0
    ? both
    : pad(both, [
        [0, 0],
        [0, 1],
      ]);
}
