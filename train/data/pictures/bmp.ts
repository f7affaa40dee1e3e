/**
 * Windows bitmaps, which the picture library does not read: uncompressed, 1, 4, 8, 24 or 32 bits a pixel.
 * Source: Microsoft, "Bitmap Storage" (BITMAPFILEHEADER, BITMAPCOREHEADER, BITMAPINFOHEADER, BITMAPV4HEADER).
 */
import { ImageProblem } from './png-chunks.ts';
import type { Pixels } from './resample.ts';

export const isBmp = (bytes: Uint8Array): boolean => bytes[0] === 0x42 && bytes[1] === 0x4d && bytes.length > 26;

type Header = {
  readonly width: number;
  readonly height: number;
  /** rows from top to bottom; bitmaps begin below */
  readonly downward: boolean;
  readonly bits: number;
  readonly start: number;
  /** [r, g, b] of each index */
  readonly palette: readonly (readonly [number, number, number])[];
};

function headerOf(bytes: Uint8Array, maxPixels: number): Header {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [start, size] = [view.getUint32(10, true), view.getUint32(14, true)];
  const old = size === 12;
  if (!old && (size < 40 || 14 + size > bytes.length)) throw new ImageProblem(`BMP header has ${size} bytes`);
  const width = old ? view.getUint16(18, true) : view.getInt32(18, true);
  const rows = old ? view.getUint16(20, true) : view.getInt32(22, true);
  const bits = view.getUint16(old ? 24 : 28, true);
  const compression = old ? 0 : view.getUint32(30, true);
  const height = Math.abs(rows);
  if (width <= 0 || height === 0) throw new ImageProblem(`BMP size is ${width} x ${rows} pixels`);
  if (width * height > maxPixels) {
    throw new ImageProblem(`BMP of ${width} x ${height} pixels, at most ${maxPixels} pixels are read`);
  }
  if (![1, 4, 8, 24, 32].includes(bits)) throw new ImageProblem(`BMP of ${bits} bits a pixel is not read`);
  const masks = compression === 3 && bits === 32 && bytes.length >= 66;
  const usual = masks && [0xff0000, 0xff00, 0xff].every((mask, at) => view.getUint32(54 + 4 * at, true) === mask);
  if (compression !== 0 && !usual) throw new ImageProblem('BMP is compressed, only uncompressed ones are read');
  const entry = old ? 3 : 4;
  const from = 14 + size;
  const told = old ? 0 : view.getUint32(46, true);
  const there = Math.floor((Math.min(start, bytes.length) - from) / entry);
  const colours = bits > 8 ? 0 : Math.min(told === 0 ? 2 ** bits : told, 2 ** bits, Math.max(0, there));
  const palette = Array.from({ length: colours }, (_, at) => {
    const place = from + at * entry;
    return [bytes[place + 2]!, bytes[place + 1]!, bytes[place]!] as const;
  });
  return { width, height, downward: rows < 0, bits, start, palette };
}

/**
 * Decodes a bitmap to [height, width, 1 (a grey palette) or 3]; the fourth byte of a pixel is no colour and is left out.
 * @throws ImageProblem when it is compressed, cut, too large, or points beyond its palette.
 */
export function decodeBmp(bytes: Uint8Array, maxPixels: number): Pixels<Uint8Array> & { readonly channels: 1 | 3 } {
  const { width, height, downward, bits, start, palette } = headerOf(bytes, maxPixels);
  const stride = Math.ceil((width * bits) / 32) * 4;
  if (start < 26 || start + stride * height > bytes.length) {
    throw new ImageProblem('BMP cannot be decoded, it is truncated');
  }
  const channels = bits <= 8 && palette.every(([r, g, b]) => r === g && g === b) ? 1 : 3;
  const data = new Uint8Array(width * height * channels);
  for (let y = 0; y < height; y++) {
    const row = start + (downward ? y : height - 1 - y) * stride;
    for (let x = 0; x < width; x++) {
      const to = (y * width + x) * channels;
      if (bits > 8) {
        const from = row + (x * bits) / 8;
        for (let c = 0; c < 3; c++) data[to + c] = bytes[from + 2 - c]!;
        continue;
      }
      const bit = x * bits;
      const index = (bytes[row + (bit >> 3)]! >> (8 - bits - (bit & 7))) & (2 ** bits - 1);
      const colour = palette[index];
      if (!colour) throw new ImageProblem(`BMP names colour ${index} of ${palette.length}`);
      for (let c = 0; c < channels; c++) data[to + c] = colour[c]!;
    }
  }
  return { width, height, channels, data };
}
