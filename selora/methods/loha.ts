/** LoHa: the entrywise product of two low-rank matrices, of rank r² with the parameters of two LoRAs of rank r. */
import { add, asFloat, dot, mul, reshape, type Tensor, tensor, zeros } from '../../core/index.ts';
import { foldKey, type HostKey, normalNumbers } from '../adapter.ts';
import { inputsOf, kernelOf, ranksAtStart } from './low-rank.ts';
import { Field, type MethodOf } from './method.ts';
import { rank, ranks, scale } from './settings.ts';
import { cannotBegin, fullModule, matrixOf, product, refuseKnown, withMatrix } from './weights.ts';

const settings = { rank, ranks, scale };
type Loha = { readonly a1: Tensor; readonly b1: Tensor; readonly a2: Tensor; readonly b2: Tensor };

const normal = (key: HostKey, shape: readonly [number, number], deviation: number): Tensor =>
  tensor(normalNumbers(key, shape[0] * shape[1], deviation), shape);
/** a[d_out, r]·b[r, d_in] */
const times = (a: Tensor, b: Tensor): Tensor =>
  reshape(dot(reshape(a, [1, ...a.shape]), reshape(b, [1, ...b.shape])), [a.shape[0]!, b.shape[1]!]);

/**
 * The method `loha`: W = W0 + s·(a1·b1) ⊙ (a2·b2), a[d_out, r], b[r, d_in]. At the start b1 and b2 are drawn from N(0, 1), a1 from
 * N(0, 0.1²), a2 = 0, as in LyCORIS and PEFT.
 * Source: Hyeon-Woo et al., FedPara: Low-Rank Hadamard Product for Communication-Efficient Federated Learning (2022), eq. 1;
 * LyCORIS `modules/loha.py`.
 */
export const loha: MethodOf<typeof settings, Loha> = {
  name: 'loha',
  doc: 'LoHa: the entrywise product of two low-rank changes',
  source:
    'Hyeon-Woo et al., FedPara: Low-Rank Hadamard Product for Communication-Efficient Federated Learning (2022), eq. 1',
  settings,
  leastRank: () => 1,
  ranks(c, places, known) {
    refuseKnown('loha', known);
    return ranksAtStart(c, places);
  },
  label: (c) => `LoHa r=${c.rank}`,
  facts: (c) => ({ lambda: null, testEvery: null, scale: c.scale, initA: 0 }),
  room: (_c, _most, own) => Math.max(1, own),
  fields: (place, rank) => {
    const [a, b] = [new Field([place[0], rank], 1), new Field([rank, inputsOf(place)], 0)];
    return { a1: a, b1: b, a2: a, b2: b };
  },
  init: (places, ranks, key) =>
    Object.fromEntries(
      [...places].map(([path, place]) => {
        const [dOut, dIn, r] = [place[0], inputsOf(place), ranks[path]!];
        return [
          path,
          {
            a1: normal(foldKey(key, path, 'a1'), [dOut, r], 0.1),
            b1: normal(foldKey(key, path, 'b1'), [r, dIn], 1),
            a2: zeros([dOut, r]),
            b2: normal(foldKey(key, path, 'b2'), [r, dIn], 1),
          },
        ];
      }),
    ),
  attach(module, { a1, b1, a2, b2 }, c) {
    const change = mul(mul(times(a1, b1), times(a2, b2)), c.scale);
    return withMatrix(module, add(matrixOf(asFloat(module.weight)), change));
  },
  toFile({ rank, fields: { a1, b1, a2, b2 } }, place, c) {
    const [dOut, dIn] = [place[0], inputsOf(place)];
    if (rank * rank >= Math.min(dOut, dIn)) {
      const [one, two] = [product(a1!, b1!), product(a2!, b2!)];
      return fullModule(
        one.map((x, i) => c.scale * x * two[i]!),
        place,
      );
    }
    // rank (p, q): the entrywise products of row p of the one and row q of the other
    const pairs = Array.from({ length: rank * rank }, (_, k) => [Math.floor(k / rank), k % rank] as const);
    const A = new Float32Array(dIn * rank * rank);
    const B = new Float32Array(rank * rank * dOut);
    for (const [k, [p, q]] of pairs.entries()) {
      for (let i = 0; i < dIn; i++) A[i * pairs.length + k] = b1!.data[p * dIn + i]! * b2!.data[q * dIn + i]!;
      for (let o = 0; o < dOut; o++) B[k * dOut + o] = c.scale * a1!.data[o * rank + p]! * a2!.data[o * rank + q]!;
    }
    return { A, B, rank: rank * rank, dIn, dOut, scale: 1, ...kernelOf(place) };
  },
  toLycoris: ({ rank, fields: { a1, b1, a2, b2 } }, _place, c) => ({
    hada_w1_a: a1!,
    hada_w1_b: b1!,
    hada_w2_a: a2!,
    hada_w2_b: b2!,
    alpha: { shape: [], data: Float32Array.of(c.scale * rank) },
  }),
  fromFile: cannotBegin('loha'),
};
