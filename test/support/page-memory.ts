/**
 * What a page holds, by the browser's own count: the heap of each of its engines (the page, its worker, the threads of that
 * worker), and the memory of its process beside that of an empty page.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { CDPSession, Page } from 'playwright-core';

type Send = (method: string, params?: object) => Promise<unknown>;
type Hear = (event: string, told: (params: never) => void) => void;
/** One engine: the page's, or a worker's. */
interface Target {
  readonly name: string;
  readonly send: Send;
}

/** Engines below one, and below those. Messages to a worker go through the engine that started it. */
async function workersOf(send: Send, hear: Hear, found: (target: Target) => void): Promise<void> {
  type Attached = { readonly sessionId: string; readonly targetInfo: { readonly title: string; readonly url: string } };
  const below = new Map<string, { readonly answer: (message: Answer) => void }>();
  hear('Target.attachedToTarget', ({ sessionId, targetInfo }: Attached) => {
    const waiting = new Map<number, (result: unknown) => void>();
    const listeners = new Map<string, (params: never) => void>();
    let next = 0;
    below.set(sessionId, {
      answer: ({ id, method, result, params }) => {
        if (id !== undefined) waiting.get(id)?.(result);
        else listeners.get(method!)?.(params as never);
      },
    });
    const own: Send = (method, params = {}) =>
      new Promise((done, failed) => {
        waiting.set(++next, done);
        const message = JSON.stringify({ id: next, method, params });
        send('Target.sendMessageToTarget', { sessionId, message }).catch(failed);
      });
    found({ name: targetInfo.title || targetInfo.url, send: own });
    void workersOf(own, (event, told) => void listeners.set(event, told), found);
  });
  hear('Target.receivedMessageFromTarget', ({ sessionId, message }: { sessionId: string; message: string }) =>
    below.get(sessionId)?.answer(JSON.parse(message) as Answer),
  );
  await send('Target.setAutoAttach', { autoAttach: true, waitForDebuggerOnStart: false, flatten: false });
}
type Answer = {
  readonly id?: number;
  readonly method?: string;
  readonly result?: unknown;
  readonly params?: unknown;
};

/** Bytes of an engine after it has collected what is dead. */
export interface Held {
  readonly name: string;
  /** objects, code, strings */
  readonly heap: number;
  /** arrays outside of the heap; WebAssembly's memories are not among them */
  readonly arrays: number;
}
/** What the engines of a page hold. */
export async function heldBy(page: Page): Promise<readonly Held[]> {
  const session: CDPSession = await page.context().newCDPSession(page);
  const send = session.send.bind(session) as unknown as Send;
  const targets: Target[] = [{ name: 'page', send }];
  await workersOf(send, session.on.bind(session) as unknown as Hear, (target) => targets.push(target));
  // workers are told of one by one
  await page.waitForTimeout(500);
  const held: Held[] = [];
  for (const { name, send: ask } of targets) {
    await ask('HeapProfiler.collectGarbage');
    const usage = (await ask('Runtime.getHeapUsage')) as { usedSize: number; backingStorageSize?: number };
    held.push({ name, heap: usage.usedSize, arrays: usage.backingStorageSize ?? 0 });
  }
  await session.detach();
  return held;
}

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
