/**
 * The lab, page by page, as a visitor sees it: writes a picture of each. What is measured of it: lab-measure.ts.
 *
 *   npx tsx test/lab-tour.ts --runs runs --out train/lab/pictures
 *   npx tsx test/lab-tour.ts --only train,op
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { Browser, Page } from 'playwright-core';
import sharp from 'sharp';
import { buildLab } from '../train/lab/build.ts';
import { serveLab } from '../train/lab/serve.ts';
import { startBrowser } from './support/browser.ts';

const { values: o } = parseArgs({
  options: {
    runs: { type: 'string', default: 'runs' },
    out: { type: 'string', default: 'train/lab/pictures' },
    only: { type: 'string' },
    site: { type: 'string', default: 'lab' },
  },
});
const wanted = (name: string): boolean => o.only === undefined || o.only.split(',').includes(name);
const LONG = 300_000;

const fontFile = createRequire(import.meta.url).resolve(
  '@fontsource/dejavu-mono/files/dejavu-mono-latin-400-normal.woff2',
);
/** The browser's own font lacks signs of mathematics and arrows; most people's systems have them. */
const FONT = `@font-face{font-family:"DejaVu Sans Mono";src:url(data:font/woff2;base64,${readFileSync(fontFile, 'base64')})}
body{font-family:"Open Sans","DejaVu Sans Mono"}`;

async function visit(browser: Browser, address: string): Promise<Page> {
  // the page takes fonts from its own host only
  const look = { viewport: { width: 1000, height: 680 }, reducedMotion: 'reduce', bypassCSP: true } as const;
  const page = await browser.newPage(look);
  page.setDefaultTimeout(LONG);
  await page.goto(address);
  await page.waitForSelector(`body[data-ready]`);
  await page.addStyleTag({ content: FONT });
  await page.evaluate('document.fonts.load("13px DejaVu Sans Mono")');
  return page;
}
/** Few colours are enough, and make small files. */
async function keep(page: Page, name: string): Promise<void> {
  const shot = await page.screenshot();
  const small = await sharp(shot).png({ palette: true, colours: 96, effort: 10, compressionLevel: 9 }).toBuffer();
  writeFileSync(join(o.out, `${name}.png`), small);
  console.log(`${name}.png: ${Math.round(small.length / 1000)} kB`);
}

mkdirSync(o.out, { recursive: true });
const built = await buildLab(resolve(o.site));
const { address, close } = await serveLab(built.folder, 0, resolve(o.runs));
const browser = await startBrowser();
try {
  if (wanted('step')) await stepped();
  const still: readonly (readonly [name: string, place: string])[] = [
    ['start', '#/'],
    ['lessons', '#/lesson/expansion'],
    ['op', '#/op/softmax'],
    ['function', '#/function/logistic?stage=3'],
    ['check', '#/check/own-op'],
    ['runs', '#/runs'],
  ];
  for (const [name, place] of still) {
    if (!wanted(name)) continue;
    const at = await visit(browser, `${address}${place}`);
    await at.waitForTimeout(500);
    // below what is written stands what comes of it
    if (name === 'function') await at.evaluate(`document.querySelectorAll('main h2')[1].scrollIntoView()`);
    if (name === 'check') await at.evaluate(`document.querySelector('main h2').scrollIntoView()`);
    if (name === 'runs') await at.evaluate(`document.querySelector('[data-part=ranks]')?.scrollIntoView()`);
    await keep(at, name);
    await at.close();
  }
  if (wanted('train')) await trained();
} finally {
  await browser.close();
  await close();
}

/** An update of the shipped base, with a block of it opened. */
async function stepped(): Promise<void> {
  const step = await visit(browser, `${address}#/step?report=1`);
  await step.getByRole('button', { name: 'Make the step' }).click();
  await step.waitForSelector('[data-step="1"]');
  await step.evaluate('scrollTo(0, 130)');
  await keep(step, 'step');
  await step.locator('[data-block="unet.up_blocks.2"]').click();
  await step.waitForSelector('[data-value^="unet.up_blocks.2"]');
  await step.evaluate(`document.querySelector('[data-block]').closest('svg, figure, div').scrollIntoView()`);
  await keep(step, 'inside');
  await step.close();
}

async function trained(): Promise<void> {
  const train = await visit(browser, `${address}#/train?steps=12&every=4&pairs=40&regions=1`);
  await train.getByRole('button', { name: 'Begin' }).click();
  await train.locator('.filmrow canvas').nth(1).waitFor({ timeout: LONG });
  await train.waitForTimeout(2500);
  await train.evaluate(`document.querySelector('.card').scrollIntoView()`);
  await keep(train, 'train');
}
