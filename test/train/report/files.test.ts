/** Pictures that enter the page, and the files that leave it. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, describe, expect, test } from 'vitest';
import { embed } from '../../../train/report/embed.ts';
import { writePage } from '../../../train/report/write.ts';
import { parseRecord } from '../../../train/run/record.ts';
import { greyPng, simulatedRun } from '../../support/report-fixture.ts';

const folder = mkdtempSync(join(tmpdir(), 'selora-report-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A file in the folder. */
function written(name: string, content: Uint8Array): string {
  const file = join(folder, name);
  writeFileSync(file, content);
  return file;
}

describe('pictures', () => {
  test('only pixels enter the page: text chunks and EXIF stay behind, pixels are exact', async () => {
    const raw = Buffer.from(Array.from({ length: 8 * 8 * 3 }, (_, i) => (i * 37) % 256));
    const image = sharp(raw, { raw: { width: 8, height: 8, channels: 3 } });
    const canary = 'PATIENT-CANARY-4711';
    const bytes = await image
      .withExif({ IFD0: { ImageDescription: canary, Artist: canary } })
      .png()
      .toBuffer();
    expect(bytes.includes(canary)).toBe(true);
    const out = await embed(written('exif.png', bytes));
    if ('missing' in out) throw new Error(out.missing);
    const embedded = Buffer.from(out.src.slice(out.src.indexOf(',') + 1), 'base64');
    expect(embedded.includes(canary)).toBe(false);
    const chunks: string[] = [];
    for (let at = 8; at < embedded.length; at += 12 + embedded.readUInt32BE(at))
      chunks.push(embedded.toString('latin1', at + 4, at + 8));
    expect(chunks.filter((c) => !['IHDR', 'PLTE', 'tRNS', 'IDAT', 'IEND', 'pHYs'].includes(c))).toEqual([]);
    const pixels = await sharp(embedded).removeAlpha().raw().toBuffer();
    expect(pixels.equals(raw)).toBe(true);
  });

  test.each([
    ['an SVG named .png', '<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>', 'neither PNG nor JPEG'],
    ['an empty file', '', 'neither PNG nor JPEG'],
    ['a cut PNG', 'cut', 'corrupt header'],
  ])('%s is left out and the page says why', async (name, content, reason) => {
    const path = join(folder, `${name.replace(/ /g, '-')}.png`);
    writeFileSync(path, content === 'cut' ? (await greyPng()).subarray(0, 40) : content);
    const out = await embed(path);
    expect('missing' in out && out.missing).toContain(reason);
  });

  test('large pictures are shrunk', async () => {
    const big = await sharp({ create: { width: 1500, height: 700, channels: 3, background: '#123' } })
      .jpeg()
      .toBuffer();
    expect(await embed(written('big.jpg', big))).toMatchObject({ width: 512, height: 239 });
  });
});

test('writes the page and the charts, private, complete, and again over itself', async () => {
  const target = join(folder, 'run');
  mkdirSync(target);
  for (let i = 0; i < 2; i++) {
    const files = await writePage(parseRecord(simulatedRun()), target);
    expect(files[0]).toBe(join(target, 'report.html'));
    expect(files.map((f) => f.slice(target.length + 1))).toEqual(
      expect.arrayContaining([
        'loss.svg',
        'rank-unet.svg',
        'rank-text-encoder.svg',
        'rank-history.svg',
        'expansions.svg',
      ]),
    );
    for (const file of files) {
      expect(statSync(file).mode & 0o777).toBe(0o600);
      expect(readFileSync(file, 'utf8').trimEnd()).toMatch(/<\/(html|svg)>$/);
    }
  }
});
