/** Reference runs: those that ship are what their commands say, and stand beside a run only where they may. */
import { describe, expect, test } from 'vitest';
import { resolveConfig } from '../../../train/config/resolve.ts';
import { comparable, type Reference, references, withReferences } from '../../../train/report/reference/reference.ts';
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
    ['another learning rate, at which its method is best', runOf({ lr: 1e-3 })],
    ['another rate of the text encoder', runOf({ textLr: 1e-3 })],
    ['other layers', runOf({ targets: 'attn' })],
    ['other growth, elsewhere, with other pictures', runOf({ lambda: 1.3, threads: 7, samples: 2, backend: 'cpu' })],
  ])('%s', (_, run) => {
    expect(comparable(run, reference)).toBe(true);
  });
  test.each([
    ['itself', runOf({ method: 'lora', rank: 4 })],
    ['another base', runOf({}, { base: 'cd'.repeat(32) })],
    ['other data', runOf({}, { data: 'phantoms/1/100/80/10/10' })],
    ['another seed', runOf({ seed: 2 })],
    ['fewer steps', runOf({ steps: 200 })],
    ['another loss', runOf({ captionDropout: 0 })],
    ['another grid', runOf({ validationPairs: 8 })],
    ['other guidance', runOf({ guidance: 1 })],
    ['a run that knows no base', { ...runOf({}), base: undefined }],
  ])('not with %s', (_, run) => {
    expect(comparable(run, reference)).toBe(false);
  });
});

test('those that ship were made by their commands', async () => {
  const all = await references();
  expect([...all.keys()]).toEqual(['locon', 'lora', 'selora']);
  for (const [name, r] of all) {
    const words = r.command.replace(/^npm run train( -- )?/, '').split(' ');
    const given = words.flatMap((word, i) => {
      const value = words[i + 1]!;
      const key = word.slice(2).replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
      return word.startsWith('--') ? [[key, Number.isNaN(Number(value)) ? value : Number(value)] as const] : [];
    });
    const config = resolveConfig(Object.fromEntries(given) as Parameters<typeof resolveConfig>[0]);
    const { method, lr, textLr, rank, targets } = config;
    expect(r.settings, name).toMatchObject({ method, lr, textLr, rank, targets, steps: 2000, seed: 1, pairs: 700 });
    expect(r.validations.at(-1)!.step).toBe(2000);
    expect(r.version).toMatch(/^\d+\.\d+\.\d+, commit [0-9a-f]{12}$/);
  }
});

test('a default run has them beside it, named as references with their own rates; a run of own films has none', async () => {
  const { base: hash, data: known, settings } = (await references()).get('lora')!;
  const { lr, textLr } = settings as { readonly lr: number; readonly textLr: number };
  const compared = async (run: Parameters<typeof withReferences>[0]) =>
    (await withReferences(run)).compared.map((c) => c.label);
  const all = await compared(runOf({}, { base: hash, data: known }));
  expect(all).toHaveLength(3);
  expect(all).toContain('LoRA r=4 on linear layers (reference run)');
  const slower = await compared(runOf({ lr: lr / 2, textLr: textLr / 2 }, { base: hash, data: known }));
  expect(slower).toContain(`LoRA r=4 on linear layers, rate ${lr}, text encoder’s rate ${textLr} (reference run)`);
  const own = runOf({ method: 'lora', rank: 8, lr, textLr }, { base: hash, data: known });
  expect(await compared(own)).toContain('LoRA r=4 (reference run)');
  // one that was asked for by --compare is not shown again
  const other = { label: 'LoRA r=4', method: 'lora', validations: [], results: {} };
  expect(await compared({ ...own, compared: [other] })).toHaveLength(3);
  expect(await compared(runOf({ data: 'films' }, { base: hash, data: '0f'.repeat(32) }))).toEqual([]);
});
