/** The lab's folder on a host that knows nothing of it: files as they are, no headers, no server of runs. */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parseConfig, unetSchema } from '../../../models/config.ts';
import { type TensorOut, writeSafetensors } from '../../../models/io/safetensors-write.ts';
import { SD15_UNET } from '../../../models/sd15.ts';
import { fileOf } from '../../../train/lab/serve.ts';
import { blocksOf } from '../../../train/trace/blocks.ts';
import { FORMAT, SAMPLE, TRACE_FIELD, type Trace, tensorName } from '../../../train/trace/format.ts';
import { browserThere } from '../../support/browser.ts';
import { drawn, type OpenedLab, openLab, visit } from '../../support/lab.ts';
import { scratch } from '../../support/scratch.ts';

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

/** A file as `npm run trace` writes it for a picture of 512 pixels, with one value in it. */
async function writeLarge(file: string): Promise<{ readonly blocks: number; readonly numbers: number }> {
  const blocks = blocksOf(parseConfig(unetSchema, SD15_UNET, 'unet'));
  const one = 'unet.down_blocks.0';
  const filled = (...shape: number[]): TensorOut => ({
    dtype: 'F32',
    shape,
    data: new Float32Array(shape.reduce((n, side) => n * side, 1)).fill(0.5),
  });
  const told: Trace = {
    source: 'made',
    method: 'selora',
    step: 1,
    backend: 'wasm',
    device: 'none',
    loss: 1,
    norm: 1,
    samples: [{ report: 'a report', t: 10, loss: 1 }],
    sample: 0,
    blocks: blocks.map((b) => ({ ...b })),
    modules: [{ path: `${one}.attentions.0.proj_in`, rank: 1, gradient: 1 }],
    kernels: [{ module: one, op: 'dot', detail: '[1] → [1]', count: 1, flops: 1, bytes: 1 }],
    values: [one],
  };
  const tensors = new Map([
    [tensorName('value', one), filled(64, 64, 320)],
    [tensorName('cotangent', one), filled(64, 64, 320)],
    ...SAMPLE.map((part) => [tensorName('sample', part), filled(64, 64, 4)] as const),
  ]);
  await writeSafetensors(
    file,
    tensors,
    new Map(Object.entries({ format: FORMAT, [TRACE_FIELD]: JSON.stringify(told) })),
  );
  return { blocks: blocks.length, numbers: 64 * 64 * 320 };
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
    const { page, faults } = await visit({ ...lab, address: host.address }, '#/runs', { fresh: true });
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

  test('a recorded step of the size of Stable Diffusion opens there, block by block', async () => {
    const file = join(scratch, 'large.safetensors');
    const { blocks, numbers } = await writeLarge(file);
    const { page, faults } = await visit({ ...lab, address: host.address }, '#/step', { fresh: true });
    await page.getByLabel('File of a recorded step').setInputFiles(file);
    await page.waitForSelector('[data-trace]');
    expect(await page.locator('.unit').count()).toBe(blocks);
    await page.locator('[data-block="unet.down_blocks.0"]').press('Enter');
    await page.waitForSelector('[data-value="unet.down_blocks.0"]');
    // each of them is a half
    const norm = Number(await page.locator('[data-cotangent]').getAttribute('data-cotangent'));
    expect(norm / (Math.sqrt(numbers) / 2)).toBeCloseTo(1, 6);
    expect(await page.locator('.error:not([hidden])').allTextContents()).toEqual([]);
    expect(faults).toEqual([]);
    await page.close();
  }, 120_000);
});
