/** SoRA: a gate on every rank, drawn to exactly zero by a proximal step. */
import { z } from 'zod';
import { abs, maximum, mul, ones, sign, sub, type Tensor } from '../../core/index.ts';
import type { Adapter } from '../adapter.ts';
import { inLayer } from '../attach.ts';
import { inputsOf, lowRank } from './low-rank.ts';
import { Field, type MethodOf } from './method.ts';
import { gainA, rank, ranks, scale, told } from './settings.ts';
import { keptRanks } from './weights.ts';

const settings = {
  rank,
  ranks,
  scale,
  gainA,
  gateSparsity: told(z.number().min(0).max(1e6).default(0.1), {
    group: 'Growth of ranks',
    value: 'lambda',
    help: 'sora: weight of the gates’ 1-norm; a step takes lr times this from every gate, to zero at most',
  }),
};
type Gated = Adapter & { readonly gate: Tensor };

/** T_ξ(x): towards zero by ξ, to zero at most. */
const shrunk = (x: Tensor, by: Tensor): Tensor => mul(sign(x), maximum(sub(abs(x), by), 0));

/**
 * The method `sora`: y = x·W0ᵀ + b + s·((x·A) ⊙ g)·B, g = 1 and B = 0 at the start. After Adam's update of a step with rate η
 * the gates take the proximal step of λ‖g‖₁: g ← sign(g)·max(|g| − η·λ, 0). A gate at zero has a gradient and may open
 * again; files leave closed ranks out. (The paper's gates begin with normal draws; 1 makes the start LoRA's.)
 * Source: Ding et al., Sparse Low-rank Adaptation of Pre-trained Language Models (2023), eq. 4 to 7.
 */
export const sora: MethodOf<typeof settings, Gated> = {
  name: 'sora',
  doc: 'SoRA: LoRA with a gate on every rank, closed where it is not worth its 1-norm',
  source: 'Ding et al., Sparse Low-rank Adaptation of Pre-trained Language Models (2023), eq. 4 to 7',
  settings,
  leastRank: () => 1,
  ranks: lowRank.ranks,
  label: (c) => `SoRA r≤${c.rank}`,
  facts: (c) => ({ lambda: null, testEvery: null, scale: c.scale, initA: c.gainA }),
  room: (_c, _most, own) => Math.max(1, own),
  fields: (place, rank) => ({ ...lowRank.fields(place, rank), gate: new Field([rank], 0) }),
  init: (places, ranks, key, c) =>
    Object.fromEntries(
      Object.entries(lowRank.init(places, ranks, key, c)).map(([path, adapter]) => [
        path,
        { ...adapter, gate: ones([ranks[path]!]) },
      ]),
    ),
  attach: (module, { A, B, gate }, c) => ({ ...module, adapter: inLayer(module, { A: mul(A, gate), B }, c.scale) }),
  after: ({ p, ...slot }, _g, { rate }, c) => ({
    ...slot,
    p: { ...p, gate: shrunk(p.gate, mul(rate, c.gateSparsity)) },
  }),
  toFile: (module, place, c) => lowRank.toFile(keptRanks(module, 'gate', inputsOf(place), place[0]), place, c),
  fromFile: (module, c, fresh) => ({ ...lowRank.fromFile(module, c, fresh), gate: ones([module.rank]) }),
};
