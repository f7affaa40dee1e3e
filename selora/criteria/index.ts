/** By what a module may grow: one file and one line each. The first is the default. */
import type { Criterion } from './criterion.ts';
import { fiRatio } from './fi-ratio.ts';
import { fiSnr } from './fi-snr.ts';
import { gain } from './gain.ts';
import { lossDecrease } from './loss-decrease.ts';

/** All of them. */
export const CRITERIA: readonly Criterion[] = [fiRatio, fiSnr, lossDecrease, gain];
