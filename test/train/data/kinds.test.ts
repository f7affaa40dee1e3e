/** Pictures of other kinds than PNG, pictures that are turned by a mark, and JPEGs with faults that viewers read over. */
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { decodeImage } from '../../../train/data/pictures/images.ts';
import { crc32 } from '../../../train/data/pictures/png-chunks.ts';

const [W, H] = [6, 4];
/** red rises to the right, green downwards */
const RGB = Uint8Array.from({ length: W * H * 3 }, (_, at) => {
  const [x, y] = [Math.floor(at / 3) % W, Math.floor(at / 3 / W)];
  return [40 * x, 60 * y, 7][at % 3]!;
});
const raw = sharp(RGB, { raw: { width: W, height: H, channels: 3 } });

/** A bitmap by hand: rows from below unless `downward`, each filled up to four bytes. */
function bmp(
  bits: number,
  rows: readonly (readonly number[])[],
  palette: readonly number[] = [],
  downward = false,
): Buffer {
  const stride = Math.ceil(rows[0]!.length / 4) * 4;
  const width = bits === 24 ? rows[0]!.length / 3 : bits === 32 ? rows[0]!.length / 4 : (rows[0]!.length * 8) / bits;
  const head = Buffer.alloc(54);
  head.write('BM', 0, 'latin1');
  head.writeUInt32LE(54 + palette.length, 10);
  head.writeUInt32LE(40, 14);
  head.writeInt32LE(width, 18);
  head.writeInt32LE(downward ? -rows.length : rows.length, 22);
  head.writeUInt16LE(1, 26);
  head.writeUInt16LE(bits, 28);
  head.writeUInt32LE(palette.length / 4, 46);
  const body = (downward ? rows : rows.toReversed()).map((row) => Buffer.concat([Buffer.from(row)], stride));
  return Buffer.concat([head, Buffer.from(palette), ...body]);
}
const bgr = (downward = false) => {
  const rows = Array.from({ length: H }, (_, y) =>
    Array.from({ length: W * 3 }, (_, at) => RGB[(y * W + Math.floor(at / 3)) * 3 + 2 - (at % 3)]!),
  );
  return bmp(24, rows, [], downward);
};

describe('other kinds', () => {
  it('WebP, TIFF and BMP without loss give the pixels of the PNG', async () => {
    const files = [
      await raw.clone().webp({ lossless: true }).toBuffer(),
      await raw.clone().tiff({ compression: 'lzw' }).toBuffer(),
      await raw.clone().tiff({ compression: 'none' }).toBuffer(),
      bgr(),
      bgr(true),
    ];
    for (const file of files) {
      const { width, height, channels, depth, data } = await decodeImage(file);
      expect([width, height, channels, depth]).toEqual([W, H, 3, 8]);
      expect([...data]).toEqual([...RGB]);
    }
  });
  it('TIFF keeps 16 bits of grey', async () => {
    const values = Uint16Array.of(0, 1, 255, 256, 4095, 65535);
    const wide = await sharp(values, { raw: { width: 6, height: 1, channels: 1, depth: 'ushort' } as never })
      .toColourspace('grey16')
      .tiff({ compression: 'none' })
      .toBuffer();
    const picture = await decodeImage(wide);
    expect([picture.depth, picture.channels, ...picture.data]).toEqual([16, 1, ...values]);
  });
  it('BMP with palettes: grey stays one channel, colours become three', async () => {
    const grey = await decodeImage(bmp(8, [[0, 1, 2, 1]], [0, 0, 0, 0, 90, 90, 90, 0, 200, 200, 200, 0]));
    expect([grey.channels, ...grey.data]).toEqual([1, 0, 90, 200, 90]);
    const colours = await decodeImage(bmp(4, [[0x01, 0x10]], [1, 2, 3, 0, 4, 5, 6, 0]));
    expect([colours.channels, ...colours.data]).toEqual([3, 3, 2, 1, 6, 5, 4, 6, 5, 4, 3, 2, 1]);
    const bits = await decodeImage(bmp(1, [[0b10100000]], [0, 0, 0, 0, 255, 255, 255, 0]));
    expect([...bits.data]).toEqual([255, 0, 255, 0, 0, 0, 0, 0]);
    const padded = await decodeImage(bmp(32, [[3, 2, 1, 0, 6, 5, 4, 0]]));
    expect([...padded.data]).toEqual([1, 2, 3, 4, 5, 6]);
  });
  it('a BMP that is cut, compressed, too large or points beyond its palette is refused', async () => {
    const whole = bgr();
    for (let length = 27; length < whole.length; length += 3)
      await expect(decodeImage(whole.subarray(0, length))).rejects.toThrow(/^BMP/);
    const changed = (at: number, value: number) => {
      const copy = Buffer.from(whole);
      copy.writeInt32LE(value, at);
      return decodeImage(copy);
    };
    await expect(changed(30, 1)).rejects.toThrow(/compressed/);
    await expect(changed(18, 2_000_000_000)).rejects.toThrow(/at most/);
    await expect(changed(18, 0)).rejects.toThrow(/size/);
    await expect(decodeImage(bmp(8, [[0, 9, 0, 0]], [0, 0, 0, 0]))).rejects.toThrow(/colour 9 of 1/);
  });
  it('a file of several pictures is refused', async () => {
    const one = await raw.clone().png().toBuffer();
    const other = await raw.clone().negate().png().toBuffer();
    const frames = await sharp([one, other], { join: { animated: true } })
      .webp({ lossless: true })
      .toBuffer();
    await expect(decodeImage(frames)).rejects.toThrow(/^WebP holds 2 pictures, expected one$/);
  });
});

