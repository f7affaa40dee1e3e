/** A toy method: y ⊙ (1 + d ⊙ k), one factor for every output of a linear layer, k drawn anew after every update and kept. */
import { add, asFloat, mul, reshape, type Tensor, tensor, uniform, zeros } from '../../../core/index.ts';
import { Field, type Method } from '../../../selora/methods/method.ts';

const ones = (paths: Iterable<string>) => Object.fromEntries([...paths].map((path) => [path, 1]));

export const toy: Method<{ readonly d: Tensor; readonly k: Tensor }> = {
  name: 'toy',
  doc: 'a factor for every output of a layer',
  source: 'this test',
  settings: {},
  facts: () => ({ lambda: null, testEvery: null, scale: 1, initA: 0 }),
  leastRank: () => 1,
  ranks: (_c, places) => ({ unet: ones(places.unet.keys()), text: ones(places.text.keys()) }),
  room: () => 1,
  fields: ([dOut]) => ({ d: new Field([dOut]), k: new Field([dOut], null, false) }),
  init: (places) =>
    Object.fromEntries([...places].map(([path, [dOut]]) => [path, { d: zeros([dOut]), k: add(zeros([dOut]), 1) }])),
  attach: (module, { d, k }) => ({
    ...module,
    weight: mul(asFloat(module.weight), reshape(add(mul(d, k), 1), [d.shape[0]!, 1])),
  }),
  after: (slot, _g, { key }) => ({ ...slot, p: { ...slot.p, k: uniform(key, slot.p.k.shape) } }),
  // no form of low-rank files says it: a stand-in of rank 1, so that the run has a file to write
  toFile: ({ fields }, [dOut, dIn]) => ({
    A: new Float32Array(dIn),
    B: fields.d!.data,
    rank: 1,
    dIn: dIn!,
    dOut,
    scale: 1,
  }),
  fromFile: ({ B }) => ({ d: tensor(B), k: tensor(new Float32Array(B.length).fill(1)) }),
};
