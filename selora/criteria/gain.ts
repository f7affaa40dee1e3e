/**
 * Ranks where they pay: the strongest directions of ∂L/∂ΔW, each judged on data it was not taken from by what Adam's first
 * step on it would lower the loss by, given out by gain per parameter.
 */
import { z } from 'zod';
import type { HostArray, Tensor } from '../../core/index.ts';
import type { Adapter } from '../adapter.ts';
import { type Probe, type Probed, probed, withProbe } from '../gain/probe.ts';
import { countOf, type Gained, type Gaining, gainTest, isDue, widthOf } from '../gain/test.ts';
import { inputsOf } from '../methods/low-rank.ts';
import { Field, type Growth } from '../methods/method.ts';
import { installed, type Trial } from '../trial.ts';
import type { OwnTest } from './criterion.ts';

const growth: Growth<Adapter, Gaining, Probe, Probed<Tensor>, Probed<HostArray>, never, Gained, Trial> = {
  before: () => true,
  due: isDue,
  count: countOf,
  trial(place, _room, c) {
    const q = widthOf(place, c.probe);
    return { K: new Field([inputsOf(place), q]), R: new Field([q, place[0]]) };
  },
  place: withProbe,
  // no update is ever made beside a probe
  settle: (g) => g,
  measure: () => probed,
  install: (slot, trial) => installed(slot, trial, false),
  test: gainTest,
  memory: z.never(),
};
/** Gain per parameter, `--criterion gain`. */
export const gain: OwnTest = {
  name: 'gain',
  growth,
  problem: ({ fiBatches }) =>
    fiBatches === 1
      ? { path: 'fiBatches', message: 'is 1, expected at least 2: criterion gain judges one batch by another' }
      : undefined,
};
