/** What a run is said to cost, and what is reduced: against sums written out by hand. */
import { describe, expect, it } from 'vitest';
import { resolveConfig } from '../../../train/config/resolve.ts';
import { type Cost, costLines, costOf, reduce } from '../../../train/estimate/cost.ts';
import type { Plan } from '../../../train/estimate/estimate.ts';
import type { Speed } from '../../../train/estimate/lines.ts';
import type { Settled } from '../../../train/estimate/settle.ts';

const cost: Cost = { step: 20, test: 5, pair: 12, picture: 80, encoding: 0.5 };
const config = (more: object = {}) =>
  resolveConfig({ criterion: 'fi-ratio', steps: 100, testEvery: 10, validateEvery: 50, ...more });
const open = () => true;

describe('cost', () => {
  it('adds up plans: per pair two grids of five timesteps, per report two pictures', () => {
    const plan = (name: string, flops: number): Plan =>
      ({ name, flops, convFlops: 0, widened: 0, workspaceBytes: 0, kernels: 1 }) as Plan;
    const plans = [
      plan('training step', 4e12),
      plan('step with expansion test', 5e12),
      plan('validation', 1.6e12),
      plan('drawing pictures', 3e12),
      plan('decoding pictures', 6e12),
      plan('encoding pictures', 8e12),
    ];
    const speed: Speed = { rate: 1e11, share: 0.5, convShare: 0.25, half: 1e-9 };
    const one = 20; // 1e12/(1e11 · 0.5)
    const settled = {
      config: config({ batch: 4, accumulate: 2, sampleSteps: 20 }),
      // 16 samples at a time in validation, 6 pictures drawn at a time, 8 encoded at a time
      shape: { side: 224, validationPairs: 32, samples: 6 },
      estimate: { plans },
    } as unknown as Settled;
    const got = costOf(settled, speed);
    expect(got.step).toBeCloseTo(2 * 4 * one, 9);
    expect(got.test).toBeCloseTo(2 * 1 * one, 9);
    expect(got.pair).toBeCloseTo((2 * 5 * 1.6 * one) / 16, 9);
    expect(got.picture).toBeCloseTo((2 * (20 * 3 + 6) * one) / 6, 9);
    expect(got.encoding).toBeCloseTo((8 * one) / 8, 9);
  });
});

describe('reduction', () => {
  // training: 100 · 20 s + 10 · 5 s = 2,050 s; a tenth is 205 s
  it('keeps validations and pictures to a tenth of the training each', () => {
    // 3 validations (before, at 50, at 100): 205/(3 · 12) = 5.7 pairs; 205/80 = 2.6 pictures, too few for obedience
    expect(reduce(config(), cost, open)).toEqual({ ...config(), validationPairs: 5, obedience: 0, samples: 2 });
    // a cheap model keeps everything
    const cheap = { ...cost, pair: 0.1, picture: 0.5 };
    expect(reduce(config(), cheap, open)).toEqual(config());
    // 205/8 = 25 pictures: enough for obedience
    expect(reduce(config(), { ...cheap, picture: 8 }, open)).toEqual({ ...config(), obedience: 25 });
  });

  it('never goes below four pairs and one picture, nor touches what was asked for, nor runs counted in epochs', () => {
    const dear = { ...cost, pair: 1e4, picture: 1e4 };
    expect(reduce(config(), dear, open)).toMatchObject({ validationPairs: 4, samples: 1, obedience: 0 });
    expect(reduce(config(), dear, (key) => key !== 'validationPairs')).toMatchObject({ validationPairs: 32 });
    expect(reduce(config(), dear, () => false)).toEqual(config());
    const epochs = resolveConfig({ epochs: 3 });
    expect(reduce(epochs, dear, open)).toEqual(epochs);
  });
});

describe('words', () => {
  it('tell the whole, its parts and what was reduced', () => {
    const asked = config();
    const c = reduce(asked, cost, open);
    // 2,050 s + 3 · 5 · 12 s + 2 · 80 s = 2,390 s
    expect(costLines(c, cost, asked)).toEqual([
      'time, on this machine idle: about 39 min 50 s for 100 steps: a step 20 s, an expansion test 5.0 s more, a validation 1 min 00 s, 2 reports drawn by base and adapted model 2 min 40 s, 0.5 s to encode each picture of the data',
      'kept in proportion to the training: --validation-pairs 5 (of 32), --obedience 0 (of 48), --samples 2 (of 6); give them to have them otherwise',
    ]);
    expect(costLines(asked, { ...cost, test: 0 }, asked)).toHaveLength(1);
    expect(costLines(resolveConfig({ epochs: 3 }), cost, resolveConfig({ epochs: 3 }))[0]).toMatch(
      /^time, on this machine idle: a step 20 s/,
    );
  });
});
