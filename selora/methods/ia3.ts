/** (IA)³: one factor for every output, or every input, of a layer. */
import { z } from 'zod';
import { add, asFloat, mul, reshape, type Tensor, zeros } from '../../core/index.ts';
import { inputsOf } from './low-rank.ts';
import { Field, type MethodOf } from './method.ts';
import { told } from './settings.ts';
import { cannotBegin, fullModule, matrixOf, withMatrix, withoutRanks } from './weights.ts';

const settings = {
  factorsOn: told(z.enum(['outputs', 'inputs']).default('outputs'), {
    group: 'Model and adapters',
    value: 'side',
    help: "ia3: factors on a layer's outputs (the paper's keys and values) or its inputs (its feed-forward layer)",
  }),
};

/**
 * The method `ia3`: W = l ⊙ W0 by rows (outputs) or columns (inputs), l = 1 at the start; the bias is not scaled. Trained is
 * l − 1. A convolution's inputs are its channels.
 * Source: Liu et al., Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning (2022), 3.3.
 */
export const ia3: MethodOf<typeof settings, { readonly l: Tensor }> = {
  name: 'ia3',
  doc: '(IA)³: one factor for every output or input of a layer',
  source:
    'Liu et al., Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning (2022), 3.3',
  settings,
  leastRank: () => 1,
  ranks: withoutRanks('ia3'),
  label: () => '(IA)³',
  facts: () => ({ lambda: null, testEvery: null, scale: 1, initA: 0 }),
  room: (_c, most) => Math.max(1, most),
  fields: (place, _rank, c) => ({ l: new Field([c.factorsOn === 'outputs' ? place[0] : place[1]]) }),
  init: (places, _ranks, _key, c) =>
    Object.fromEntries(
      [...places].map(([path, place]) => [path, { l: zeros([c.factorsOn === 'outputs' ? place[0] : place[1]]) }]),
    ),
  attach(module, { l }, c) {
    const matrix = matrixOf(asFloat(module.weight));
    const [dOut, dIn] = matrix.shape as [number, number];
    const n = l.shape[0]!;
    const one = add(l, 1);
    const scaled =
      c.factorsOn === 'outputs'
        ? mul(matrix, reshape(one, [n, 1]))
        : reshape(mul(reshape(matrix, [dOut, n, dIn / n]), reshape(one, [n, 1])), [dOut, dIn]);
    return withMatrix(module, scaled);
  },
  needsWeight: true,
  toFile({ fields }, place, c, weight) {
    const { data } = fields.l!;
    const dIn = inputsOf(place);
    const at = (i: number) =>
      c.factorsOn === 'outputs' ? Math.floor(i / dIn) : Math.floor(((i % dIn) * data.length) / dIn);
    return fullModule(
      weight!.map((w, i) => w * data[at(i)]!),
      place,
    );
  },
  toLycoris: ({ fields }, place, c) => {
    const { data } = fields.l!;
    return {
      weight: { shape: place.length === 4 ? [1, data.length, 1, 1] : [data.length], data },
      on_input: { shape: [], data: Float32Array.of(c.factorsOn === 'inputs' ? 1 : 0) },
    };
  },
  fromFile: cannotBegin('ia3'),
};
