/**
 * The page in a real browser: axe-core finds nothing, a phone can read it, the keyboard reaches every cell, paper cuts no
 * word. One browser for all of it.
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { writePage } from '../../../train/report/write.ts';
import { parseRecord, type RunRecordInput } from '../../../train/run/record.ts';
import { browserThere, startBrowser } from '../../support/browser.ts';
import { LONG, longRows } from '../../support/long.ts';
import { folderWithPicture, simulatedComparison, simulatedRun } from '../../support/report-fixture.ts';
import { scratch } from '../../support/scratch.ts';

const inPage = readFileSync(join(import.meta.dirname, '../../support/in-page.js'), 'utf8');
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** A run with something in every panel, and words and numbers as long as they get. */
function full(folder: string): RunRecordInput {
  const whole = simulatedRun();
  // the time in a browser is that of its cells; all modules in the long form
  const isShown = (path: string) => LONG || /down_blocks\.0|mid_block|layers\.[01]\./.test(path);
  const run = {
    ...whole,
    modules: whole.modules!.filter(({ path }) => isShown(path)),
    expansions: whole.expansions!.filter(({ module }) => isShown(module)),
  };
  const picture = (label: string, seed?: number) => ({
    label,
    file: 'samples/here.png',
    ...(seed === undefined ? {} : { seed }),
  });
  const labels = ['real', 'autoencoder', 'base', 'adapted', 'adapted', 'adapted'];
  const report = 'Moderate right pleural effusion. Small dense opacity in the left upper zone. The heart is enlarged.';
  const share = (right: number, n: number) => ({ right, n });
  const findings = ['effusion', 'opacity', 'pneumothorax', 'cardiomegaly'].map((finding) => ({
    finding,
    sensitivity: share(9, 13),
    specificity: share(80, 83),
  }));
  const scores = ['each lung right', 'side right', 'pneumothorax seen', 'whole report right'].map((question) => ({
    question,
    ...share(13, 48),
  }));
  const methods = ['always normal', 'real films', 'autoencoder only', 'base', 'selora'];
  const pairs = [0.21, 0.34].map((distance) => ({
    sample: 'samples/here.png',
    nearest: 'samples/here.png',
    distance,
  }));
  return {
    ...run,
    folder,
    command: "npm run train -- --data 'films of the year 2026/' --method selora --lambda 1.1 --test-every 40",
    validations: run.validations!.map((r) => ({ ...r, gapError: 0.003 })),
    samples: [0, 1, 2].map(() => ({
      report,
      split: 'test',
      pictures: labels.map((label, i) => picture(label, i > 1 ? 1000 * i : undefined)),
    })),
    results: {
      obedience: {
        what: 'simple detectors on 48 held-out reports, guidance 3',
        rows: methods.map((method) => ({ method, scores, findings })),
        readings: [0, 1, 2].map((r) => ({
          report: r,
          picture: 'adapted',
          text: 'right effusion, left opacity; heart enlarged',
          right: r > 0,
        })),
      },
      nearest: { measure: '32×32 grey, standardised', threshold: 0.31, below: 1, n: 48, pairs },
    },
  };
}

describe.runIf(browserThere)('the report in a browser', () => {
  const opened = {} as { browser: Browser; address: string };
  beforeAll(async () => {
    const folder = join(scratch, 'run');
    mkdirSync(folder);
    await folderWithPicture(folder);
    const [page] = await writePage(parseRecord(full(folder), [simulatedComparison()]), folder, false);
    opened.address = pathToFileURL(page!).href;
    opened.browser = await startBrowser();
  }, 120_000);
  afterAll(() => opened.browser?.close());

  const viewport = (width: number) => ({ width, height: 844 });
  async function view(width: number, look: { print?: boolean } = {}): Promise<Page> {
    const page = await opened.browser.newPage({ viewport: viewport(width), reducedMotion: 'reduce' });
    if (look.print) await page.emulateMedia({ media: 'print' });
    await page.goto(opened.address);
    await page.evaluate(inPage);
    return page;
  }
  let kept: Promise<Page> | undefined;
  /** One page for what leaves it as it is but for its width and colours. */
  async function seen(width: number, colorScheme: 'light' | 'dark' = 'light'): Promise<Page> {
    kept ??= view(width);
    const page = await kept;
    await page.setViewportSize(viewport(width));
    await page.emulateMedia({ colorScheme });
    return page;
  }
  const ask = <T>(page: Page, check: string): Promise<T> => page.evaluate(`checks.${check}`);

  /** What axe-core finds by these rules, all where none are named; with the first place of each. */
  const faults = (page: Page, rules?: readonly string[]): Promise<readonly string[]> =>
    page.evaluate(
      `${axe};axe.run(${rules ? JSON.stringify({ runOnly: rules }) : ''}).then(({ violations }) => violations.map((v) => v.id + ': ' + v.nodes[0].html.slice(0, 200)))`,
    );

  test.each(
    longRows(
      [
        ['', 1400, 'light', undefined],
        [' in the dark', 1400, 'dark', ['color-contrast']],
        [
          ' on a phone',
          390,
          'light',
          ['color-contrast', 'scrollable-region-focusable', 'target-size', 'link-in-text-block'],
        ],
      ] as const,
      ([where]) => where === '',
    ),
  )('axe-core finds nothing%s', async (_, width, look, rules) => {
    expect(await faults(await seen(width, look), rules)).toEqual([]);
  });

  test('axe-core finds what is wrong', async () => {
    const page = await seen(390);
    await page.evaluate('document.querySelector("img").removeAttribute("alt")');
    expect((await faults(page, ['image-alt'])).join()).toContain('image-alt');
    await page.evaluate('document.querySelector("img").setAttribute("alt", "a picture")');
  });

  test('on a phone nothing sticks out of the page, and no column is narrower than 60 pixels', async () => {
    const found = await ask<{ cells: number }>(await seen(390), 'fits(390)');
    expect(found).toMatchObject({ width: 390, out: [], narrow: [] });
    expect(found.cells).toBeGreaterThan(100);
  });

  test('the keyboard reaches every cell: Tab a map, the arrow keys its cells', async () => {
    const page = await view(1400);
    expect(await ask(page, 'stops()')).toEqual([4, 4]);
    const focused = () => ask<string>(page, 'focused()');
    const tells = (path: string) => expect.poll(() => ask<string>(page, 'tip() ?? ""')).toContain(path);
    for (let i = 0; i < 60 && (await focused()) === ''; i++) await page.keyboard.press('Tab');
    const first = await focused();
    expect(first).toMatch(/^unet\./);
    await tells(first);
    await page.keyboard.press('ArrowDown');
    const below = await focused();
    expect(below).not.toBe(first);
    await tells(below);
    await page.keyboard.press('Escape');
    expect(await ask(page, 'tip()')).toBeUndefined();
    for (const [seen, all] of await ask<number[][]>(page, 'reached()')) expect(seen).toBe(all);
    await page.close();
  });

  test('on paper no word is cut and nothing runs off the page', async () => {
    // A4 less two margins of 14 mm, at 96 pixels an inch
    const page = await view(688, { print: true });
    const found = await ask<{ words: number }>(page, 'words(688)');
    expect(found).toMatchObject({ cut: [], off: [] });
    expect(found.words).toBeGreaterThan(500);
    const paper = await page.pdf({ format: 'A4' });
    expect(paper.subarray(0, 5).toString()).toBe('%PDF-');
    await page.close();
  });
});
