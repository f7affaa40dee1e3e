/** Full fine-tuning of the chosen layers: the upper bound beside adapters. */

import type { Tensor } from '../../core/index.ts';
import { add, asFloat, tensor, zeros } from '../../core/index.ts';
import { deltaWeight } from '../../models/io/adapter-file.ts';
import { inputsOf } from './low-rank.ts';
import { Field, type MethodOf } from './method.ts';
import { fullModule, matrixOf, withMatrix, withoutRanks } from './weights.ts';

const settings = {};

/**
 * The method `full`: W = W0 + D, D[d_out, d_in] zero at the start. Adam sees the gradients it would see of W itself; weight
 * decay draws towards the base instead of towards zero.
 */
export const full: MethodOf<typeof settings, { readonly D: Tensor }> = {
  name: 'full',
  doc: 'full fine-tuning: every weight of the chosen layers moves',
  source: 'the gradient of the loss by W',
  settings,
  leastRank: () => 1,
  // the ranks of a file say nothing here: any of them can be said by D
  ranks: (c, places) => withoutRanks('full')(c, places),
  label: () => 'full fine-tuning',
  facts: () => ({ lambda: null, testEvery: null, scale: 1, initA: 0 }),
  room: (_c, most) => Math.max(1, most),
  fields: (place) => ({ D: new Field([place[0], inputsOf(place)]) }),
  init: (places) =>
    Object.fromEntries([...places].map(([path, place]) => [path, { D: zeros([place[0], inputsOf(place)]) }])),
  attach: (module, { D }) => withMatrix(module, add(matrixOf(asFloat(module.weight)), D)),
  toFile: ({ fields }, place) => fullModule(fields.D!.data, place),
  toLycoris: ({ fields }, place) => ({ diff: { shape: place, data: fields.D!.data } }),
  fromFile: (module) => ({ D: tensor(Float32Array.from(deltaWeight(module)), [module.dOut, module.dIn]) }),
};
