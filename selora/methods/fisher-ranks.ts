/** LoRA whose ranks are dealt out once, before the first step, by the Fisher information of every layer. */
import { z } from 'zod';
import type { Adapter } from '../adapter.ts';
import { mapNetworks, networks } from '../networks.ts';
import { allocate } from './allocate.ts';
import { lora } from './lora.ts';
import { inputsOf, totalRankOf } from './low-rank.ts';
import type { MethodOf } from './method.ts';
import { told } from './settings.ts';

export const startBatches = told(z.int().min(1).max(1000).default(4), {
  group: 'Growth of ranks',
  value: 'n',
  help: 'fisher-ranks, lora-ga: batches whose gradient is looked at before the first step',
});
const settings = {
  ...lora.settings,
  startBatches,
  rankMost: told(z.int().min(1).max(1024).nullable().default(null), {
    group: 'Growth of ranks',
    value: 'r',
    help: 'fisher-ranks: largest rank of a module (default: four times --rank)',
  }),
};

/**
 * The method `fisher-ranks`: LoRA at ranks in proportion to mean (∂L/∂W)² of each layer, at least 1, whose sum is that of
 * --rank over all modules.
 * Source: the allocation by a diagonal Fisher matrix proposed to PEFT in 2026 (#3203); here with the gradient of the batches.
 */
export const fisherRanks: MethodOf<typeof settings, Adapter> = {
  ...lora,
  name: 'fisher-ranks',
  doc: 'LoRA, its ranks dealt out before the first step by mean (∂L/∂W)² of each layer',
  source: 'allocation by a diagonal Fisher matrix, proposed to PEFT in 2026 (#3203)',
  settings,
  label: (c) => `Fisher ranks, mean ${c.rank}`,
  begin: {
    batches: (c) => c.startBatches,
    ranks(g, ranks, places, c) {
      const all = networks.flatMap((n) => Object.keys(ranks[n]).map((path) => ({ n, path })));
      const scores = all.map(({ n, path }) => {
        const { data } = g[n][path]!;
        return data.reduce((s, x) => s + x * x, 0) / data.length;
      });
      const most = all.map(({ n, path }) => {
        const place = places[n].get(path)!;
        return Math.min(c.rankMost ?? 4 * c.rank, inputsOf(place), place[0]);
      });
      const budget = Math.min(
        totalRankOf(ranks),
        most.reduce((a, b) => a + b, 0),
      );
      const dealt = allocate(scores, budget, 1, most);
      const of = new Map(all.map(({ n, path }, i) => [`${n} ${path}`, dealt[i]!]));
      return mapNetworks(
        (own, n) => Object.fromEntries(Object.keys(own).map((path) => [path, of.get(`${n} ${path}`)!])),
        ranks,
      );
    },
  },
};
