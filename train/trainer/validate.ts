/** The validation loss: a fixed grid of noise and timesteps over held-out pairs, with their own reports and exchanged ones. */
import { read } from '../../core/index.ts';
import type { Encoded } from '../model/encode.ts';
import type { BatchSource } from '../step/batches.ts';
import { type Frozen, paramsOf, type State, type Steps } from '../step/step.ts';

/** Mean losses; NaN where there are no pairs. */
export type Validated = { readonly loss: number; readonly shuffled: number };

/** Measures a state on the grid over these pairs. Cost: two passes over it. */
export function validator(
  programs: Pick<Steps, 'losses'>,
  frozen: Frozen,
  batches: BatchSource,
  pairs: readonly Encoded[],
): (state: State) => Promise<Validated> {
  const grid = { loss: batches.validation(pairs, false), shuffled: batches.validation(pairs, true) };
  const mean = async (state: State, which: keyof typeof grid): Promise<number> => {
    let [sum, n] = [0, 0];
    for (const b of grid[which]) {
      const losses = await read(programs.losses(paramsOf(state), frozen, b));
      for (const l of losses) sum += l;
      n += losses.length;
    }
    return n === 0 ? Number.NaN : sum / n;
  };
  return async (state) => ({ loss: await mean(state, 'loss'), shuffled: await mean(state, 'shuffled') });
}
