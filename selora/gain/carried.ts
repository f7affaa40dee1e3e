/** Which samples a direction's gain is made of: each half of the data is asked for what the other half says is worth having. */
import { type HostArray, tensor } from '../../core/index.ts';
import { inputsOf } from '../methods/low-rank.ts';
import type { Passes, Place } from '../methods/method.ts';
import { mapModules, type PerModule } from '../networks.ts';
import type { Direction } from './directions.ts';
import { type Carried, type Probe, type Probed, widthOf, zeros } from './probe.ts';

/** What the samples of a test say of one module, in the order of its batches. */
export type Said = {
  /** by direction and sample: parts of the gain, whose sum it is */
  readonly parts: readonly Float64Array[];
  /** by rank and sample: the derivative of the sample's loss by a factor on the rank */
  readonly gates: readonly Float64Array[];
  /** [d_in, room] */
  readonly A: HostArray;
  /** [room, d_out] */
  readonly B: HostArray;
};
type Asks = Pick<Passes<Probe, Probed<HostArray> | Carried<HostArray>>, 'measure' | 'batches'>;

/** u's of the other half as columns, their signs as weights. */
function asking(places: PerModule<Place>, directions: PerModule<readonly Direction[]>, of: 0 | 1, probe: number) {
  return mapModules((place: Place, path, n): Probe => {
    const [dIn, dOut, q] = [inputsOf(place), place[0], widthOf(place, probe)];
    const [K, S] = [new Float32Array(dIn * q), new Float32Array(q * dOut)];
    for (const [k, { halves }] of directions[n][path]!.entries()) {
      const { u, signs } = halves[of];
      for (let i = 0; i < dIn; i++) K[i * q + k] = u[i]!;
      S.set(signs, k * dOut);
    }
    return { K: tensor(K, [dIn, q]), R: zeros([q, dOut]), S: tensor(S, [q, dOut]) };
  }, places);
}

/**
 * One pass over the gradients of single samples of every batch, one after the other.
 *   gain_k = Σᵢ part_kᵢ,  part_kᵢ = √2·Σ_j sign_kj·(u_kᵀGᵢ)_j/(2·samples of i's half), u and sign from the other half
 * @param half batches of the first half
 */
export async function askSamples(
  passes: Asks,
  places: PerModule<Place>,
  directions: PerModule<readonly Direction[]>,
  half: number,
  probe: number,
): Promise<PerModule<Said>> {
  const asked = ([1, 0] as const).map((other) => asking(places, directions, other, probe));
  const answers: PerModule<Carried<HostArray>>[] = [];
  for (let k = 0; k < passes.batches; k++)
    answers.push((await passes.measure(asked[k < half ? 0 : 1]!, [k, k + 1])()) as PerModule<Carried<HostArray>>);
  return mapModules((place: Place, path, n): Said => {
    const q = widthOf(place, probe);
    const of = answers.map((a) => a[n][path]!);
    const sizes = of.map(({ each }) => each.length / q);
    const samples = sizes.reduce((s, b) => s + b, 0);
    const first = sizes.slice(0, half).reduce((s, b) => s + b, 0);
    const { A, B } = of[0]!;
    /** column k of every answer, one after the other */
    const column = (
      k: number,
      width: number,
      from: (c: Carried<HostArray>) => HostArray,
      scale: (i: number) => number,
    ) => {
      const out = new Float64Array(samples);
      let i = 0;
      for (const [at, c] of of.entries())
        for (let b = 0; b < sizes[at]!; b++, i++) out[i] = from(c)[b * width + k]! * scale(i);
      return out;
    };
    const room = of[0]!.gates.length / sizes[0]!;
    return {
      parts: directions[n][path]!.map((_, k) =>
        column(
          k,
          q,
          ({ each }) => each,
          (i) => Math.SQRT2 / (2 * (i < first ? first : samples - first)),
        ),
      ),
      gates: Array.from({ length: room }, (_, r) =>
        column(
          r,
          room,
          ({ gates }) => gates,
          () => 1,
        ),
      ),
      A,
      B,
    };
  }, places);
}

/** Σ over the first `count` directions, by sample. */
export function carriedBy({ parts }: Said, count: number): Float64Array {
  const out = new Float64Array(parts[0]?.length ?? 0);
  for (const part of parts.slice(0, count)) for (const [i, x] of part.entries()) out[i]! += x;
  return out;
}
/** The samples that carried most, the first first: [sample, part]. */
export const mostOf = (carried: Float64Array, count: number): (readonly [number, number])[] =>
  Array.from(carried, (part, i) => [i, part] as const)
    .sort(([, a], [, b]) => b - a)
    .slice(0, count);
