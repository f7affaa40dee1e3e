/** LoRA whose ranks are dealt out once, before the first step, by the Fisher information of every layer. */
import { z } from 'zod';
import type { Adapter } from '../adapter.ts';
import { mapModules } from '../networks.ts';
import { type Bounds, checkBounds, dealt } from './allocate.ts';
import { lora } from './lora.ts';
import { ranksAtStart } from './low-rank.ts';
import type { MethodOf } from './method.ts';
import { budgetParameters, told } from './settings.ts';

export const startBatches = told(z.int().min(1).max(1000).default(4), {
  group: 'Growth of ranks',
  value: 'n',
  help: 'fisher-ranks, lora-ga, gora: batches whose gradient is looked at before the first step',
});
export const rankMost = told(z.int().min(1).max(1024).nullable().default(null), {
  group: 'Growth of ranks',
  value: 'r',
  help: 'fisher-ranks, gora, eva: largest rank of a module (default: four times --rank, eva twice)',
});
const settings = {
  ...lora.settings,
  startBatches,
  rankMost,
  budgetParameters,
};
type FisherRanks = z.output<z.ZodObject<typeof settings>>;
const boundsOf = (c: FisherRanks): Bounds => ({
  least: 1,
  most: c.rankMost ?? 4 * c.rank,
  parameters: c.budgetParameters,
});
/** what a run with a budget is called by in place of its mean rank */
export const sizeOf = (c: Pick<FisherRanks, 'rank' | 'budgetParameters'>): string =>
  c.budgetParameters === null ? `mean ${c.rank}` : `${c.budgetParameters.toLocaleString('en-US')} parameters`;

/**
 * The method `fisher-ranks`: LoRA at ranks in proportion to mean (∂L/∂W)² of each layer, at least 1, whose sum is that of
 * --rank over all modules, or has --budget-parameters.
 * Source: the allocation by a diagonal Fisher matrix proposed to PEFT in 2026 (#3203); here with the gradient of the batches.
 */
export const fisherRanks: MethodOf<typeof settings, Adapter> = {
  ...lora,
  name: 'fisher-ranks',
  doc: 'LoRA, its ranks dealt out before the first step by mean (∂L/∂W)² of each layer',
  source: 'allocation by a diagonal Fisher matrix, proposed to PEFT in 2026 (#3203)',
  settings,
  ranks(c, places, known) {
    const ranks = ranksAtStart(c, places, known);
    checkBounds(boundsOf(c), ranks, places);
    return ranks;
  },
  label: (c) => `Fisher ranks, ${sizeOf(c)}`,
  begin: {
    batches: (c) => c.startBatches,
    keep: ({ gradient: { data } }) => data.reduce((s, x) => s + x * x, 0) / data.length,
    ranks: (kept, ranks, places, c) =>
      dealt(
        mapModules((score) => score as number, kept),
        ranks,
        places,
        boundsOf(c),
      ),
  },
};
