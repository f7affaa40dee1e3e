/** DyLoRA: one adapter that can be cut to any rank afterwards, since every step trains it as if it had a rank drawn by chance. */
import { z } from 'zod';
import {
  add,
  cast,
  div,
  floor,
  less,
  logicalAnd,
  max,
  mul,
  ones,
  reshape,
  sqrt,
  type Tensor,
  tensor,
  uniform,
  where,
  zeros,
} from '../../core/index.ts';
import type { Adapter } from '../adapter.ts';
import { inLayer } from '../attach.ts';
import { lowRank } from './low-rank.ts';
import { Field, type MethodOf } from './method.ts';
import { gainA, rank, ranks, scale, told } from './settings.ts';

const settings = {
  rank,
  ranks,
  scale,
  gainA,
  dyForm: told(z.enum(['prefix', 'prefix-last', 'block']).default('prefix'), {
    group: 'Model and adapters',
    help: 'dylora: the first b ranks, of them the last alone trained, or all with a block of them trained (kohya)',
  }),
  dyUnit: told(z.int().min(1).max(1024).default(1), {
    group: 'Model and adapters',
    value: 'n',
    help: 'dylora: ranks are drawn in multiples of this, a divisor of the rank',
  }),
};
type Dy = z.output<z.ZodObject<typeof settings>>;
/** `index`: 1, 2, … r, 0 for padding; `drawn`: how many ranks this step has */
type P = Adapter & { readonly index: Tensor; readonly drawn: Tensor };

/** 1 for ranks `from` < i ≤ `to` */
const between = (index: Tensor, from: Tensor | number, to: Tensor): Tensor => {
  const inside = logicalAnd(less(from, index), less(index, add(to, 0.5)));
  return where(inside, ones(index.shape, index.dtype), zeros(index.shape, index.dtype));
};

/**
 * The method `dylora`. The step draws b of 1 … r (multiples of `dyUnit`), the same for all modules; s is the scale at the full rank r.
 *   prefix       s·(r/b)·(x·A)·B of the first b ranks, which are trained (the paper: its alpha is s·r)
 *   prefix-last  the same, only rank b trained (the paper's faster variant)
 *   block        s·√(r/b)·(x·A)·B of all ranks, only b − unit + 1 … b trained (kohya's networks/dylora.py)
 * Ranks that are not trained in a step keep values, moments and ages. Validation and files take all ranks at s; cut to its
 * first b ranks a prefix adapter has the scale s·r/b.
 * Source: Valipour et al., DyLoRA: Parameter-Efficient Tuning of Pretrained Models using Dynamic Search-Free Low-Rank
 * Adaptation (2023), algorithm 1.
 */
export const dylora: MethodOf<typeof settings, P> = {
  name: 'dylora',
  doc: 'DyLoRA: a LoRA trained at ranks drawn by chance, usable at every smaller rank afterwards',
  source:
    'Valipour et al., DyLoRA: Parameter-Efficient Tuning of Pretrained Models using Dynamic Search-Free Low-Rank Adaptation (2023), algorithm 1',
  settings,
  problem(c) {
    if (c.method !== 'dylora' || c.rank % c.dyUnit === 0) return undefined;
    return { path: 'dyUnit', message: `is ${c.dyUnit}, expected a divisor of --rank ${c.rank}` };
  },
  nested: true,
  leastRank: () => 1,
  ranks: lowRank.ranks,
  label: (c) => `DyLoRA r=${c.rank}`,
  facts: (c) => ({ lambda: null, testEvery: null, scale: c.scale, initA: c.gainA }),
  room: (_c, most) => Math.max(1, most),
  fields: (place, rank) => ({
    ...lowRank.fields(place, rank),
    index: new Field([rank], 0, false),
    drawn: new Field([], null, false),
  }),
  // the first step takes all
  init: (places, ranks, key, c) =>
    Object.fromEntries(
      Object.entries(lowRank.init(places, ranks, key, c)).map(([path, adapter]) => {
        const index = Float32Array.from({ length: ranks[path]! }, (_, i) => i + 1);
        return [path, { ...adapter, index: tensor(index), drawn: tensor(ranks[path]!) }];
      }),
    ),
  attach(module, { A, B, index, drawn }, c) {
    const share = div(max(index), drawn);
    const scale = mul(c.dyForm === 'block' ? sqrt(share) : share, c.scale);
    const used = c.dyForm === 'block' ? A : mul(A, reshape(between(index, 0, drawn), [1, index.shape[0]!]));
    return { ...module, adapter: { ...inLayer(module, { A: used, B }, 1), scale } };
  },
  whole: (p) => ({ ...p, drawn: max(p.index) }),
  moved: ({ index, drawn }, c) =>
    between(index, c.dyForm === 'prefix' ? 0 : add(drawn, c.dyForm === 'block' ? -c.dyUnit : -1), drawn),
  after({ p, ...slot }, _g, { shared }, c) {
    const unit = (c as Dy).dyUnit;
    const whole = max(p.index);
    const blocks = div(whole, unit);
    // a u of 1 − 2⁻²⁵ must not round up to one block too many
    const at = floor(mul(mul(cast(uniform(shared, []), p.index.dtype), blocks), 1 - 2 ** -20));
    return { ...slot, p: { ...p, drawn: mul(add(at, 1), unit) } };
  },
  toFile: (module, place, c) => lowRank.toFile(module, place, c),
  fromFile: (module, c, fresh) => ({ ...fresh, ...lowRank.fromFile(module, c, fresh) }),
};
