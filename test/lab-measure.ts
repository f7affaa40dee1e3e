/**
 * What the lab weighs, how long it takes and what it holds, each beside its goal. Nothing is asserted: times are those of
 * the machine and of what else runs on it, and only the ratio of page and Node is taken in turns.
 *
 *   npm run lab:measure
 */
import { readFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { Page, Worker } from 'playwright-core';
import type { MemoryReport } from '../core/index.ts';
import { buildLab } from '../train/lab/build.ts';
import { labMachine } from '../train/lab/machine/machine.ts';
import type { StepAsk } from '../train/lab/machine/step.ts';
import { serveLab } from '../train/lab/serve.ts';
import { startBrowser } from './support/browser.ts';
import { heldBy, privateBytes } from './support/page-memory.ts';

const { values: o } = parseArgs({
  options: {
    site: { type: 'string', default: 'lab' },
    steps: { type: 'string', default: '8' },
  },
});
const GOALS = { seconds: 10, gzipped: 1e6, bytes: 250e6, ratio: 1.3 };
const ask: StepAsk = { lambda: 1.1, gainA: 0, fisher: 'per-sample' };
const LONG = 600_000;

/** A line: what, how much, and whether that is within its goal. */
const tell = (what: string, value: number, goal: number, words: (x: number) => string): void =>
  console.log(
    `${what.padEnd(52)} ${words(value).padStart(9)}   goal ${words(goal)}${value <= goal ? '' : '   ABOVE IT'}`,
  );
const kilobytes = (n: number): string => `${Math.round(n / 1000)} kB`;
const megabytes = (n: number): string => `${Math.round(n / 1e6)} MB`;

/** What the backend of the page's worker holds, asked beside the page's own calls. */
const ofBackend = (worker: Worker): Promise<MemoryReport> =>
  worker.evaluate(`new Promise((done) => {
    const say = postMessage;
    globalThis.postMessage = (answer) => {
      if (answer.id !== 'measured') return say(answer);
      globalThis.postMessage = say;
      done(answer.value);
    };
    onmessage({ data: { id: 'measured', call: 'memory', args: [] } });
  })`);

const built = await buildLab(resolve(o.site));
tell('page, gzipped, beside its weights', built.gzipped, GOALS.gzipped, kilobytes);
const { address, close } = await serveLab(built.folder, 0);
const browser = await startBrowser();
try {
  await opening();
  await steps();
  const load = loadavg().map((x) => x.toFixed(1));
  console.log(`load of the machine: ${load.join(', ')} on ${cpus().length} cores`);
} finally {
  await browser.close();
  await close();
}

/** From nothing to the first finished step, in a browser that has seen none of it, and what is held then. */
async function opening(): Promise<void> {
  const page = await browser.newPage({ reducedMotion: 'reduce' });
  page.setDefaultTimeout(LONG);
  await page.goto(`${address}lab.css`);
  const empty = privateBytes();
  const began = performance.now();
  await page.goto(`${address}#/step`);
  await page.getByRole('button', { name: 'Make the step' }).click();
  await page.waitForSelector('[data-step="1"]');
  tell(
    'opened to the first finished step',
    (performance.now() - began) / 1000,
    GOALS.seconds,
    (s) => `${s.toFixed(1)} s`,
  );
  await memory(page, empty);
  await page.close();
}

/** What is alive: tensors and the workspace of the backend, and what the engines of page, worker and threads hold. */
async function memory(page: Page, empty: number): Promise<void> {
  const { liveBytes, peakBytes } = await ofBackend(page.workers()[0]!);
  const engines = await heldBy(browser);
  const heaps = engines.reduce((n, e) => n + e.heap, 0);
  const arrays = engines.reduce((n, e) => n + e.arrays, 0);
  tell('live memory of page and workers after it', liveBytes + heaps + arrays, GOALS.bytes, megabytes);
  console.log(
    `  of it tensors and workspace of the backend: ${megabytes(liveBytes)} (at most ${megabytes(peakBytes)})`,
  );
  for (const { name, heap, arrays } of engines)
    console.log(`  of it heap and arrays of ${name}: ${megabytes(heap)}, ${megabytes(arrays)}`);
  console.log(`  private memory of its process, beyond that of an empty page: ${megabytes(privateBytes() - empty)}`);
}

/** Steps of page and Node in turns, so that both see the same machine. */
async function steps(): Promise<void> {
  const page = await browser.newPage();
  page.setDefaultTimeout(LONG);
  await page.goto(`${address}#/lesson`);
  await page.waitForSelector('body[data-ready]');
  await page.evaluate(`globalThis.call = (() => {
    const worker = new Worker('machine.js', { type: 'module' });
    return (name, ...args) => new Promise((done) => {
      worker.onmessage = ({ data }) => 'told' in data || done(data.value);
      worker.postMessage({ id: 0, call: name, args });
    });
  })()`);
  await page.evaluate(`call('open', 'wasm')`);
  const machine = labMachine(cpus().length, async (name) => readFileSync(join(built.folder, name)));
  await machine.open(() => undefined, 'wasm');
  const times: { page: number[]; node: number[] } = { page: [], node: [] };
  for (let i = 0; i < Number(o.steps); i++) {
    times.page.push(((await page.evaluate(`call('step', ${JSON.stringify(ask)})`)) as { ms: number }).ms);
    times.node.push((await machine.step(() => undefined, ask)).ms);
  }
  await machine.open(() => undefined, 'cpu');
  const list = (ms: readonly number[]) => ms.map((x) => Math.round(x)).join(', ');
  console.log(`a step with a test on wasm, ms: page ${list(times.page)}; Node ${list(times.node)}`);
  const ratio = Math.min(...times.page) / Math.min(...times.node);
  tell('the least of the page over the least of Node', ratio, GOALS.ratio, (x) => x.toFixed(2));
  await page.close();
}
