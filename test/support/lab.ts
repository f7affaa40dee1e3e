/** The lab in a real browser: built, served and opened once for the tests of a file. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { type Built, buildLab } from '../../train/lab/build.ts';
import { labMachine, type Machine } from '../../train/lab/machine/machine.ts';
import { serveLab } from '../../train/lab/serve.ts';
import { startBrowser } from './browser.ts';
import { scratch } from './scratch.ts';

const inPage = readFileSync(join(import.meta.dirname, 'in-page.js'), 'utf8');
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** What tests ask of the lab. */
export interface OpenedLab {
  readonly built: Built;
  readonly address: string;
  readonly browser: Browser;
  close(): Promise<void>;
}
/** The same lab in another browser, with WebGPU in software: all that it draws takes longer there. */
export async function withWebgpu({ built, address }: OpenedLab): Promise<OpenedLab> {
  const browser = await startBrowser({ webgpu: true });
  return { built, address, browser, close: () => browser.close() };
}
/**
 * Builds it, serves it, and starts a browser without a GPU.
 * @param only the pages it is built for
 * @param runs a folder of runs
 */
export async function openLab({
  only,
  runs,
}: {
  readonly only?: readonly string[];
  readonly runs?: string;
} = {}): Promise<OpenedLab> {
  const built = await buildLab(join(scratch, 'lab'), only ? { only } : {});
  const { address, close } = await serveLab(built.folder, 0, runs);
  const browser = await startBrowser();
  return {
    built,
    address,
    browser,
    async close() {
      await browser.close();
      await close();
    },
  };
}

const WIDE = { width: 1200, height: 844 };
/** The page that a lab keeps open, and what went wrong in it since it was last visited. */
const kept = new WeakMap<OpenedLab, { readonly page: Page; readonly faults: string[] }>();

/** A page of its own. */
async function newPage({ browser, address }: OpenedLab, hash: string) {
  const page = await browser.newPage({
    viewport: WIDE,
    colorScheme: 'light',
    reducedMotion: 'reduce',
    // what the tests themselves evaluate; the policy stands in the headers
    bypassCSP: true,
  });
  const faults: string[] = [];
  page.on('pageerror', (error) => faults.push(error.message));
  page.on('console', (message) => message.type() === 'error' && faults.push(message.text()));
  page.on('request', (request) => {
    if (!request.url().startsWith(address) && !/^(data|blob):/.test(request.url())) faults.push(request.url());
  });
  await page.goto(`${address}${hash}`);
  await drawn(page, hash);
  await page.evaluate(inPage);
  return { page, faults };
}
/** Goes to another place as a link does; one that is shown already is left first, so that it is drawn anew. */
async function go(page: Page, hash: string): Promise<void> {
  if ((await page.evaluate('location.hash')) === hash) await go(page, hash === '' ? '#/lesson' : '');
  await page.evaluate(`delete document.body.dataset.ready; location.hash = ${JSON.stringify(hash)}`);
  await drawn(page, hash);
}
/**
 * The lab at a place, drawn: in the page that is open already, or in a fresh one, which is the caller's to close. Everything
 * it asks another host for, and every error, ends in `faults`.
 */
export async function visit(
  lab: OpenedLab,
  hash: string,
  { fresh = false }: { readonly fresh?: boolean } = {},
): Promise<{ readonly page: Page; readonly faults: readonly string[] }> {
  const before = fresh ? undefined : kept.get(lab);
  if (!before) {
    const opened = await newPage(lab, hash);
    if (!fresh) kept.set(lab, opened);
    return opened;
  }
  const { page, faults } = before;
  faults.length = 0;
  await page.setViewportSize(WIDE);
  await page.emulateMedia({ colorScheme: 'light' });
  await go(page, hash);
  return before;
}
/** Waits until the page has drawn a place. */
export const drawn = async (page: Page, hash: string): Promise<void> => {
  await page.waitForSelector(`body[data-ready=${JSON.stringify(hash)}]`);
};
/** Controls that no press of Tab comes to, from the page's first to its last. One that was drawn anew counts by its words. */
export async function unreached(page: Page): Promise<readonly string[]> {
  const wanted = (await page.evaluate(`(() => {
    const all = document.querySelectorAll('a[href], button, select, input, textarea, summary, [tabindex="0"]');
    globalThis.wanted = [...all].filter((e) => e.tabIndex >= 0 && !e.disabled && e.checkVisibility());
    globalThis.words = (e) => e.outerHTML.slice(0, 160);
    globalThis.seen = new Set();
    // from the page's beginning
    document.body.tabIndex = -1;
    document.body.focus();
    document.body.removeAttribute('tabindex');
    return wanted.length;
  })()`)) as number;
  if (wanted <= 10) throw new Error(`${wanted} controls: the page is not there`);
  for (let i = 0; i < wanted + 5; i++) {
    await page.keyboard.press('Tab');
    await page.evaluate('seen.add(document.activeElement).add(words(document.activeElement))');
  }
  const left = 'wanted.filter((e) => !seen.has(e) && (e.isConnected || !seen.has(words(e)))).map(words)';
  return (await page.evaluate(left)) as string[];
}
/** What axe-core finds. */
export const axeFaults = (page: Page, rules?: readonly string[]): Promise<readonly string[]> =>
  page.evaluate(
    `${axe};axe.run(${rules ? JSON.stringify({ runOnly: rules }) : ''}).then(({ violations }) => violations.map((v) => v.id + ': ' + v.nodes[0].html.slice(0, 200)))`,
  );

/** A call of the machine. */
export type Call = readonly [name: keyof Machine, ...args: readonly unknown[]];
/** What a call gave: its value or the line of its failure. */
export type Answered = { readonly value: unknown } | { readonly error: string };

/** Calls one after the other, in a new worker of the page. */
export const inWorker = (page: Page, calls: readonly Call[]): Promise<readonly Answered[]> =>
  page.evaluate(
    `(async (calls) => {
      const worker = new Worker('machine.js', { type: 'module' });
      const said = [];
      for (const [call, ...args] of calls) {
        const answer = new Promise((resolve, reject) => {
          worker.onmessage = ({ data }) => ('told' in data ? undefined : resolve(data));
          worker.onerror = (e) => reject(new Error(e.message));
        });
        worker.postMessage({ id: 0, call, args });
        const { id, ...rest } = await answer;
        said.push(rest);
      }
      worker.terminate();
      return said;
    })(${JSON.stringify(calls)})`,
  );
/** The same calls in this process, on one thread. */
export async function inNode({ built }: OpenedLab, calls: readonly Call[]): Promise<readonly Answered[]> {
  const machine = labMachine(1, async (name) => readFileSync(join(built.folder, name))) as unknown as Readonly<
    Record<string, (...args: unknown[]) => unknown>
  >;
  const said: Answered[] = [];
  for (const [name, ...args] of calls)
    try {
      said.push({ value: await machine[name]!(() => undefined, ...args) });
    } catch (error) {
      said.push({ error: (error as Error).message });
    }
  await machine.open!(() => undefined, 'cpu');
  return said;
}
