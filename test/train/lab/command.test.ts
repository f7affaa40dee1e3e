/** `npm run lab`: what it writes and refuses, and what its server hands out. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join, sep } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { errorLine, type Port, remote, serve } from '../../../train/lab/machine/protocol.ts';
import { fileOf, serveLab } from '../../../train/lab/serve.ts';
import { main } from '../../../train/lab.ts';
import { runCommand } from '../../support/commands.ts';
import { scratch } from '../../support/scratch.ts';

describe('the command', () => {
  test('leaves a folder alone that holds something else', async () => {
    const folder = join(scratch, 'own');
    mkdirSync(folder);
    writeFileSync(join(folder, 'thesis.txt'), 'x');
    const { code, stderr } = await runCommand(main, ['--no-serve', '--out', folder]);
    expect([code, stderr]).toEqual([
      1,
      `${folder}: holds other files, expected an empty folder or one of an earlier build\n`,
    ]);
  });
  test('says what a port may be', async () => {
    const { code, stderr } = await runCommand(main, ['--port', '70000']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/--port.*70000/);
  });
});

describe('the server', () => {
  const folder = join(scratch, 'site');
  let site: Awaited<ReturnType<typeof serveLab>>;
  beforeAll(async () => {
    mkdirSync(folder);
    writeFileSync(join(folder, 'index.html'), '<p>here');
    writeFileSync(join(folder, 'machine.js'), '1');
    writeFileSync(join(scratch, 'secret.txt'), 'secret');
    site = await serveLab(folder, 0);
  });
  afterAll(() => site.close());

  test('isolates the page, and lets only the worker evaluate', async () => {
    const page = await fetch(site.address);
    expect(await page.text()).toBe('<p>here');
    expect(page.headers.get('cross-origin-opener-policy')).toBe('same-origin');
    expect(page.headers.get('cross-origin-embedder-policy')).toBe('require-corp');
    expect(page.headers.get('content-security-policy')).not.toContain('unsafe-eval');
    const worker = await fetch(`${site.address}machine.js`);
    expect(worker.headers.get('content-security-policy')).toContain("default-src 'self'");
    expect(worker.headers.get('content-security-policy')).toContain('unsafe-eval');
  });

  test('hands out nothing outside its folder, and only on request', async () => {
    for (const address of [
      '../secret.txt',
      '/../secret.txt',
      '%2e%2e/secret.txt',
      '..%2fsecret.txt',
      'a/../../secret.txt',
    ])
      expect(fileOf(folder, `/${address}`)?.startsWith(folder + sep), address).toBe(true);
    expect(fileOf(folder, '/a%00b')).toBeUndefined();
    expect(fileOf(folder, '/%E0%A4%A')).toBeUndefined();
    expect((await fetch(`${site.address}..%2fsecret.txt`)).status).toBe(404);
    expect((await fetch(`${site.address}missing`)).status).toBe(404);
    expect((await fetch(site.address, { method: 'POST' })).status).toBe(405);
    expect(new URL(site.address).hostname).toBe('127.0.0.1');
  });

  test('a port that is taken is told by its number', async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    const { port } = other.address() as AddressInfo;
    await expect(serveLab(folder, port)).rejects.toMatchObject({ code: 'EADDRINUSE' });
    other.close();
  });
});

describe('calls between page and worker', () => {
  /** two ends of a channel within this process; messages are copied as between threads */
  const pair = (): readonly [Port, Port] => {
    const ends: Port[] = [0, 1].map((i) => ({
      onmessage: null,
      postMessage: (data) => {
        const copy = structuredClone(data);
        queueMicrotask(() => ends[1 - i]!.onmessage?.({ data: copy }));
      },
    }));
    return [ends[0]!, ends[1]!];
  };
  const table = {
    add: (_: unknown, a: number, b: number) => a + b,
    fail: (): number => {
      throw new RangeError('no such number');
    },
    async slow(tell: (news: unknown) => void) {
      tell('started');
      await new Promise((done) => setTimeout(done, 5));
      tell('over');
      return 'slow';
    },
  };
  const opened = () => {
    const [page, worker] = pair();
    const news: unknown[] = [];
    serve(worker, table);
    return { ...remote<typeof table>(page, (n) => news.push(n)), news };
  };

  test('answers, failures and what is told on the way', async () => {
    const { calls, news } = opened();
    expect(await calls.add(2, 3)).toBe(5);
    await expect(calls.fail()).rejects.toThrow('no such number');
    await expect((calls as unknown as { constructor_: () => Promise<void> }).constructor_()).rejects.toThrow('no call');
    expect(await calls.slow()).toBe('slow');
    expect(news).toEqual(['started', 'over']);
  });
  test('one after the other, in the order they were made', async () => {
    const { calls } = opened();
    const order: unknown[] = [];
    await Promise.all([calls.slow().then((x) => order.push(x)), calls.add(1, 1).then((x) => order.push(x))]);
    expect(order).toEqual(['slow', 2]);
  });
  test('those that are open end when the worker is gone', async () => {
    const { calls, fail } = opened();
    const open = calls.slow();
    fail('stopped');
    await expect(open).rejects.toThrow('stopped');
  });
  test('a mistake of one’s own code is told with its class', () => {
    expect(errorLine(new TypeError('x is not a function'))).toBe('TypeError: x is not a function');
    expect(errorLine(new RangeError('too large'))).toBe('too large');
  });
});
