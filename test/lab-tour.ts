/**
 * The lab, page by page, as a visitor sees it: writes a picture of each, and prints what was measured on the way. Nothing is
 * asserted: times are those of the machine and of what else runs on it.
 *
 *   npx tsx test/lab-tour.ts --runs runs --out train/lab/pictures
 *   npx tsx test/lab-tour.ts --only train,op
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { Browser, Page } from 'playwright-core';
import sharp from 'sharp';
import { buildLab } from '../train/lab/build.ts';
import { labMachine } from '../train/lab/machine/machine.ts';
import type { StepAsk } from '../train/lab/machine/step.ts';
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
const ask: StepAsk = { lambda: 1.1, gainA: 0, fisher: 'per-sample' };
const wanted = (name: string): boolean => o.only === undefined || o.only.split(',').includes(name);
const STEPS = 4;
const LONG = 300_000;

async function visit(browser: Browser, address: string): Promise<Page> {
  const page = await browser.newPage({ viewport: { width: 1000, height: 680 }, reducedMotion: 'reduce' });
  page.setDefaultTimeout(LONG);
  await page.goto(address);
  await page.waitForSelector(`body[data-ready]`);
  return page;
}
/** Few colours are enough, and make small files. */
async function keep(page: Page, name: string): Promise<void> {
  const shot = await page.screenshot();
  const small = await sharp(shot).png({ palette: true, colours: 96, effort: 10, compressionLevel: 9 }).toBuffer();
  writeFileSync(join(o.out, `${name}.png`), small);
  console.log(`${name}.png: ${Math.round(small.length / 1000)} kB`);
}

/** Resident memory of the largest renderer of this browser, as Linux tells it. */
function memoryOfPages(): string {
  const of = (pid: string, file: string): string => {
    try {
      return readFileSync(`/proc/${pid}/${file}`, 'utf8');
    } catch {
      return '';
    }
  };
  const sizes = readdirSync('/proc')
    .filter(
      (pid) => of(pid, 'cmdline').includes('--type=renderer') && of(pid, 'cmdline').includes(resolve('node_modules')),
    )
    .map((pid) => Number(/VmRSS:\s+(\d+) kB/.exec(of(pid, 'status'))?.[1] ?? 0));
  return sizes.length === 0 ? 'not told' : `${Math.round(Math.max(...sizes) / 1024)} MiB`;
}

mkdirSync(o.out, { recursive: true });
const built = await buildLab(resolve(o.site));
console.log(`page ${Math.round(built.gzipped / 1000)} kB gzipped, weights ${Math.round(built.weights / 1000)} kB`);
const { address, close } = await serveLab(built.folder, 0, resolve(o.runs));
const browser = await startBrowser();
try {
  if (o.only === undefined) await measure();
  const still: readonly (readonly [name: string, place: string])[] = [
    ['op', '#/op/softmax'],
    ['function', '#/function/logistic?stage=3'],
    ['check', '#/check/own-op'],
    ['runs', '#/runs'],
  ];
  for (const [name, place] of still) {
    if (!wanted(name)) continue;
    const at = await visit(browser, `${address}${place}`);
    await at.waitForTimeout(500);
    if (name === 'runs') await at.evaluate(`document.querySelector('[data-part=ranks]')?.scrollIntoView()`);
    await keep(at, name);
    await at.close();
  }
  if (wanted('train')) await trained();
} finally {
  await browser.close();
  await close();
}

/** How long, how large, how fast; the picture of a step on the way. */
async function measure(): Promise<void> {
  const began = performance.now();
  const step = await visit(browser, `${address}#/step?report=1`);
  await step.getByRole('button', { name: 'Make the step' }).click();
  await step.waitForSelector('[data-step="1"]');
  console.log(`opened to the first finished step: ${((performance.now() - began) / 1000).toFixed(1)} s`);
  console.log(`resident memory of the page's process after it, Chromium's own included: ${memoryOfPages()}`);
  await step.evaluate('scrollTo(0, 130)');
  await keep(step, 'step');
  await step.close();

  // steps of page and Node in turns, so that both see the same machine
  const calm = await visit(browser, `${address}#/lesson`);
  await calm.evaluate(`globalThis.call = (() => {
    const worker = new Worker('machine.js', { type: 'module' });
    return (name, ...args) => new Promise((done) => {
      worker.onmessage = ({ data }) => 'told' in data || done(data.value);
      worker.postMessage({ id: 0, call: name, args });
    });
  })()`);
  await calm.evaluate(`call('open', 'wasm')`);
  const machine = labMachine(cpus().length, async (name) => readFileSync(join(built.folder, name)));
  await machine.open(() => undefined, 'wasm');
  const times: { page: number[]; node: number[] } = { page: [], node: [] };
  for (let i = 0; i < STEPS; i++) {
    times.page.push(((await calm.evaluate(`call('step', ${JSON.stringify(ask)})`)) as { ms: number }).ms);
    times.node.push((await machine.step(() => undefined, ask)).ms);
  }
  await machine.open(() => undefined, 'cpu');
  const [page, node] = [Math.min(...times.page), Math.min(...times.node)];
  const list = (ms: readonly number[]) => ms.map((x) => Math.round(x)).join(', ');
  console.log(
    `a step with a test, ms: page ${list(times.page)}; Node ${list(times.node)}; least ${(page / node).toFixed(2)}`,
  );
  console.log(
    `load of the machine: ${loadavg()
      .map((x) => x.toFixed(1))
      .join(', ')} on ${cpus().length} cores`,
  );
  await calm.close();
}

async function trained(): Promise<void> {
  const train = await visit(browser, `${address}#/train?steps=12&every=4&pairs=40&regions=1`);
  await train.getByRole('button', { name: 'Begin' }).click();
  await train.locator('.filmrow canvas').nth(1).waitFor({ timeout: LONG });
  await train.waitForTimeout(2500);
  await train.evaluate(`document.querySelector('.card').scrollIntoView()`);
  await keep(train, 'train');
}
