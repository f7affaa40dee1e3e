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
/**
 * Builds it, serves it, and starts a browser, with WebGPU in software.
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
  const browser = await startBrowser({ webgpu: only === undefined });
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

/** A page of the lab at a place, drawn. Everything it asks another host for, and every error, ends in `faults`. */
export async function visit(
  { browser, address }: OpenedLab,
  hash: string,
  look: { readonly width?: number; readonly dark?: boolean } = {},
): Promise<{ page: Page; faults: string[] }> {
  const page = await browser.newPage({
    viewport: { width: look.width ?? 1200, height: 844 },
    colorScheme: look.dark ? 'dark' : 'light',
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
/** Waits until the page has drawn a place. */
export const drawn = async (page: Page, hash: string): Promise<void> => {
  await page.waitForSelector(`body[data-ready=${JSON.stringify(hash)}]`);
};
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
