/**
 * The corpus of bad (and good) inputs, kinds image and table, through `loadDataset`. Runs where the corpus is: in the
 * folder named by SELORA_BADINPUTS, or beside the repository. `train/data/folders.test.ts`,
 * `train/data/layouts.test.ts` and `train/data/images.test.ts` hold cases of our own.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { type Dataset, loadDataset } from '../../train/data/dataset.ts';
import { readImage } from '../../train/data/pictures/images.ts';
import { materialised } from '../support/bad-inputs.ts';
import { cpuSeconds } from '../support/cpu-seconds.ts';
import { there } from '../support/there.ts';

const corpus = resolve(process.env.SELORA_BADINPUTS ?? '../shared/badinputs');
const found = there(
  'the corpus of bad inputs',
  existsSync(join(corpus, 'manifest.json')),
  `no ${corpus}; SELORA_BADINPUTS names the folder`,
);

const PIXEL = z.object({ x: z.number(), y: z.number(), rgb: z.array(z.number()).length(3), tol: z.number() });
const CASE = z.object({
  id: z.string(),
  kind: z.string(),
  expect: z.enum(['reject', 'accept', 'either']),
  file: z.string(),
  apply: z.looseObject({}),
  message_names: z.object({ file: z.string(), any_of: z.array(z.string()) }).optional(),
  limits: z.object({ seconds: z.number().optional(), extra_rss_mb: z.number().optional() }).optional(),
  must_not_appear: z.array(z.string()).optional(),
  value: z
    .object({
      width: z.number().optional(),
      height: z.number().optional(),
      pixels: z.array(PIXEL).optional(),
      rows: z.array(z.object({ file_name: z.string(), text: z.string() })).optional(),
      rows_count: z.number().optional(),
      findings_contains: z.string().optional(),
      text_contains_all: z.array(z.string()).optional(),
    })
    .optional(),
});
type Case = z.infer<typeof CASE>;

const MANIFEST = z.object({ cases: z.array(z.looseObject({ kind: z.string() })) });

function readCases(): readonly Case[] {
  if (!found) return [];
  const { cases: all } = MANIFEST.parse(JSON.parse(readFileSync(join(corpus, 'manifest.json'), 'utf8')));
  return all.filter(({ kind }) => kind === 'image' || kind === 'table').map((each) => CASE.parse(each));
}
const cases = readCases();

const scratch = mkdtempSync(join(tmpdir(), 'selora-badinputs-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const made = found ? materialised({ folder: corpus, cases }, scratch) : new Map<string, string>();

/** The image put in place of img/05.png, as [0, 255] RGB. */
async function checkPixels(dataset: Dataset, { file, value }: Case): Promise<void> {
  const name = `img/${file.split('/').at(-1)}`;
  const record = dataset.records.find((each) => each.file === name)!;
  const picture = await readImage(record.image);
  if (value?.width !== undefined) expect([picture.width, picture.height]).toEqual([value.width, value.height]);
  const { width, channels, depth, data } = picture;
  const at = (x: number, y: number) =>
    [0, 1, 2].map((c) => (data[(y * width + x) * channels + (channels === 3 ? c : 0)]! * 255) / (2 ** depth - 1));
  for (const { x, y, rgb, tol } of value?.pixels ?? []) {
    at(x, y).forEach((actual, c) => void expect(Math.abs(actual - rgb[c]!)).toBeLessThanOrEqual(tol));
  }
  if (file.includes('cmyk')) expect(at(9, 9)[2]! - at(9, 9)[0]!).toBeGreaterThan(40);
}

function checkRows(dataset: Dataset, { file, value }: Case): void {
  if (value?.rows) {
    expect(dataset.records.map((record) => ({ file_name: record.file, text: record.text }))).toEqual(value.rows);
  }
  if (value?.rows_count !== undefined) expect(dataset.records.length).toBe(value.rows_count);
  const stem = file
    .split('/')
    .at(-1)!
    .replace(/\.\w+$/, '');
  const own = dataset.records
    .filter(({ id, patient }) => id === stem || patient === `CXR${stem}`)
    .map(({ text }) => text);
  for (const part of [...(value?.text_contains_all ?? []), value?.findings_contains ?? '']) {
    if (part !== '') expect(own.join('\n')).toContain(part);
  }
}

function checkMessage(error: unknown, { message_names: names }: Case): void {
  const message = error instanceof Error ? error.message : '';
  expect((error as Error).name).toBe('FileError');
  expect(message).not.toMatch(/[\n\r]|\n\s+at /);
  expect(message.toLowerCase()).toContain(names!.file.toLowerCase());
  const hints = names!.any_of.map((word) => word.toLowerCase());
  // The words must come from the message, not from the names of the folders on the way.
  const words = message.slice(message.lastIndexOf('/case/') + 6).toLowerCase();
  expect(hints.length === 0 || hints.some((word) => words.includes(word)), message).toBe(true);
}

describe.runIf(found)('bad and good inputs', () => {
  it('has cases', () => void expect(cases.length).toBeGreaterThan(60));

  it.each(cases.map((each) => [each.id, each] as const))('%s', { timeout: 240_000 }, async (id, each) => {
    const dir = made.get(id)!;
    const before = process.memoryUsage().rss;
    const [outcome, seconds] = await cpuSeconds(() =>
      loadDataset(dir).then(
        (dataset) => ({ dataset, error: undefined }),
        (error: unknown) => ({ dataset: undefined, error }),
      ),
    );
    expect(seconds).toBeLessThan(2 * (each.limits?.seconds ?? 60));
    expect((process.memoryUsage().rss - before) / 2 ** 20).toBeLessThan(each.limits?.extra_rss_mb ?? 512);
    const { dataset, error } = outcome;
    if (each.expect !== 'either') expect(dataset ? 'accept' : 'reject', String(error)).toBe(each.expect);
    if (!dataset) checkMessage(error, each);
    else if (each.kind === 'image') await checkPixels(dataset, each);
    else checkRows(dataset, each);
    const said = dataset ? JSON.stringify(dataset) : String(error);
    for (const secret of each.must_not_appear ?? []) expect(said).not.toContain(secret);
    expect(Object.hasOwn(Object.prototype, 'polluted')).toBe(false);
  });
});
