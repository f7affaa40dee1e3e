/** DoRA: length and direction of every row of a weight, trained apart. */
import {
  add,
  asFloat,
  div,
  mul,
  reshape,
  sqrt,
  square,
  stopGradient,
  sum,
  type Tensor,
  zeros,
} from '../../core/index.ts';
import type { Adapter } from '../adapter.ts';
import { deltaWeight } from '../merge.ts';
import { inputsOf, lowRank, ranksAtStart } from './low-rank.ts';
import { Field, type HostModule, type MethodOf, type Place } from './method.ts';
import { gainA, rank, ranks, scale } from './settings.ts';
import { cannotBegin, fullModule, matrixOf, product, refuseKnown, transposed, withMatrix } from './weights.ts';

const settings = { rank, ranks, scale, gainA };
type Dora = Adapter & { readonly length: Tensor };

/** ‖row‖ of a matrix[d_out, d_in], [d_out, 1] */
const lengths = (matrix: Tensor): Tensor => reshape(sqrt(sum(square(matrix), 1)), [matrix.shape[0]!, 1]);

/** V = W0 + ΔW, ‖V‖ and m = ‖W0‖ + the trained change, by rows, in f64. */
function onHost({ fields }: HostModule, place: Place, scale: number, weight: Float32Array) {
  const [dOut, dIn] = [place[0], inputsOf(place)];
  const change = product(transposed(fields.B!), transposed(fields.A!));
  const direction = Float64Array.from(weight, (w, i) => w + scale * change[i]!);
  const norm = (m: ArrayLike<number>, o: number) => {
    let s = 0;
    for (let i = o * dIn; i < (o + 1) * dIn; i++) s += m[i]! ** 2;
    return Math.sqrt(s);
  };
  const rows = Array.from({ length: dOut }, (_, o) => o);
  return {
    direction,
    norms: rows.map((o) => norm(direction, o)),
    wanted: rows.map((o) => norm(weight, o) + fields.length!.data[o]!),
  };
}

/**
 * The method `dora`: W = m ⊙ V/‖V‖ by rows, V = W0 + s·(A·B)ᵀ, m[d_out] = ‖W0‖ at the start. As in the paper (section 4.3)
 * the gradient takes ‖V‖ for a constant. What is trained is m − ‖W0‖, which has the same gradients and the same updates.
 * Source: Liu et al., DoRA: Weight-Decomposed Low-Rank Adaptation (2024), eq. 5 and 11.
 */
export const dora: MethodOf<typeof settings, Dora> = {
  name: 'dora',
  doc: 'DoRA: a LoRA for the direction of a weight’s rows, a factor for their length',
  source: 'Liu et al., DoRA: Weight-Decomposed Low-Rank Adaptation (2024), eq. 5 and 11',
  settings,
  leastRank: () => 1,
  ranks(c, places, known) {
    refuseKnown('dora', known);
    return ranksAtStart(c, places);
  },
  label: (c) => `DoRA r=${c.rank}`,
  facts: (c) => ({ lambda: null, testEvery: null, scale: c.scale, initA: c.gainA }),
  room: (_c, _most, own) => Math.max(1, own),
  fields: (place, rank) => ({ ...lowRank.fields(place, rank), length: new Field([place[0]]) }),
  init: (places, ranks, key, c) =>
    Object.fromEntries(
      Object.entries(lowRank.init(places, ranks, key, c)).map(([path, adapter]) => [
        path,
        { ...adapter, length: zeros([places.get(path)![0]]) },
      ]),
    ),
  attach(module, { length, ...adapter }, c) {
    const frozen = matrixOf(asFloat(module.weight));
    const direction = add(frozen, deltaWeight(adapter, c.scale));
    const wanted = add(lengths(frozen), reshape(length, [length.shape[0]!, 1]));
    return withMatrix(module, mul(direction, div(wanted, stopGradient(lengths(direction)))));
  },
  needsWeight: true,
  toFile(module, place, c, weight) {
    const { direction, norms, wanted } = onHost(module, place, c.scale, weight!);
    const dIn = inputsOf(place);
    const row = (i: number) => Math.floor(i / dIn);
    return fullModule(
      direction.map((v, i) => (v * wanted[row(i)]!) / norms[row(i)]! - weight![i]!),
      place,
    );
  },
  toLycoris(module, place, c, weight) {
    const { A, B } = module.fields;
    const [inner, outer] = [place.slice(1), place.length === 4 ? [1, 1] : []];
    const one = place.slice(1).map(() => 1);
    return {
      'lora_down.weight': { shape: [module.rank, ...inner], data: transposed(A!).data },
      'lora_up.weight': { shape: [place[0], module.rank, ...outer], data: transposed(B!).data },
      alpha: { shape: [], data: Float32Array.of(c.scale * module.rank) },
      dora_scale: {
        shape: [place[0], ...one],
        data: Float32Array.from(onHost(module, place, c.scale, weight!).wanted),
      },
    };
  },
  fromFile: cannotBegin('dora'),
};
