/** What single samples say of a module, and which of them a direction's gain is made of. */
import type { HostArray } from '../../core/index.ts';
import { inputsOf } from '../methods/low-rank.ts';
import type { Place } from '../methods/method.ts';
import { mapModules, type PerModule } from '../networks.ts';
import type { Direction, Rows } from './directions.ts';
import { type Asked, widthOf } from './probe.ts';

/** What the samples of a test say of one module, in the order of its batches. */
export type Said = {
  /** QᵀGᵢ[q, d_out] of sample after sample, a batch each */
  readonly rows: readonly HostArray[];
  /** by rank and sample: the derivative of the sample's loss by a factor on the rank */
  readonly gates: readonly Float64Array[];
  /** samples of each batch */
  readonly sizes: readonly number[];
  /** [q, d_out] of a sample's rows */
  readonly shape: readonly [q: number, dOut: number];
  /** [d_in, room] */
  readonly A: HostArray;
  /** [room, d_out] */
  readonly B: HostArray;
};

/** The answers of batch after batch, module by module. */
export const saidBy = (
  answers: readonly PerModule<Asked<HostArray>>[],
  places: PerModule<Place>,
  probe: number,
): PerModule<Said> =>
  mapModules((place: Place, path, n): Said => {
    const of = answers.map((a) => a[n][path]!);
    const { A, B } = of[0]!;
    const room = A.length / inputsOf(place);
    const gates = Array.from({ length: room }, (_, r) =>
      Float64Array.from(of.flatMap((o) => Array.from(o.gates).filter((_x, i) => i % room === r))),
    );
    const shape = [widthOf(place, probe), place[0]] as const;
    const sizes = of.map((o) => o.rows.length / (shape[0] * shape[1]));
    return { rows: of.map((o) => o.rows), gates, sizes, shape, A, B };
  }, places);

/** The mean over the samples of some batches: QᵀG[q, d_out]. */
export function meanRows(
  { rows, sizes, shape }: Pick<Said, 'rows' | 'sizes' | 'shape'>,
  from: number,
  to: number,
): Rows {
  const size = shape[0] * shape[1];
  const data = new Float64Array(size);
  const samples = sizes.slice(from, to).reduce((a, b) => a + b, 0);
  for (const batch of rows.slice(from, to))
    for (let i = 0; i < batch.length; i += size) for (let j = 0; j < size; j++) data[j]! += batch[i + j]! / samples;
  return { data, shape };
}

/**
 * Parts of the gain of the first `count` directions by sample, whose sum over the samples it is. Each half of the data is asked
 * for what the other half says is worth having.
 *   part_i = Σ_k √2·Σ_j sign_kj·(u_kᵀGᵢ)_j/(2·samples of i's half),  u = Q·c and sign from the other half
 * @param half batches of the first half
 */
export function carriedBy(
  { rows, sizes, shape: [q, dOut] }: Said,
  directions: readonly Direction[],
  count: number,
  half: number,
): Float64Array {
  const samples = sizes.reduce((a, b) => a + b, 0);
  const first = sizes.slice(0, half).reduce((a, b) => a + b, 0);
  const out = new Float64Array(samples);
  let i = 0;
  for (const [k, batch] of rows.entries())
    for (let b = 0; b < sizes[k]!; b++, i++) {
      const inFirst = k < half;
      for (const { halves } of directions.slice(0, count)) {
        const { c, signs } = halves[inFirst ? 1 : 0];
        for (let m = 0; m < c.length; m++) {
          let sum = 0;
          for (let j = 0; j < dOut; j++) sum += signs[j]! * batch[(b * q + m) * dOut + j]!;
          out[i]! += (Math.SQRT2 * c[m]! * sum) / (2 * (inFirst ? first : samples - first));
        }
      }
    }
  return out;
}
/** The samples that carried most, the first first: [sample, part]. */
export const mostOf = (carried: Float64Array, count: number): (readonly [number, number])[] =>
  Array.from(carried, (part, i) => [i, part] as const)
    .sort(([, a], [, b]) => b - a)
    .slice(0, count);
