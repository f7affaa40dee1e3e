import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { makeSchedule, parseSchedulerConfig, SD15_SCHEDULER, snr } from '../../models/schedulers/index.ts';
import { LOSS_WEIGHTS, lossWeight, lossWeightSchema, lossWeights } from '../../models/schedulers/loss-weights.ts';
import { offsetNoise } from '../../models/schedulers/noise-offset.ts';
import { verifyWeights } from '../../train/verify/loss-weights.ts';
import { goldenDirectories, tally } from '../support/golden-cases.ts';

describe('against kohya-ss and diffusers', () => {
  it.each(goldenDirectories('weights.json'))('%s', async (directory) => {
    const { count, failed } = await tally(verifyWeights(directory));
    expect(failed).toEqual([]);
    expect(count).toBeGreaterThanOrEqual(14);
  });
});

const level = fc.double({ min: 1e-4, max: 1e4, noNaN: true });

describe('properties', () => {
  /** |ε̂−ε|² = SNR·|x̂₀−x₀|² and |v̂−v|² = (SNR+1)·|x̂₀−x₀|²: a weight on x₀ has the same meaning in all three forms. */
  it('min-snr is one weight on x₀ in all three predictions', () => {
    fc.assert(
      fc.property(level, fc.double({ min: 0.1, max: 50, noNaN: true }), (s, gamma) => {
        const weight = { name: 'min-snr', gamma } as const;
        const onX0 = lossWeight(weight, 'sample', s);
        expect((lossWeight(weight, 'epsilon', s) * s) / onX0).toBeCloseTo(1, 12);
        expect((lossWeight(weight, 'v_prediction', s) * (s + 1)) / onX0).toBeCloseTo(1, 12);
      }),
    );
  });

  it('clip-snr is 1/SNR between its bounds and never outside them', () => {
    fc.assert(
      fc.property(level, (s) => {
        const w = lossWeight({ name: 'clip-snr', low: 0.01, high: 20 }, 'epsilon', s);
        if (1 / s > 0.01 && 1 / s < 20) expect(w * s).toBeCloseTo(1, 12);
        else expect([0.01, 20]).toContain(w);
      }),
    );
    expect(lossWeight({ name: 'clip-snr' }, 'v_prediction', 0)).toBe(8);
  });

  it('every weight is positive and finite over SD 1.5’s schedule; all but plain favour noisy timesteps over the last bits of grain', () => {
    const table = snr(makeSchedule(SD15_SCHEDULER));
    for (const prediction of ['epsilon', 'v_prediction'] as const)
      for (const name of LOSS_WEIGHTS) {
        const weights = lossWeights({ name }, prediction, table);
        expect(weights.every((w) => w > 0)).toBe(true);
        if (name !== 'plain' && name !== 'v-like-noise') expect(weights[400]! / weights[0]!).toBeGreaterThan(1);
      }
  });

  it('zero terminal SNR: refused where the weight is not a number, and by name', () => {
    const config = parseSchedulerConfig({ ...SD15_SCHEDULER, rescale_betas_zero_snr: true });
    const table = snr(makeSchedule(config));
    expect(() => lossWeights({ name: 'min-snr' }, 'epsilon', table)).toThrow(
      /min-snr .*epsilon is NaN at timestep 999/,
    );
    expect(() => lossWeights({ name: 'debiased' }, 'epsilon', table)).toThrow(/Infinity at timestep 999/);
    expect(lossWeights({ name: 'min-snr' }, 'v_prediction', table)[999]).toBe(0);
  });

  it.each([{ name: 'min' }, { gamma: 0 }, { low: 9, high: 8 }, { low: 10 }, { high: -1 }])('refuses %j', (settings) => {
    expect(lossWeightSchema.safeParse(settings).success).toBe(false);
  });
});

describe('noise offset', () => {
  it('shifts each channel by offset·z and leaves the rest alone', () => {
    const noise = Float32Array.from({ length: 12 }, (_, i) => i);
    const shifted = offsetNoise(noise, Float32Array.of(1, -2, 0), noise, { offset: 0.5 });
    expect([...shifted].map((value, i) => value - noise[i]!)).toEqual([0.5, 0.5, 0.5, 0.5, -1, -1, -1, -1, 0, 0, 0, 0]);
  });
  it('refuses lengths that do not fit', () => {
    const x = new Float32Array(12);
    expect(() => offsetNoise(x, new Float32Array(5), x, { offset: 0.1 })).toThrow(/12 .* 5 values/);
    expect(() => offsetNoise(x, new Float32Array(3), new Float32Array(4), { offset: 0.1 })).toThrow(/do not fit/);
  });
});
