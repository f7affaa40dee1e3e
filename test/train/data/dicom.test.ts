/** DICOM films against pydicom's windows, refusals by name, and headers whose texts go nowhere. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { decodeImage } from '../../../train/data/pictures/images.ts';

type Golden = {
  readonly rows: number;
  readonly columns: number;
  readonly films: readonly { readonly name: string; readonly file: string; readonly shown: readonly number[] }[];
  readonly rle: string;
};
const golden: Golden = JSON.parse(
  readFileSync(path.join(import.meta.dirname, '../../golden/io/dicom.json'), 'utf8'),
) as Golden;
const bytesOf = (text: string) => new Uint8Array(Buffer.from(text, 'base64'));
const first = bytesOf(golden.films[0]!.file);

/** An element of an explicit little-endian data set with a short length. */
function element(group: number, tag: number, vr: string, value: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt16LE(group, 0);
  head.writeUInt16LE(tag, 2);
  head.write(vr, 4, 'latin1');
  head.writeUInt16LE(value.length, 6);
  return Buffer.concat([head, value]);
}
const text = (value: string) => Buffer.from(value.length % 2 === 0 ? value : `${value} `, 'latin1');
const short = (value: number) => Buffer.of(value & 255, value >> 8);

type Tags = { readonly [tag: number]: readonly [string, Buffer] };
/** A film of [1, n] by hand; `more` adds to or replaces what is in group 0028. */
function film(
  pixels: Buffer,
  { bits = 16, columns = 0, syntax = '1.2.840.10008.1.2.1', more = {} as Tags, patient = 'Canary^Name' } = {},
): Uint8Array {
  const meta = element(2, 0x10, 'UI', Buffer.from(syntax.length % 2 === 0 ? syntax : `${syntax}\0`));
  const group = element(2, 0, 'UL', Buffer.of(meta.length, 0, 0, 0));
  const tags: Tags = {
    2: ['US', short(1)],
    4: ['CS', text('MONOCHROME2')],
    16: ['US', short(1)],
    17: ['US', short(columns || (pixels.length * 8) / bits)],
    256: ['US', short(bits)],
    257: ['US', short(bits)],
    258: ['US', short(bits - 1)],
    259: ['US', short(0)],
    ...more,
  };
  const body = Object.entries(tags).map(([tag, [vr, value]]) => element(0x28, Number(tag), vr, value));
  const head = Buffer.from([0xe0, 0x7f, 0x10, 0, 0x4f, 0x57, 0, 0, 0, 0, 0, 0]);
  head.writeUInt32LE(pixels.length, 8);
  return Buffer.concat([
    Buffer.alloc(128),
    Buffer.from('DICM'),
    group,
    meta,
    element(0x10, 0x10, 'PN', text(patient)),
    ...body,
    head,
    pixels,
  ]);
}
const sixteen = (...values: number[]) => Buffer.from(Uint16Array.from(values).buffer);
const refused = (bytes: Uint8Array) =>
  decodeImage(bytes).then(
    () => 'was read',
    (error: Error) => error.message,
  );

