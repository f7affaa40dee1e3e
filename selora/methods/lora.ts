/** LoRA: a fixed rank per module. */
import type { z } from 'zod';
import type { Adapter } from '../adapter.ts';
import { lowRank } from './low-rank.ts';
import type { Method } from './method.ts';
import { gainA, rank, ranks, scale } from './settings.ts';

const settings = { rank, ranks, scale, gainA };
type Lora = z.output<z.ZodObject<typeof settings>>;

/** The method `lora`. */
export const lora = {
  name: 'lora',
  doc: 'LoRA: W0 + s·A·B of a fixed rank, A at random, B zero',
  source: 'Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (2021), eq. 3',
  settings,
  ...lowRank,
  label: (c) => `LoRA r=${c.rank}`,
  facts: (c) => ({ lambda: null, testEvery: null, scale: c.scale, initA: c.gainA }),
  room: (_c, most) => Math.max(1, most),
} as const satisfies Method<Adapter, Lora>;
