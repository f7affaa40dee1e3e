import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LR_SCHEDULES, type LrSchedule, learningRate, lrScheduleSchema } from '../../../train/optimise/lr.ts';
import { verifyLr } from '../../../train/verify/lr.ts';
import { goldenDirectories, tally } from '../../support/golden-cases.ts';

describe('against diffusers', () => {
  it.each(goldenDirectories('methods.json', 'test/golden/lr'))('%s', async (directory) => {
    const { count, failed } = await tally(verifyLr(directory));
    expect(failed).toEqual([]);
    expect(count).toBe(14);
  });
});

const schedules = fc.record({
  name: fc.constantFrom(...LR_SCHEDULES),
  base: fc.double({ min: 1e-6, max: 1, noNaN: true }),
  total: fc.integer({ min: 1, max: 500 }),
  warmup: fc.integer({ min: 0, max: 100 }),
  power: fc.double({ min: 0.5, max: 3, noNaN: true }),
  rules: fc.constant('1:10,0.5:100,0.1'),
});

describe('properties', () => {
  it('stays between 0 and the base rate during the run and is proportional to it', () => {
    fc.assert(
      fc.property(schedules, fc.integer({ min: 0, max: 500 }), (schedule, k) => {
        const step = k % schedule.total;
        const rate = learningRate(step, { ...schedule, end: 0 });
        expect(rate).toBeGreaterThanOrEqual(0);
        expect(rate).toBeLessThanOrEqual(schedule.base * (1 + 1e-12));
        const twice = learningRate(step, { ...schedule, end: 0, base: 2 * schedule.base });
        expect(twice).toBeCloseTo(2 * rate, 12);
      }),
    );
  });

  it('warm-up is a straight line from 0 that meets the rest of the schedule', () => {
    for (const name of ['constant_with_warmup', 'linear', 'cosine', 'cosine_with_restarts', 'polynomial'] as const) {
      const schedule: LrSchedule = { name, base: 3, total: 40, warmup: 8 };
      for (let k = 0; k <= 8; k++) expect(learningRate(k, schedule)).toBeCloseTo((3 * k) / 8, 12);
    }
  });

  it('known points', () => {
    const at = (name: LrSchedule['name'], step: number, more: Partial<LrSchedule> = {}) =>
      learningRate(step, { name, base: 1, total: 100, ...more });
    expect(at('cosine', 50)).toBeCloseTo(0.5, 12);
    expect(at('cosine', 25)).toBeCloseTo((1 + Math.SQRT1_2) / 2, 12);
    expect(at('cosine_with_restarts', 50, { cycles: 2 })).toBe(1);
    expect(at('cosine_with_restarts', 25, { cycles: 2 })).toBeCloseTo(0.5, 12);
    expect(at('polynomial', 50, { power: 3, end: 0.2 })).toBeCloseTo(0.8 / 8 + 0.2, 12);
    expect(at('polynomial', 300, { end: 0.2 })).toBe(0.2);
    expect(at('linear', 300)).toBe(0);
    const rules = '0.5:20,1:10,0.1';
    expect([0, 9, 10, 19, 20, 99].map((k) => at('piecewise_constant', k, { rules }))).toEqual([
      1, 1, 0.5, 0.5, 0.1, 0.1,
    ]);
  });
});

describe('mistakes', () => {
  it.each([
    [{ name: 'cosin' }, 'name'],
    [{ base: -1 }, 'base'],
    [{ base: Number.NaN }, 'base'],
    [{ total: 1.5 }, 'total'],
    [{ warmup: -1 }, 'warmup'],
    [{ name: 'piecewise_constant' }, 'rules'],
    [{ name: 'piecewise_constant', rules: '1:5' }, 'rules'],
    [{ name: 'piecewise_constant', rules: '1:5:6,2' }, 'rules'],
    [{ name: 'piecewise_constant', rules: '1:x,2' }, 'rules'],
    [{ name: 'polynomial', base: 1e-8 }, 'end'],
  ])('%j', (change, field) => {
    const result = lrScheduleSchema.safeParse({ base: 1e-4, total: 10, ...change });
    expect(result.error?.issues.map((issue) => issue.path[0])).toEqual([field]);
  });
  it('a good one', () => {
    expect(lrScheduleSchema.parse({ base: 1e-4, total: 10 }).name).toBe('constant');
  });
});
