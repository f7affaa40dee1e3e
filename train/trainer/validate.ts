/** The validation loss: a fixed grid of noise and timesteps over held-out pairs, with their own reports and exchanged ones. */
import { read } from '../../core/index.ts';
import type { Encoded } from '../model/encode.ts';
import { inTurns } from '../parallel/means.ts';
import type { Peers } from '../parallel/peers.ts';
import type { BatchSource } from '../step/batches.ts';
import { type Batch, type Frozen, paramsOf, type State, type Steps } from '../step/step.ts';
import { meanWithError } from '../words/statistics.ts';

/**
 * Mean losses; NaN where there are no pairs. `gapError`: the standard error of their difference (exchanged − true), one
 * difference per picture; missing below two pictures.
 */
export type Validated = {
  readonly loss: number;
  readonly shuffled: number;
  readonly gapError?: number | undefined;
  /** with their own reports, at each timestep of the grid */
  readonly byTimestep?: { t: number; loss: number }[] | undefined;
};

/** Measures a state on the grid over these pairs; several processes take its batches in turns. Cost: two passes over it. */
export function validator(
  programs: Pick<Steps, 'losses'>,
  frozen: Frozen,
  batches: BatchSource,
  pairs: readonly Encoded[],
  peers?: Peers,
): (state: State) => Promise<Validated> {
  const grid = { loss: batches.validation(pairs, false), shuffled: batches.validation(pairs, true) };
  const measure = async (state: State, which: keyof typeof grid) => {
    const each: number[] = [];
    const of = async (b: Batch) => read(programs.losses(paramsOf(state), frozen, b));
    const all = grid[which];
    if (peers) {
      const widths = all.map((b) => b.t.shape[0]!);
      for (const losses of await inTurns(widths, (i) => of(all[i]!), peers)) each.push(...losses);
    } else for (const b of all) each.push(...(await of(b)));
    return { each, mean: each.length === 0 ? Number.NaN : each.reduce((sum, l) => sum + l, 0) / each.length };
  };
  const perPicture = batches.grid.length;
  return async (state) => {
    const [own, other] = [await measure(state, 'loss'), await measure(state, 'shuffled')];
    const gaps = pairs.map((_, i) => {
      let gap = 0;
      for (let k = i * perPicture; k < (i + 1) * perPicture; k++) gap += other.each[k]! - own.each[k]!;
      return gap / perPicture;
    });
    const { error } = meanWithError(gaps);
    // the grid of a picture follows that of the one before
    const byTimestep = batches.grid.map((t, k) => {
      const at = own.each.filter((_, i) => i % perPicture === k);
      return { t, loss: at.reduce((sum, l) => sum + l, 0) / at.length };
    });
    return {
      loss: own.mean,
      shuffled: other.mean,
      ...(Number.isFinite(error) ? { gapError: error } : {}),
      ...(own.each.length > 0 ? { byTimestep } : {}),
    };
  };
}
