/** Settings of methods that score ranks or modules by their sensitivity, and when such methods change ranks. */
import { z } from 'zod';
import { told } from './settings.ts';

const group = 'Growth of ranks';
const count = z.int().min(0).max(1e9);
const share = z.number().min(0).max(0.9999).default(0.85);

export const budgetSettings = {
  targetRank: told(z.int().min(1).max(1024).nullable().default(null), {
    group,
    value: 'r',
    help: 'mean rank at the end (default: adalora two thirds of --rank, increlora four times --rank)',
  }),
  budgetWarmup: told(count.default(100), {
    group,
    value: 'n',
    help: 'adalora, increlora, elalora, alora: steps before ranks change',
  }),
  budgetFinal: told(count.default(300), {
    group,
    value: 'n',
    help: 'adalora, increlora, elalora, alora: last steps, with the ranks there are then',
  }),
  budgetEvery: told(z.int().min(1).max(1e9).default(10), {
    group,
    value: 'n',
    help: 'adalora, increlora, elalora, alora: steps between changes of ranks',
  }),
  sensitivityDecay: told(share, {
    group,
    value: 'beta',
    help: 'adalora, increlora, elalora: smooths the sensitivity |p·∂p|',
  }),
  uncertaintyDecay: told(share, { group, value: 'beta', help: 'adalora, increlora, elalora: smooths its uncertainty' }),
  orthogonality: told(z.number().min(0).max(1e3).default(0.5), {
    group,
    value: 'w',
    help: 'adalora, increlora, elalora: weight of ‖AᵀA − 1‖ and ‖BBᵀ − 1‖ in the loss',
  }),
};
export const moveRanks = told(z.int().min(1).max(100_000).nullable().default(null), {
  group,
  value: 'n',
  help: 'elalora, alora: ranks that move at a change, with elalora fewer later (default: one for every four modules)',
});

type Phases = { readonly budgetWarmup: number; readonly budgetFinal: number; readonly budgetEvery: number };

/** What is wrong where warm-up and final phase leave no step between them. */
export function budgetProblem(c: Pick<Phases, 'budgetWarmup' | 'budgetFinal'>) {
  const { steps, epochs } = c as { readonly steps?: number; readonly epochs?: number | null };
  if (steps === undefined || (epochs ?? null) !== null || c.budgetWarmup + c.budgetFinal < steps) return undefined;
  return {
    path: 'budgetFinal',
    message: `--budget-warmup ${c.budgetWarmup} and --budget-final ${c.budgetFinal} leave none of ${steps} steps between them`,
  };
}

/** Ranks that move where nothing else is asked for: one for every four modules. */
export const movesOrDefault = (c: { readonly moveRanks: number | null }, modules: number): number =>
  c.moveRanks ?? Math.max(1, Math.round(modules / 4));

/** Whether a 1-based step is the last of a period that is counted from the end of the warm-up, before the final phase. */
export const movesAfter = (c: Phases, step: number, steps: number): boolean => {
  const k = step - 1;
  return k > c.budgetWarmup && k < steps - c.budgetFinal && (k - c.budgetWarmup) % c.budgetEvery === 0;
};
/** How many of the 1-based steps from `first` to `steps` are due. */
export const countDue = (due: (step: number) => boolean, steps: number, first = 1): number =>
  Array.from({ length: Math.max(0, steps - first + 1) }, (_, i) => first + i).filter(due).length;
