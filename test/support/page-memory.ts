/**
 * What a page holds, by the browser's own count: the heap of each of its engines (the page, its worker, the threads of that
 * worker), and the memory of its process beside that of an empty page.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Browser, CDPSession } from 'playwright-core';

/** Bytes of an engine after it has collected what is dead. */
export interface Held {
  readonly name: string;
  /** objects, code, strings */
  readonly heap: number;
  /** arrays outside of the heap; WebAssembly's memories are not among them */
  readonly arrays: number;
}
/** How long an engine is waited for: a thread that waits for work answers little. */
const PATIENCE_MS = 3000;
type Ask = (method: string) => Promise<unknown>;

/** An engine that is asked, in the browser's own session. */
async function ask(session: CDPSession, targetId: string): Promise<Ask> {
  const { sessionId } = await session.send('Target.attachToTarget', { targetId, flatten: false });
  const waiting = new Map<number, (result: unknown) => void>();
  session.on('Target.receivedMessageFromTarget', (told) => {
    const { id, result } = JSON.parse(told.message) as { id?: number; result?: unknown };
    if (told.sessionId === sessionId && id !== undefined) waiting.get(id)?.(result);
  });
  let last = 0;
  return (method) =>
    new Promise((done) => {
      const id = ++last;
      waiting.set(id, done);
      setTimeout(() => done(undefined), PATIENCE_MS);
      void session.send('Target.sendMessageToTarget', { sessionId, message: JSON.stringify({ id, method }) });
    });
}

/** What the engines hold of the one page that is open: its own, its workers', their threads'. */
export async function heldBy(browser: Browser): Promise<readonly Held[]> {
  const session = await browser.newBrowserCDPSession();
  const { targetInfos } = await session.send('Target.getTargets', { filter: [{}] });
  const held: Held[] = [];
  for (const { type, url, title, targetId } of targetInfos.filter((t) => t.type === 'page' || t.type === 'worker')) {
    const engine = await ask(session, targetId);
    await engine('HeapProfiler.collectGarbage');
    const usage = (await engine('Runtime.getHeapUsage')) as Usage | undefined;
    const name = type === 'page' ? 'the page' : url.startsWith('blob:') ? 'a thread' : `the worker ${title}`;
    if (usage) held.push({ name, heap: usage.usedSize, arrays: usage.backingStorageSize });
    else throw new Error(`${name} does not tell what it holds`);
  }
  await session.detach();
  return held;
}
type Usage = { readonly usedSize: number; readonly backingStorageSize: number };

const read = (file: string): string => {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
};
/** Bytes that the largest renderer of this browser has for itself alone, as Linux tells it; 0 where it does not. */
export function privateBytes(): number {
  const sizes = readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid))
    .filter((pid) => {
      const command = read(`/proc/${pid}/cmdline`);
      return command.includes('--type=renderer') && command.includes(resolve('node_modules'));
    })
    .map((pid) => {
      const rollup = read(`/proc/${pid}/smaps_rollup`);
      return [...rollup.matchAll(/^Private_(?:Clean|Dirty):\s+(\d+) kB/gm)].reduce(
        (n, [, kb]) => n + 1024 * Number(kb),
        0,
      );
    });
  return Math.max(0, ...sizes);
}
