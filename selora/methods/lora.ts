/** LoRA: a fixed rank per module. */
import type { Adapter } from '../adapter.ts';
import { lowRank } from './low-rank.ts';
import type { MethodOf } from './method.ts';
import { gainA, rank, ranks, scale } from './settings.ts';

const settings = { rank, ranks, scale, gainA };

/**
 * The method `lora`: y = x·W0ᵀ + b + s·(x·A)·B with A[d_in, r] at random, B[r, d_out] zero, r fixed.
 * Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (2021), eq. 3.
 */
export const lora: MethodOf<typeof settings, Adapter> = {
  name: 'lora',
  doc: 'LoRA: W0 + s·A·B of a fixed rank, A at random, B zero',
  source: 'Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (2021), eq. 3',
  settings,
  ...lowRank,
  label: (c) => `LoRA r=${c.rank}`,
  facts: (c) => ({ lambda: null, testEvery: null, scale: c.scale, initA: c.gainA }),
  room: (_c, _most, own) => Math.max(1, own),
};
