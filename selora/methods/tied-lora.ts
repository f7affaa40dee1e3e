/** Tied-LoRA: all layers share one trained pair; of each layer two vectors are trained beside it. */
import { mul, ones, reshape, type Tensor, tensor, zeros } from '../../core/index.ts';
import { foldKey, kaimingUniform } from '../adapter.ts';
import { inLayer } from '../attach.ts';
import { inputsOf, lowRank, ranksAtStart, scaledPair } from './low-rank.ts';
import { Field, type MethodOf } from './method.ts';
import { gainA, rank, scale } from './settings.ts';
import { cannotBegin, refuseKnown } from './weights.ts';

const settings = { rank, scale, gainA };
type Tied = { readonly A: Tensor; readonly B: Tensor; readonly u: Tensor; readonly v: Tensor };

/**
 * The method `tied-lora`: y = x·W0ᵀ + b + s·((x·A) ⊙ u)·B ⊙ v, all four trained (the paper's TL6). A[d_in, r] is one for all
 * modules of a network with d_in inputs, B[r, d_out] one for all with d_out outputs: the paper ties layers of one shape.
 * At the start A is random, B = 0, u = v = 1.
 * Source: Renduchintala et al., Tied-LoRA: Enhancing parameter efficiency of LoRA with Weight Tying (2024), eq. 2.
 */
export const tiedLora: MethodOf<typeof settings, Tied> = {
  name: 'tied-lora',
  doc: 'Tied-LoRA: one trained pair A, B for all layers of a size; two vectors of each layer beside it',
  source: 'Renduchintala et al., Tied-LoRA: Enhancing parameter efficiency of LoRA with Weight Tying (2024), eq. 2',
  settings,
  leastRank: () => 1,
  // one pair has one rank
  ranks(c, places, known) {
    refuseKnown('tied-lora', known);
    return ranksAtStart({ rank: c.rank, ranks: null }, places);
  },
  label: (c) => `Tied-LoRA r=${c.rank}`,
  facts: (c) => ({ lambda: null, testEvery: null, scale: c.scale, initA: c.gainA }),
  room: (_c, most) => Math.max(1, most),
  fields: (place, rank) => ({
    A: new Field([inputsOf(place), rank], 1, true, true),
    B: new Field([rank, place[0]], 0, true, true),
    u: new Field([rank], 0),
    v: new Field([place[0]]),
  }),
  init: (places, ranks, key, c) =>
    Object.fromEntries(
      [...places].map(([path, place]) => {
        const [dIn, dOut, rank] = [inputsOf(place), place[0], ranks[path]!];
        const A = kaimingUniform(foldKey(key, 'tied', dIn), dIn, dIn * rank, { a: c.gainA });
        return [path, { A: tensor(A, [dIn, rank]), B: zeros([rank, dOut]), u: ones([rank]), v: ones([dOut]) }];
      }),
    ),
  attach(module, { A, B, u, v }, c) {
    const adapter = { A: mul(A, u), B: mul(B, reshape(v, [1, v.shape[0]!])) };
    return { ...module, adapter: inLayer(module, adapter, c.scale) };
  },
  toFile: (module, place, c) => lowRank.toFile(scaledPair(module, 'u', 'v'), place, c),
  fromFile: cannotBegin('tied-lora'),
};
