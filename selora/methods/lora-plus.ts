/** LoRA whose two sides learn at different rates. */
import { z } from 'zod';
import type { Adapter } from '../adapter.ts';
import { lora } from './lora.ts';
import type { MethodOf } from './method.ts';
import { told } from './settings.ts';

const settings = {
  ...lora.settings,
  rateRatio: told(z.number().gt(0).max(1e4).default(16), {
    group: 'Model and adapters',
    value: 'ratio',
    help: 'lora-plus: how much faster B learns than A, whose rate --lr is',
  }),
};

/**
 * The method `lora-plus`: LoRA with the rate η on A and λ·η on B (λ = 16 in the paper).
 * Source: Hayou et al., LoRA+: Efficient Low Rank Adaptation of Large Models (2024), section 4.
 */
export const loraPlus: MethodOf<typeof settings, Adapter> = {
  ...lora,
  name: 'lora-plus',
  doc: 'LoRA+: LoRA, B learning faster than A by a ratio',
  source: 'Hayou et al., LoRA+: Efficient Low Rank Adaptation of Large Models (2024), section 4',
  settings,
  label: (c) => `LoRA+ r=${c.rank}`,
  rates: (c) => ({ B: c.rateRatio }),
};
