/** Scores smoothed over the tests of a module: an exponential mean, begun anew when the module grows. */
import type { Scores } from './fisher.ts';

/** Sums of a module's tests, each weighted by (1 − β)·β^age, and how many tests went in. */
export interface Memory extends Scores {
  /** how many tests went in */
  readonly tests: number;
}

/**
 * mₖ = β·mₖ₋₁ + (1−β)·sₖ, and mₖ/(1−βᵏ): the weighted mean of all k scores, so that the first test counts as it is.
 * @example smooth(undefined, { fiA: 1, fiB: 2, fiNew: 1 }, 0.6).scores // { fiA: 1, fiB: 2, fiNew: 1 }
 */
export function smooth(
  before: Memory | undefined,
  now: Scores,
  beta: number,
): { readonly memory: Memory; readonly scores: Scores } {
  const tests = (before?.tests ?? 0) + 1;
  const mix = (m: number | undefined, s: number) => beta * (m ?? 0) + (1 - beta) * s;
  const memory: Memory = {
    fiA: mix(before?.fiA, now.fiA),
    fiB: mix(before?.fiB, now.fiB),
    fiNew: mix(before?.fiNew, now.fiNew),
    ...(now.gain === undefined ? {} : { gain: mix(before?.gain, now.gain) }),
    tests,
  };
  const all = 1 - beta ** tests;
  const { fiA, fiB, fiNew, gain } = memory;
  return {
    memory,
    scores: { fiA: fiA / all, fiB: fiB / all, fiNew: fiNew / all, ...(gain === undefined ? {} : { gain: gain / all }) },
  };
}