describe('DICOM films', () => {
  it.each(golden.films)('$name: what pydicom shows', async ({ file, shown }) => {
    const { width, height, channels, depth, data } = await decodeImage(bytesOf(file));
    expect([width, height, channels, depth]).toEqual([golden.columns, golden.rows, 1, 16]);
    expect(Math.max(...shown.map((y, at) => Math.abs(y - data[at]! / 65_535)))).toBeLessThan(0.5 / 65_535 + 1e-8);
    expect(new Set(shown).size).toBeGreaterThan(5);
  });
  it('without a window: from the darkest to the brightest value, padding black', async () => {
    const { data } = await decodeImage(film(sixteen(100, 300, 200, 9999), { more: { 288: ['US', short(9999)] } }));
    expect([...data]).toEqual([0, 65_535, 32_768, 0]);
    expect([...(await decodeImage(film(sixteen(7, 7)))).data]).toEqual([0, 0]);
  });
  it('colours, in pixels or in planes', async () => {
    const more: Tags = { 2: ['US', short(3)], 4: ['CS', text('RGB')] };
    const options = { bits: 8, columns: 2 };
    const pixels = await decodeImage(film(Buffer.of(1, 2, 3, 4, 5, 6), { ...options, more }));
    expect([pixels.channels, pixels.depth, ...pixels.data]).toEqual([3, 8, 1, 2, 3, 4, 5, 6]);
    const planes = film(Buffer.of(1, 4, 2, 5, 3, 6), { ...options, more: { ...more, 6: ['US', short(1)] } });
    expect([...(await decodeImage(planes)).data]).toEqual([1, 2, 3, 4, 5, 6]);
  });
  it.each([
    ['RLE Lossless', bytesOf(golden.rle)],
    ['JPEG 2000 Lossless', film(sixteen(1, 2), { syntax: '1.2.840.10008.1.2.4.90' })],
    ['JPEG Lossless, first-order prediction', film(sixteen(1, 2), { syntax: '1.2.840.10008.1.2.4.70' })],
    ['Explicit VR Big Endian', film(sixteen(1, 2), { syntax: '1.2.840.10008.1.2.2' })],
    ['Deflated Explicit VR Little Endian', film(sixteen(1, 2), { syntax: '1.2.840.10008.1.2.1.99' })],
  ])('%s: refused by that name', async (name, bytes) => {
    expect(await refused(bytes)).toBe(
      `DICOM is stored as ${name}; decompress it first, e.g. with dcmdjpeg, dcmdrle or gdcmconv --raw`,
    );
  });
  it.each<[string, Uint8Array, RegExp]>([
    ['cut', first.subarray(0, first.length - 3), /truncated/],
    ['without pixels', first.subarray(0, first.length - 72), /no pixels|broken header/],
    ['several pictures', film(sixteen(1, 2), { more: { 8: ['IS', text('12')] } }), /holds 12 pictures, expected one/],
    [
      'a palette',
      film(sixteen(1, 2), { more: { 4: ['CS', text('PALETTE COLOR')] } }),
      /PhotometricInterpretation|PALETTE/,
    ],
    ['32 bits', film(sixteen(1, 2), { bits: 32 }), /BitsAllocated is 32, expected 8 to 16/],
    ['no rows', film(sixteen(1, 2), { more: { 16: ['US', short(0)] } }), /size is 2 x 0/],
    [
      'a size beyond all',
      film(sixteen(1, 2), { more: { 16: ['US', short(65_535)], 17: ['US', short(65_535)] } }),
      /at most/,
    ],
    [
      'a window that is no number',
      film(sixteen(1, 2), { more: { 4176: ['DS', text('x')], 4177: ['DS', text('1')] } }),
      /WindowCenter is no number/,
    ],
    [
      'an empty window',
      film(sixteen(1, 2), { more: { 4176: ['DS', text('1')], 4177: ['DS', text('0')] } }),
      /too narrow/,
    ],
    [
      'a table of values',
      film(sixteen(1, 2), { more: { 12288: ['SQ', Buffer.alloc(4)] } }),
      /Modality LUT|broken header/,
    ],
  ])('%s: refused in a line', async (_, bytes, message) => {
    expect(await refused(bytes)).toMatch(message);
  });
  it('no text of a header is in a message, wherever the file is cut or spoilt', async () => {
    const canary = 'CANARY7\x1b[31m';
    const bad = film(sixteen(1, 2, 3), {
      patient: canary,
      syntax: canary,
      more: { 4: ['CS', text(canary)], 4176: ['DS', text(canary)], 4182: ['LO', text(canary)] },
    });
    const good = film(sixteen(1, 2, 3), { patient: canary, more: { 4: ['CS', text(canary)] } });
    for (const whole of [bad, good, first])
      for (let at = 132; at < whole.length; at++) {
        const spoilt = whole.slice();
        spoilt[at]! ^= 0xff;
        for (const bytes of [whole.subarray(0, at), spoilt]) {
          const message = await refused(bytes);
          expect(message).not.toMatch(/CANARY|Canary|[\p{Cc}]/u);
          expect(message).toMatch(/^(was read|DICOM)/);
        }
      }
  });
  it('a header of small elements without end does not fill the memory', async () => {
    const empty = element(9, 1, 'LO', Buffer.alloc(0));
    const flood = Buffer.alloc(5 << 20);
    for (let at = 0; at < flood.length; at += 8) flood.set(empty, at);
    for (let at = 0; at + 8 <= flood.length; at += 8) flood.writeUInt16LE((at >> 3) & 0xffff, at + 2);
    const start = film(sixteen(1, 2)).subarray(0, 132 + 12 + 28);
    const before = process.memoryUsage().rss;
    expect(await refused(Buffer.concat([start, flood]))).toMatch(/^DICOM/);
    expect(process.memoryUsage().rss - before).toBeLessThan(400 << 20);
  });
});
