import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import sharp from 'sharp';
import { afterAll, describe, expect, it } from 'vitest';
import { randomOf, seedKey } from '../../../core/index.ts';
import { printable } from '../../../models/io/error.ts';
import { toGrey, toModelPixels } from '../../../train/data/pictures/grey.ts';
import { contactSheet, encodePng, toBytes, wrapText, writePng } from '../../../train/data/pictures/image-write.ts';
import { decodeImage, loadTrainingPixels, readImage } from '../../../train/data/pictures/images.ts';
import { cleanPng, crc32 } from '../../../train/data/pictures/png-chunks.ts';
import { type Picture, trainingPixels } from '../../../train/data/pictures/training-pixels.ts';
import { casesOf, patience, seedOf } from '../../support/drivers.ts';

const dir = mkdtempSync(join(tmpdir(), 'selora-images-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** A PNG made by hand, so that nothing of the library under test makes the input. */
function png(
  width: number,
  height: number,
  depth: number,
  colourType: number,
  rows: readonly (readonly number[])[],
  extra: readonly (readonly [string, Uint8Array])[] = [],
): Buffer {
  const chunk = (type: string, body: Uint8Array) => {
    const head = Buffer.alloc(8);
    head.writeUInt32BE(body.length);
    head.write(type, 4, 'latin1');
    const tail = Buffer.alloc(4);
    tail.writeUInt32BE(crc32(Buffer.concat([head.subarray(4), body])));
    return Buffer.concat([head, body, tail]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width);
  header.writeUInt32BE(height, 4);
  header.set([depth, colourType], 8);
  const pixels = deflateSync(Buffer.concat(rows.map((row) => Buffer.from([0, ...row]))));
  return Buffer.concat([
    Buffer.from('89504e470d0a1a0a', 'hex'),
    chunk('IHDR', header),
    ...extra.map(([type, body]) => chunk(type, body)),
    chunk('IDAT', pixels),
    chunk('IEND', new Uint8Array()),
  ]);
}

const RAMP = png(
  4,
  4,
  8,
  0,
  [0, 1, 2, 3].map((row) => [0, 1, 2, 3].map((column) => 60 * row + 10 * column)),
);

describe('decoding', () => {
  it('reads grey, RGB, palette and 1-bit to the value', async () => {
    const grey = await decodeImage(RAMP);
    expect([grey.width, grey.height, grey.channels, grey.depth]).toEqual([4, 4, 1, 8]);
    expect([...grey.data.slice(0, 5)]).toEqual([0, 10, 20, 30, 60]);

    const rgb = await decodeImage(png(2, 1, 8, 2, [[1, 2, 3, 250, 251, 252]]));
    expect([rgb.channels, ...rgb.data]).toEqual([3, 1, 2, 3, 250, 251, 252]);

    const palette = Uint8Array.of(10, 20, 30, 40, 50, 60);
    const indexed = await decodeImage(png(2, 1, 8, 3, [[1, 0]], [['PLTE', palette]]));
    expect([indexed.channels, ...indexed.data]).toEqual([3, 40, 50, 60, 10, 20, 30]);

    const bits = await decodeImage(png(8, 1, 1, 0, [[0b10100000]]));
    expect([...bits.data]).toEqual([255, 0, 255, 0, 0, 0, 0, 0]);
  });

  it('keeps all 16 bits of grey and lays alpha over black', async () => {
    const values = [0, 1, 255, 256, 4095, 32768, 65534, 65535];
    const wide = await decodeImage(png(8, 1, 16, 0, [values.flatMap((value) => [value >> 8, value & 255])]));
    expect([wide.depth, wide.channels]).toEqual([16, 1]);
    expect([...wide.data]).toEqual(values);

    const alpha = await decodeImage(png(2, 1, 8, 4, [[200, 255, 200, 0]]));
    expect([alpha.channels, ...alpha.data]).toEqual([1, 200, 0]);
    const rgba = await decodeImage(png(1, 1, 8, 6, [[9, 8, 7, 255]]));
    expect([rgba.channels, ...rgba.data]).toEqual([3, 9, 8, 7]);
  });

  it('ignores colour profiles, gamma and texts of a PNG', async () => {
    const extra: [string, Uint8Array][] = [
      ['gAMA', Uint8Array.of(0, 0, 0, 1)],
      ['iCCP', Buffer.from('bad profile\0\0garbage', 'latin1')],
      ['tEXt', Buffer.from('Name\0CANARY^JANE', 'latin1')],
    ];
    const { data } = await decodeImage(png(2, 1, 8, 0, [[17, 200]], extra));
    expect([...data]).toEqual([17, 200]);
  });

  it('refuses every single-byte flip of the chunks that make pixels', async () => {
    const chunks = cleanPng(RAMP);
    const random = randomOf(seedKey(1));
    for (let at = 8; at < chunks.png.length; at++) {
      const mutant = Uint8Array.from(chunks.png);
      mutant[at]! ^= 1 << random.int(8);
      await expect(decodeImage(mutant), `byte ${at}`).rejects.toThrow(/PNG/);
    }
  });

  /** Puts broken JPEG files through a decoder. @throws where one is neither read wholly nor refused in a line */
  async function tryBroken(decode: (bytes: Uint8Array) => Promise<Picture>, runs: number): Promise<void> {
    const jpeg = await sharp(Buffer.alloc(32 * 32, 90), { raw: { width: 32, height: 32, channels: 1 } })
      .jpeg()
      .toBuffer();
    const random = randomOf(seedKey(seedOf(2)));
    for (let run = 0; run < runs; run++) {
      const mutant = Uint8Array.from(jpeg);
      for (let flips = 1 + random.int(3); flips > 0; flips--) mutant[2 + random.int(jpeg.length - 2)] = random.int(256);
      const cut = random.chance(0.3) ? mutant.subarray(0, 3 + random.int(mutant.length - 3)) : mutant;
      const outcome = await decode(cut).then(
        (picture) => picture.data.length === picture.width * picture.height * picture.channels,
        (error: Error) => /^(is |JPEG|PNG|WebP|TIFF|BMP)/.test(error.message) && !error.message.includes('\n'),
      );
      expect(outcome).toBe(true);
    }
  }
  it('survives broken JPEG bytes', { timeout: patience('pictures', 120_000) }, () =>
    tryBroken(decodeImage, casesOf('pictures')),
  );
  it.each<readonly [string, (bytes: Uint8Array) => Promise<Picture>]>([
    [
      'hands on what the library says',
      async (bytes) => {
        const { data, info } = await sharp(bytes).raw().toBuffer({ resolveWithObject: true });
        return { ...info, channels: 1, depth: 8, data };
      },
    ],
    [
      'gives half a film for a whole one',
      async (bytes) => {
        const picture = (await decodeImage(bytes)) as Picture & { depth: 8 };
        return { ...picture, data: picture.data.subarray(0, picture.data.length >> 1) };
      },
    ],
  ])('broken JPEG bytes find out a decoder that %s', async (_, decode) => {
    await expect(tryBroken(decode, 200)).rejects.toThrow();
  });

  it('refuses a JPEG cut anywhere', async () => {
    const noise = Buffer.from(Array.from({ length: 24 * 24 }, (_, at) => (at * 97) % 256));
    const jpeg = await sharp(noise, { raw: { width: 24, height: 24, channels: 1 } })
      .jpeg()
      .toBuffer();
    await expect(decodeImage(jpeg)).resolves.toMatchObject({ width: 24, height: 24 });
    for (let length = 3; length < jpeg.length; length += 3) {
      await expect(decodeImage(jpeg.subarray(0, length)), `${length} bytes`).rejects.toThrow(/JPEG/);
    }
  });

  it('names the file in one line', async () => {
    const file = join(dir, 'text.png');
    writeFileSync(file, 'no image');
    await expect(readImage(file)).rejects.toThrow(/text\.png: image: is no PNG, JPEG, WebP, TIFF, BMP or DICOM image$/);
    await expect(readImage(join(dir, 'none.png'))).rejects.toThrow(/none\.png: image: no such file/);
    await expect(readImage(dir)).rejects.toThrow(/is a directory/);
  });

  it('computes the CRC-32 of the standard check value', () => {
    expect(crc32(Buffer.from('123456789'))).toBe(0xcbf43926);
  });
});

describe('training pixels', () => {
  it('are value / 127.5 - 1, three channels, for a picture of the right size', async () => {
    const pixels = trainingPixels(await decodeImage(RAMP), 4);
    expect(pixels.length).toBe(48);
    expect([...pixels.slice(0, 6)]).toEqual([-1, -1, -1, ...Array(3).fill(Math.fround(10 / 127.5 - 1))]);
  });

  it('are nearly the same for 8 and 16 bits of the same film', async () => {
    const value = (row: number, column: number) => (row * 37 + column * 11) % 256;
    const rows = Array.from({ length: 30 }, (_, row) => Array.from({ length: 41 }, (_, column) => value(row, column)));
    const eight = trainingPixels(await decodeImage(png(41, 30, 8, 0, rows)), 16);
    const wide = rows.map((row) => row.flatMap((v) => [v, v]));
    const sixteen = trainingPixels(await decodeImage(png(41, 30, 16, 0, wide)), 16);
    // 8-bit arithmetic rounds after each of the two passes: one grey level in all.
    eight.forEach((v, at) => void expect(Math.abs(v - sixteen[at]!)).toBeLessThanOrEqual(1.01 / 127.5));
  });
});

describe('writing', () => {
  const picture = Float32Array.from({ length: 5 * 3 * 3 }, (_, at) => at / 22 - 1);

  it('gives the same bytes again, which read back to the value, with no metadata', async () => {
    const file = join(dir, 'out.png');
    await writePng(file, picture, 5, 3);
    const bytes = readFileSync(file);
    expect(bytes.equals(Buffer.from(await encodePng(picture, 5, 3)))).toBe(true);
    const back = await readImage(file);
    expect([back.width, back.height, back.channels]).toEqual([5, 3, 3]);
    expect([...back.data]).toEqual([...toBytes(picture)]);
    const types: string[] = [];
    for (let at = 8; at < bytes.length; at += 12 + bytes.readUInt32BE(at))
      types.push(bytes.toString('latin1', at + 4, at + 8));
    expect(new Set(types)).toEqual(new Set(['IHDR', 'IDAT', 'IEND']));
    expect((await loadTrainingPixels(file, 3)).length).toBe(27);
  });

  it('rounds and clips, and refuses NaN and wrong sizes', async () => {
    expect([...toBytes([-2, -1, 0, 1, 2])]).toEqual([0, 0, 128, 255, 255]);
    await expect(encodePng([0, Number.NaN, 0], 1)).rejects.toThrow(/pixel value 1 is NaN/);
    await expect(encodePng(picture, 4, 3)).rejects.toThrow(/45 values, expected 3 x 4 x 3/);
  });

  it('turns grey into model pixels and back', () => {
    const grey = Float32Array.of(0, 0.25, 1);
    expect([...toModelPixels(grey).slice(3, 6)]).toEqual([-0.5, -0.5, -0.5]);
    expect([...toGrey(toModelPixels(grey))]).toEqual([0, 0.25, 1]);
  });
});

describe('contact sheets', () => {
  const tile = (caption: string) => ({ pixels: new Float32Array(64 * 64 * 3).fill(-1), caption });

  it('hold the tiles where they belong and survive hostile captions', async () => {
    const captions = ['plain', '</text><script>alert(1)</script>', '&lt; & "quoted" \u001b[2J\u0000', '𝕏'.repeat(300)];
    const sheet = await decodeImage(await contactSheet(captions.map(tile), 64, 3));
    expect([sheet.width, sheet.height]).toEqual([3 * 72 + 8, 2 * (72 + 4 * 14) + 8]);
    const at = (x: number, y: number) => sheet.data[(y * sheet.width + x) * 3];
    expect([at(0, 0), at(10, 10), at(71, 71), at(75, 10), at(3 * 72 + 7, 10)]).toEqual([255, 0, 0, 255, 255]);
    await expect(contactSheet([], 64, 3)).rejects.toThrow(/at least one/);
    await expect(contactSheet([{ pixels: [0], caption: '' }], 64, 3)).rejects.toThrow(/expected 64 x 64 x 3/);
  });

  it('draw a caption of any characters: what XML forbids is shown as its number', async () => {
    const odd = [
      0xffff, 0xfffe, 0xfdd0, 0x1ffff, 0x10ffff, 0, 8, 0xb, 0x7f, 0x85, 0xd800, 0xdfff, 0x2028, 0xfeff, 0x202e,
    ];
    const captions = odd.map((point) => `a ${String.fromCodePoint(point)} lung`);
    const every = Array.from({ length: 0x110000 / 97 }, (_, i) => String.fromCodePoint(i * 97)).join('');
    const sheet = await decodeImage(await contactSheet([...captions, every].map(tile), 64, 4));
    expect(sheet.width).toBe(4 * 72 + 8);
    expect(printable('a\uffff\u{1fffe}')).toBe('a\\u{ffff}\\u{1fffe}');
  });

  it('breaks texts between words and marks what is left out', () => {
    expect(wrapText('small faint opacity in the left zone', 12, 4)).toEqual([
      'small faint',
      'opacity in',
      'the left',
      'zone',
    ]);
    expect(wrapText('one two three four', 5, 2)).toEqual(['one', 'two…']);
    expect(wrapText('abcdefghij', 4, 9)).toEqual(['abcd', 'efgh', 'ij']);
  });
});
