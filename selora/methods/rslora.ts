/** LoRA by the rank-stabilised scale: s/√r instead of s, so that a larger rank does not learn more slowly. */
import { type Tensor, tensor } from '../../core/index.ts';
import type { Adapter } from '../adapter.ts';
import { inLayer } from '../attach.ts';
import { lowRank } from './low-rank.ts';
import { Field, type MethodOf } from './method.ts';
import { gainA, rank, ranks, scale } from './settings.ts';

const settings = { rank, ranks, scale, gainA };
type Scaled = Adapter & { readonly factor: Tensor };

/**
 * The method `rslora`: y = x·W0ᵀ + b + (s/√r)·(x·A)·B, r the module's own rank. PEFT's `use_rslora` with lora_alpha = s.
 * Source: Kalajdzievski, A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA (2023), eq. 4.
 */
export const rslora: MethodOf<typeof settings, Scaled> = {
  name: 'rslora',
  doc: 'rsLoRA: LoRA with the scale s/√r of each module’s rank',
  source: 'Kalajdzievski, A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA (2023), eq. 4',
  settings,
  leastRank: () => 1,
  ranks: lowRank.ranks,
  label: (c) => `rsLoRA r=${c.rank}`,
  facts: (c) => ({ lambda: null, testEvery: null, scale: c.scale, initA: c.gainA }),
  room: (_c, _most, own) => Math.max(1, own),
  // padding hides the rank from the layer: what belongs to it is kept
  fields: (place, rank) => ({ ...lowRank.fields(place, rank), factor: new Field([], null, false) }),
  init: (places, ranks, key, c) =>
    Object.fromEntries(
      Object.entries(lowRank.init(places, ranks, key, c)).map(([path, adapter]) => [
        path,
        { ...adapter, factor: tensor(c.scale / Math.sqrt(ranks[path]!)) },
      ]),
    ),
  attach: (module, { factor, ...adapter }) => ({
    ...module,
    adapter: { ...inLayer(module, adapter, 1), scale: factor },
  }),
  toFile: (module, place, c) => lowRank.toFile(module, place, { scale: c.scale / Math.sqrt(module.rank) }),
  fromFile: (module, c, fresh) => ({
    ...lowRank.fromFile(module, { scale: c.scale / Math.sqrt(module.rank) }, fresh),
    factor: tensor(c.scale / Math.sqrt(module.rank)),
  }),
};
