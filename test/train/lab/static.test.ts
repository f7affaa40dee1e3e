/** The lab's folder on a host that knows nothing of it: files as they are, no headers, no server of runs. */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fileOf } from '../../../train/lab/serve.ts';
import { browserThere } from '../../support/browser.ts';
import { drawn, type OpenedLab, openLab, visit } from '../../support/lab.ts';

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.json': 'application/json',
};
/** A host as the simplest there are, at a path below its root. What it has not got ends in `missing`. */
async function plainHost(folder: string): Promise<{ server: Server; address: string; missing: string[] }> {
  const missing: string[] = [];
  const server = createServer(async (request, response) => {
    const address = request.url ?? '/';
    const file = address.startsWith('/site/') ? fileOf(folder, address.slice('/site'.length)) : undefined;
    const there = file !== undefined && (await stat(file).catch(() => undefined))?.isFile();
    if (!there) {
      missing.push(address);
      return void response.writeHead(404).end();
    }
    response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream' });
    createReadStream(file).pipe(response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, address: `http://127.0.0.1:${(server.address() as AddressInfo).port}/site/`, missing };
}

describe.runIf(browserThere)('on a host of plain files', () => {
  let lab: OpenedLab;
  let host: Awaited<ReturnType<typeof plainHost>>;
  beforeAll(async () => {
    // the pages that ask for more than their own files
    lab = await openLab({ only: ['runs', 'step', 'function'] });
    host = await plainHost(lab.built.folder);
  }, 120_000);
  afterAll(async () => {
    host?.server.closeAllConnections();
    host?.server.close();
    await lab?.close();
  });

  test('no page asks for what is not there, and the console stays empty', async () => {
    const { page, faults } = await visit({ ...lab, address: host.address }, '#/runs');
    expect(await page.locator('main').textContent()).toContain('npm run train -- --watch');
    expect(await page.locator('.device').textContent()).toContain('one thread');
    for (const hash of ['#/function/logistic', '#/step?report=1']) {
      await page.evaluate(`location.hash = ${JSON.stringify(hash)}`);
      await drawn(page, hash);
      expect(await page.locator('.error:not([hidden])').allTextContents(), hash).toEqual([]);
    }
    expect(Number(await page.locator('[data-loss]').getAttribute('data-loss'))).toBeGreaterThan(0);
    expect(host.missing).toEqual([]);
    expect(faults).toEqual([]);
    await page.close();
  }, 120_000);
});
