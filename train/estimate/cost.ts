/**
 * What a run will cost in time, from its plans, before it begins; and, for large models, how much of the measuring and
 * drawing around the training stays in proportion to it.
 */
import { methodOf } from '../../selora/methods/registry.ts';
import type { RunConfig } from '../config/config.ts';
import { pairsPerEncoding } from '../model/encode.ts';
import { VALIDATION_BATCH, VALIDATION_GRID } from '../step/batches.ts';
import { counted, duration } from '../words/format.ts';
import { type Speed, secondsOf } from './lines.ts';
import type { Settled } from './settle.ts';

/** Seconds of the parts of a run. */
export type Cost = {
  /** one update */
  readonly step: number;
  /** what an expansion test adds to its update */
  readonly test: number;
  /** one validation pair, measured once: its timesteps, with its own report and with another's */
  readonly pair: number;
  /** one held-out report drawn by the base and by the adapted model */
  readonly picture: number;
  /** one training picture read by the autoencoder */
  readonly encoding: number;
};

export function costOf({ estimate, config: c, shape }: Settled, speed: Speed): Cost {
  const seconds = (name: string): number => {
    const plan = estimate.plans.find((p) => p.name === name);
    return plan === undefined ? 0 : secondsOf(plan, speed);
  };
  const step = seconds('training step');
  const measured = Math.min(VALIDATION_BATCH, VALIDATION_GRID.length * shape.validationPairs);
  const drawing = c.sampleSteps * seconds('drawing pictures') + seconds('decoding pictures');
  return {
    step: c.accumulate * step,
    test: Math.max(0, c.accumulate * (seconds('step with expansion test') - step)),
    pair: (2 * VALIDATION_GRID.length * seconds('validation')) / measured,
    picture: (2 * drawing) / Math.max(1, shape.samples),
    encoding: seconds('encoding pictures') / pairsPerEncoding(shape.side),
  };
}

/** Updates of a run where they are known before its data are read. */
const stepsOf = (c: RunConfig): number | undefined => (c.epochs === null ? c.steps : undefined);
const validationsOf = (c: RunConfig, steps: number): number =>
  1 + Math.floor(steps / c.validateEvery) + (steps % c.validateEvery === 0 ? 0 : 1);
const trainingSeconds = (c: RunConfig, cost: Cost, steps: number): number =>
  steps * cost.step + (methodOf(c.method).growth?.count(c, steps) ?? 0) * cost.test;
const drawn = (c: RunConfig): number => (c.data === 'phantoms' ? Math.max(c.samples, c.obedience) : c.samples);

/** Seconds of the whole run; undefined where its length is known from its data only. */
export function runSeconds(c: RunConfig, cost: Cost): number | undefined {
  const steps = stepsOf(c);
  if (steps === undefined) return undefined;
  const around = validationsOf(c, steps) * c.validationPairs * cost.pair + drawn(c) * cost.picture;
  return trainingSeconds(c, cost, steps) + around;
}

/** Share of the training's time that validations, and that pictures, may take. */
const SHARE = 0.1;
/** Fewer reports than this say nothing about a model's obedience. */
const LEAST_OBEDIENCE = 12;
type Reducible = 'validationPairs' | 'obedience' | 'samples';

/**
 * Fewer validation pairs and pictures where they would take more than a tenth of the training's time each. Only settings
 * that the person left open are touched.
 * @example reduce(config, cost, (key) => options[key] === undefined)
 */
export function reduce(c: RunConfig, cost: Cost, isOpen: (key: Reducible) => boolean): RunConfig {
  const steps = stepsOf(c);
  if (steps === undefined) return c;
  const budget = SHARE * trainingSeconds(c, cost, steps);
  const pairs = Math.max(4, Math.floor(budget / (validationsOf(c, steps) * cost.pair)));
  const pictures = Math.floor(budget / cost.picture);
  const obedience = pictures >= LEAST_OBEDIENCE ? pictures : 0;
  const limit = (key: Reducible, most: number) => (isOpen(key) ? Math.min(c[key], most) : c[key]);
  return {
    ...c,
    validationPairs: limit('validationPairs', pairs),
    obedience: limit('obedience', obedience),
    samples: limit('samples', Math.max(1, pictures)),
  };
}

/** What the run will take, in words: the whole and its parts, then what was reduced. */
export function costLines(c: RunConfig, cost: Cost, asked: RunConfig, atLeast = false): readonly string[] {
  const steps = stepsOf(c);
  const n = drawn(c);
  const validation = c.validationPairs * cost.pair;
  const parts = [
    `a step ${duration(cost.step)}`,
    ...(cost.test > 0 ? [`an expansion test ${duration(cost.test)} more`] : []),
    `a validation ${duration(validation)}`,
    ...(n > 0 ? [`${counted(n, 'report')} drawn by base and adapted model ${duration(n * cost.picture)}`] : []),
    `${duration(cost.encoding)} to encode each picture of the data`,
  ];
  const seconds = runSeconds(c, cost);
  const whole = seconds === undefined ? '' : `about ${duration(seconds)} for ${counted(steps!, 'step')}: `;
  const reduced = (['validationPairs', 'obedience', 'samples'] as const)
    .filter((key) => c[key] !== asked[key])
    .map((key) => `--${key.replace('P', '-p')} ${c[key]} (of ${asked[key]})`);
  return [
    `time, on this machine idle${atLeast ? ', at least' : ''}: ${whole}${parts.join(', ')}`,
    ...(reduced.length > 0
      ? [`kept in proportion to the training: ${reduced.join(', ')}; give them to have them otherwise`]
      : []),
  ];
}
