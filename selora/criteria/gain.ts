/**
 * Ranks where they pay: the strongest directions of ∂L/∂ΔW, each judged on data it was not taken from by what Adam's first
 * step on it would lower the loss by, given out by gain per parameter.
 */
import { z } from 'zod';
import type { HostArray, Tensor } from '../../core/index.ts';
import type { Adapter } from '../adapter.ts';
import { type Asked, type Probe, probed, type Sketched, widthOf, withProbe } from '../gain/probe.ts';
import { countOf, type Gaining, isDue } from '../gain/schedule.ts';
import { type Gained, gainTest, type Moved } from '../gain/test.ts';
import { inputsOf } from '../methods/low-rank.ts';
import { Field, type Growth } from '../methods/method.ts';
import { reordered } from '../methods/reorder.ts';
import { installed } from '../trial.ts';
import type { OwnTest } from './criterion.ts';

type Reads<T> = Sketched<T> | Asked<T>;
const growth: Growth<Adapter, Gaining, Probe, Reads<Tensor>, Reads<HostArray>, never, Gained, Moved> = {
  before: () => true,
  byBatch: () => true,
  due: isDue,
  count: countOf,
  trial(place, _room, c) {
    const q = widthOf(place, c.probe);
    // columns beside which single samples are asked, the larger of its probes
    return { K: new Field([inputsOf(place), q]) };
  },
  place: withProbe,
  // no update is ever made beside a probe
  settle: (g) => g,
  measure: () => probed,
  install(slot, { order, ...trial }) {
    return installed(order ? reordered(slot, order) : slot, trial, false);
  },
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
