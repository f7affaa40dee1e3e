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
