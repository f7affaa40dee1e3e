/** The answer sentence on constructed runs, each of which has one right answer. */
import { describe, expect, test } from 'vitest';
import { answerOf } from '../../../train/report/answer.ts';
import { type Compared, parseRecord, type RunRecordInput } from '../../../train/run/record.ts';
import { meanWithError } from '../../../train/words/statistics.ts';
import { all, parse } from '../../support/report-dom.ts';
import { render } from '../../support/report-fixture.ts';

const base = { loss: 0.97, shuffled: 0.968, gapError: 0.002 };
const rows = (losses: readonly number[], gap: number, gapError = 0.003) =>
  losses.map((loss, i) => ({ step: 100 * (i + 1), loss, shuffled: loss + gap, gapError }));
const run = (input: Partial<RunRecordInput>): RunRecordInput => ({
  name: 'run',
  validation: { n: 32, base },
  metrics: [1, 2, 3].map((step) => ({ step, loss: 1 / step })),
  ...input,
});
const nearest = (below: number) => ({ nearest: { measure: 'm', threshold: 0.3, below, n: 48 } });
const learned = run({ validations: rows([0.4, 0.25, 0.17], 0.05), results: nearest(0) });
const verdictOf = (input: RunRecordInput, compared: readonly Compared[] = []) =>
  answerOf(parseRecord(input, compared))!;

describe('five runs, each with its answer', () => {
  test('learned: the gap and its interval are those of Student’s t', () => {
    const { verdict, sentences } = verdictOf(learned);
    expect(verdict).toBe('learned');
    // 0.05 ± t(31) · 0.003, t(31) = 2.0395: 0.0439 to 0.0561; base −0.002 ± 0.00408.
    expect(sentences[0]).toBe(
      'Yes, beyond noise. Exchanged reports cost a loss of 0.05 (95% interval 0.0439 to 0.0561) more than true ones on 32 held-out pictures, of the untouched base −0.002 (95% interval −0.00608 to 0.00208).',
    );
  });

  test('memorised: copies, or a validation loss that rises again', () => {
    const copied = verdictOf({ ...learned, results: nearest(12) });
    expect(copied.verdict).toBe('memorised');
    expect(copied.sentences[0]).toContain('12 of 48 samples lie closer to a training picture');
    const rose = verdictOf(run({ validations: rows([0.4, 0.25, 0.36], 0.05), results: nearest(0) }));
    expect(rose.verdict).toBe('memorised');
    expect(rose.sentences[0]).toContain('rose from 0.25 at step 200 to 0.36 at step 300');
    // One copy among 48 is what held-out pictures have, too.
    expect(verdictOf({ ...learned, results: nearest(1) }).verdict).toBe('learned');
  });

  test('nothing learned: a gap inside its noise, or no larger than the untouched base’s', () => {
    const noise = verdictOf(run({ validations: rows([0.9, 0.6, 0.5], 0.004) }));
    expect(noise.verdict).toBe('nothing learned');
    expect(noise.sentences[0]).toContain('No: the reports make no difference beyond noise.');
    const asBefore = { ...base, shuffled: 1.02 };
    expect(
      verdictOf(run({ validation: { n: 32, base: asBefore }, validations: rows([0.9, 0.6, 0.5], 0.052) })).verdict,
    ).toBe('nothing learned');
    const untouched = verdictOf(run({ validations: rows([0.97], 0.001) }));
    expect(untouched.sentences.join(' ')).toContain('raise --lr');
  });

  test('too few pictures: no interval is made of three', () => {
    const few = verdictOf(run({ validation: { n: 3, base }, validations: rows([0.4, 0.2], 0.2) }));
    expect(few.verdict).toBe('too few pictures');
    expect(few.sentences[0]).toBe(
      'It cannot be told: 3 validation pictures are too few, at least 8 are needed. Give more pictures, or a larger part to --split.',
    );
  });

  test('diverged: a loss that is not finite, or far above the untouched base’s', () => {
    const broken = verdictOf({ ...learned, metrics: [{ step: 7, loss: Number.NaN }] });
    expect(broken.verdict).toBe('diverged');
    expect(broken.sentences[0]).toContain('at step 7 the loss is not finite. Lower --lr');
    const away = verdictOf(run({ validations: rows([0.4, 3.2], 0.05) }));
    expect([away.verdict, away.sentences[1]]).toEqual(['diverged', 'Its lowest validation loss was 0.4 at step 100.']);
  });
});

test('without exchanged reports there is no answer, without an error none beyond the number', () => {
  expect(answerOf(parseRecord({ name: 'run' }))).toBeUndefined();
  const old = run({ validations: [{ step: 1, loss: 0.4, shuffled: 0.5 }] });
  expect(verdictOf(old).verdict).toBe('unclear');
});

test('another run’s gap is compared beyond noise only', () => {
  const other = (gap: number): Compared => ({
    label: 'LoRA r=4',
    method: 'lora',
    parameters: 125_376,
    validations: rows([0.2, 0.18], gap),
    results: {},
  });
  const against = (gap: number) => verdictOf(learned, [other(gap)]).sentences.at(-1);
  expect(against(0.02)).toBe(
    'Against LoRA r=4 with 125\u202f376 parameters: its gap is 0.02, this one’s 0.05; more is learned here.',
  );
  expect(against(0.049)).toContain('no difference beyond noise');
  expect(against(0.09)).toContain('less is learned here');
});

test('on built-in data the detectors are told, with what they make of real films', () => {
  const score = (right: number) => [
    { question: 'each lung right', right, n: 96 },
    { question: 'whole report right', right: right >> 2, n: 48 },
  ];
  const table = [
    ['always normal', 46],
    ['real films', 94],
    ['selora', 65],
  ].map(([method, right]) => ({ method: String(method), scores: score(Number(right)) }));
  const { sentences } = verdictOf({ ...learned, results: { obedience: { what: 'w', rows: table } } });
  expect(sentences[1]).toBe(
    'Detectors read 65 of 96 lungs as told (drawing every film normal 46 of 96, the real films 94 of 96), the whole report in 16 of 48 pictures.',
  );
});

test('the answer stands right below the question', async () => {
  const page = parse((await render(learned)).html);
  expect(page.querySelector('h1 + p.answer')!.textContent).toMatch(/^Yes, beyond noise\./);
  expect(all(page, '.answer')).toHaveLength(1);
});

test('the standard error of paired differences is that of the textbook', () => {
  // 1, 2, 3, 4: mean 2.5, deviation √(5/3), error √(5/3)/2.
  const { mean, error } = meanWithError([1, 2, 3, 4]);
  expect(mean).toBe(2.5);
  expect(error).toBeCloseTo(Math.sqrt(5 / 3) / 2, 14);
  expect(meanWithError([1]).error).toBeNaN();
});