describe('marks of orientation', () => {
  // where the top left corner of the stored picture stands when it is shown upright
  const corners = {
    1: [0, 0],
    2: [W - 1, 0],
    3: [W - 1, H - 1],
    4: [0, H - 1],
    5: [0, 0],
    6: [H - 1, 0],
    7: [H - 1, W - 1],
    8: [0, W - 1],
  };
  it.each(Object.entries(corners))('%s', async (mark, [x, y]) => {
    const marked = Uint8Array.from(RGB, () => 0);
    marked.set([255, 255, 255]);
    const lying = sharp(marked, { raw: { width: W, height: H, channels: 3 } }).withMetadata({
      orientation: Number(mark),
    });
    for (const file of [
      await lying.clone().webp({ lossless: true }).toBuffer(),
      await lying.clone().png().toBuffer(),
    ]) {
      const { width, height, data, turned = false } = await decodeImage(file);
      expect([width, height]).toEqual(Number(mark) > 4 ? [H, W] : [W, H]);
      expect(data.findIndex((v) => v > 128)).toBe((y! * width + x!) * 3);
      expect(turned).toBe(mark !== '1');
    }
  });
  it('one of a PNG that is broken, or too large to be one, turns nothing and refuses nothing', async () => {
    const plain = await raw.clone().png().toBuffer();
    const chunk = (body: Uint8Array): Buffer => {
      const out = Buffer.alloc(12 + body.length);
      out.writeUInt32BE(body.length);
      out.write('eXIf', 4);
      out.set(body, 8);
      out.writeUInt32BE(crc32(out.subarray(4, 8 + body.length)), 8 + body.length);
      return out;
    };
    const bodies = [
      new Uint8Array(0),
      Uint8Array.of(1, 2, 3),
      Buffer.from('II*\0\xff\xff\xff\x7f', 'latin1'),
      Buffer.from('MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0', 'latin1'),
      Uint8Array.from({ length: 4000 }, (_, i) => (i * 73) % 251),
      Uint8Array.from({ length: 70_000 }, (_, i) => (i * 73) % 251),
    ];
    for (const body of bodies) {
      const file = Buffer.concat([plain.subarray(0, 33), chunk(body), plain.subarray(33)]);
      const { width, height, data } = await decodeImage(file);
      expect([width, height, [...data]], `${body.length} bytes`).toEqual([W, H, [...(await decodeImage(plain)).data]]);
    }
  });
});

describe('JPEGs with faults that viewers read over', () => {
  const make = async () =>
    sharp(Buffer.alloc(24 * 24 * 3, 90), { raw: { width: 24, height: 24, channels: 3 } })
      .jpeg()
      .toBuffer();
  const scan = (j: Buffer) => j.indexOf(Buffer.from([0xff, 0xda]));
  const faults: readonly (readonly [string, (j: Buffer) => Buffer])[] = [
    ['bytes after the end', (j) => Buffer.concat([j, Buffer.from('camera')])],
    ['two ends', (j) => Buffer.concat([j, Buffer.from([0xff, 0xd9])])],
    [
      'stray bytes before the scan',
      (j) => Buffer.concat([j.subarray(0, scan(j)), Buffer.alloc(3), j.subarray(scan(j))]),
    ],
    [
      'stray bytes after the start of a segment list',
      (j) => Buffer.concat([j.subarray(0, 20), Buffer.from([1, 2]), j.subarray(20)]),
    ],
    [
      'zeroed scan parameters',
      (j) => {
        const copy = Buffer.from(j);
        const end = scan(j) + 2 + j.readUInt16BE(scan(j) + 2);
        return copy.fill(0, end - 3, end);
      },
    ],
  ];
  it.each(faults)('%s', async (_, fault) => {
    const whole = await make();
    const { data } = await decodeImage(fault(whole));
    expect([...data]).toEqual([...(await decodeImage(whole)).data]);
  });
  it('a cut one is refused with or without them', async () => {
    const whole = await make();
    for (const [, fault] of faults.slice(2)) {
      const broken = fault(whole);
      await expect(decodeImage(broken.subarray(0, broken.length - 8))).rejects.toThrow(/JPEG/);
    }
  });
});
