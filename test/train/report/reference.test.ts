/** Reference runs stand beside a run only where they may. */
import { describe, expect, test } from 'vitest';
import { resolveConfig } from '../../../train/config/resolve.ts';
import { comparable, type Reference } from '../../../train/report/reference/reference.ts';
import { parseRecord } from '../../../train/run/record.ts';

const base = 'ab'.repeat(32);
const data = 'phantoms/1/700/80/10/10';
/** A run as its folder tells it. */
const runOf = (settings: Parameters<typeof resolveConfig>[0], more: { base?: string; data?: string } = {}) => {
  const config = resolveConfig(settings);
  return parseRecord({
    name: 'run',
    method: config.method,
    settings: config as never,
    base: more.base ?? base,
    data: { source: 'phantoms', splits: [{ name: 'train', images: 560, hash: more.data ?? data }] },
  });
};
const { threads: _, ...lora } = resolveConfig({ method: 'lora', rank: 4 });
const reference: Reference = {
  command: 'npm run train -- --method lora --rank 4',
  version: '0.1.0',
  date: '2026-11-29',
  base,
  data,
  settings: lora as never,
  label: 'LoRA r=4',
  method: 'lora',
  parameters: 125_376,
  validations: [{ step: 100, loss: 0.2, shuffled: 0.25 }],
  results: {},
};

describe('a reference is compared with', () => {
  test.each([
    ['a default run', runOf({})],
    ['another rank', runOf({ method: 'lora', rank: 8 })],
    ['other growth, elsewhere, with other pictures', runOf({ lambda: 1.3, threads: 7, samples: 2, backend: 'cpu' })],
  ])('%s', (_, run) => {
    expect(comparable(run, reference)).toBe(true);
  });
  test.each([
    ['itself', runOf({ method: 'lora', rank: 4 })],
    ['another base', runOf({}, { base: 'cd'.repeat(32) })],
    ['other data', runOf({}, { data: 'phantoms/1/100/80/10/10' })],
    ['another seed', runOf({ seed: 2 })],
    ['another learning rate', runOf({ lr: 1e-3 })],
    ['fewer steps', runOf({ steps: 200 })],
    ['another loss', runOf({ captionDropout: 0 })],
    ['other layers', runOf({ targets: 'attn' })],
    ['another grid', runOf({ validationPairs: 8 })],
    ['other guidance', runOf({ guidance: 1 })],
    ['a run that knows no base', { ...runOf({}), base: undefined }],
  ])('not with %s', (_, run) => {
    expect(comparable(run, reference)).toBe(false);
  });
});
