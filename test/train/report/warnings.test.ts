/** What the report warns of: nothing a reader must know stays out, and no number in it is another one. */
import { describe, expect, it } from 'vitest';
import { warningsOf } from '../../../train/report/head.ts';
import { PANELS } from '../../../train/report/panels/index.ts';
import { parseRecord } from '../../../train/run/record.ts';

const metrics = (steps: number) =>
  Array.from({ length: steps }, (_, i) => ({ step: i + 1, loss: 1, lr: 1e-4, totalRank: 1, seconds: i, memory: 1 }));
const of = (more: object) => warningsOf(parseRecord({ name: 'run', method: 'selora', ...more }), PANELS);

describe('captions', () => {
  const data = { source: 'films', splits: [{ name: 'train', images: 9, cut: 2 }] };
  it('cut at 77 ids are counted', () => {
    expect(of({ data })).toEqual(['2 of 9 captions are longer than 77 ids and were cut: the model never saw the end.']);
  });
  it('of several pieces are cut later', () => {
    expect(of({ data: { ...data, limit: 152 } })[0]).toContain('longer than 152 ids');
  });
});

describe('what the losses say', () => {
  const base = { loss: 0.97, shuffled: 0.968, gapError: 0.002 };
  const ended = (loss: number, gap: number) => ({
    validation: { n: 32, base },
    validations: [{ step: 100, loss, shuffled: loss + gap, gapError: 0.003 }],
  });
  it('a gap inside its noise', () => {
    // 0.004 ± t(31) · 0.003, t(31) = 2.0395
    expect(of(ended(0.5, 0.004))).toEqual([
      'The gap between exchanged and true reports, 0.004, lies inside its noise (95% interval −0.00212 to 0.0101, 32 pictures): it may be chance.',
    ]);
    expect(of(ended(0.5, 0.05))).toEqual([]);
  });
  it('a loss that is the untouched base’s', () => {
    expect(of(ended(0.969, 0.05))).toEqual([
      'The adapted model’s loss is the untouched base’s to within half a percent: both draw the same. Raise --lr.',
    ]);
  });
});

describe('data', () => {
  const split = (validation: number) => ({
    data: {
      source: 'films',
      splits: [
        { name: 'train', images: 24 },
        { name: 'validation', images: validation },
      ],
    },
  });
  it('too small for the split', () => {
    expect(of(split(3))).toEqual([
      'The data are small for the split: 3 validation pictures, at least 8 are needed to tell learning from chance. Give more pictures, or a larger part to --split.',
    ]);
    expect(of(split(8))).toEqual([]);
  });
  it('that are there several times', () => {
    expect(of({ data: { source: 'films', splits: [], duplicates: 2 } })).toEqual(['2 duplicate pictures in the data.']);
  });
});

describe('a run of SeLoRA without an expansion test', () => {
  it.each([6, 40])('%i steps, a test every 40', (steps) => {
    expect(of({ metrics: metrics(steps), testEvery: 40 })).toEqual([
      `No expansion test was made: ${steps} steps, one test every 40, none at the last. All ranks are as they began.`,
    ]);
  });
  it('is told where one was due', () => {
    expect(of({ metrics: metrics(41), testEvery: 40 })[0]).toContain('although one was due every 40');
  });
  it('of LoRA there are none', () => {
    expect(of({ method: 'lora', metrics: metrics(6) })).toEqual([]);
  });
});
