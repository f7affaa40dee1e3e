/** Pictures out: PNG files without any metadata, and contact sheets with captions. */
import { printable } from '../../../models/io/error.ts';
import { writeRunFile } from '../../run/atomic.ts';
import { pictureLibrary } from './library.ts';
import { cleanPng } from './png-chunks.ts';

/** -1 → 0, 1 → 255, rounded and clipped. @throws RangeError where the picture holds NaN. */
export function toBytes(pixels: ArrayLike<number>): Uint8Array {
  const bytes = new Uint8Array(pixels.length);
  for (let at = 0; at < bytes.length; at++) {
    const value = pixels[at]!;
    if (Number.isNaN(value)) throw new RangeError(`picture: pixel value ${at} is NaN, expected a number in [-1, 1]`);
    bytes[at] = Math.round(Math.min(1, Math.max(-1, value)) * 127.5 + 127.5);
  }
  return bytes;
}

async function png(data: Uint8Array, width: number, height: number): Promise<Uint8Array> {
  const sharp = await pictureLibrary();
  const encoded = await sharp(data, { raw: { width, height, channels: 3 } })
    .png({ compressionLevel: 9, adaptiveFiltering: true })
    .toBuffer();
  return cleanPng(encoded).png;
}

/**
 * PNG bytes (IHDR, IDAT, IEND only) of RGB pixels [height, width, 3] in [-1, 1]; the same pixels give the same bytes.
 * @throws RangeError when the number of pixels does not fit the size or one is NaN.
 */
export async function encodePng(pixels: ArrayLike<number>, width: number, height = width): Promise<Uint8Array> {
  if (pixels.length !== width * height * 3) {
    throw new RangeError(`picture of ${pixels.length} values, expected ${height} x ${width} x 3`);
  }
  return png(toBytes(pixels), width, height);
}

/** Writes a PNG of RGB pixels [height, width, 3] in [-1, 1] atomically. @throws FileError when it cannot be written. */
export async function writePng(file: string, pixels: ArrayLike<number>, width: number, height = width): Promise<void> {
  await writeRunFile(file, await encodePng(pixels, width, height));
}

/** One picture of a sheet: RGB [size, size, 3] in [-1, 1] with the text below it. */
export type Tile = { readonly pixels: ArrayLike<number>; readonly caption: string };

const FONT_SIZE = 11;
const LINE = 14;
const GAP = 8;
// Mean width of a letter of DejaVu Sans or Arial, relative to the font size, on the safe side.
const LETTER = 0.56;

/** Breaks a text into lines of at most `letters` letters, at most `lines` of them; the rest becomes "…". */
export function wrapText(text: string, letters: number, lines: number): readonly string[] {
  const words = text.split(/\s+/).flatMap((word) => word.match(new RegExp(`.{1,${letters}}`, 'gu')) ?? []);
  const wrapped: string[] = [];
  for (const word of words) {
    const joined = wrapped.length > 0 ? `${wrapped.at(-1)} ${word}` : word;
    if (wrapped.length > 0 && joined.length <= letters) wrapped[wrapped.length - 1] = joined;
    else wrapped.push(word);
  }
  return wrapped.length <= lines
    ? wrapped
    : [...wrapped.slice(0, lines - 1), `${wrapped[lines - 1]!.slice(0, letters - 1)}…`];
}

const escapeXml = (text: string) => printable(text).replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);

/**
 * A contact sheet as PNG bytes: tiles in rows of `columns`, captions below (drawn with the system's sans-serif font;
 * a machine without any font gives a sheet without captions).
 * @throws RangeError when a tile is not [size, size, 3] or there is none.
 * @example await contactSheet(phantoms.map((p) => ({ pixels: toModelPixels(p.pixels), caption: p.report })), 128, 6)
 */
export async function contactSheet(
  tiles: readonly Tile[],
  size: number,
  columns: number,
  captionLines = 4,
): Promise<Uint8Array> {
  if (tiles.length === 0) throw new RangeError('contact sheet: expected at least one picture');
  const across = Math.min(columns, tiles.length);
  const [cellWidth, cellHeight] = [size + GAP, size + GAP + captionLines * LINE];
  const [width, height] = [across * cellWidth + GAP, Math.ceil(tiles.length / across) * cellHeight + GAP];
  const places = tiles.map((tile, at) => ({
    tile,
    x: GAP + (at % across) * cellWidth,
    y: GAP + Math.floor(at / across) * cellHeight,
  }));
  const canvas = new Uint8Array(width * height * 3).fill(255);
  for (const { tile, x, y } of places) {
    if (tile.pixels.length !== size * size * 3) {
      throw new RangeError(`contact sheet: picture of ${tile.pixels.length} values, expected ${size} x ${size} x 3`);
    }
    const bytes = toBytes(tile.pixels);
    for (let row = 0; row < size; row++) {
      canvas.set(bytes.subarray(row * size * 3, (row + 1) * size * 3), ((y + row) * width + x) * 3);
    }
  }
  const letters = Math.max(4, Math.floor(size / (FONT_SIZE * LETTER)));
  const texts = places.flatMap(({ tile, x, y }) =>
    wrapText(printable(tile.caption), letters, captionLines).map(
      (line, at) => `<text x="${x}" y="${y + size + (at + 1) * LINE - 2}">${escapeXml(line)}</text>`,
    ),
  );
  const overlay = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"><g font-family="sans-serif" font-size="${FONT_SIZE}" fill="#222">${texts.join('')}</g></svg>`;
  const sharp = await pictureLibrary();
  const data = await sharp(canvas, { raw: { width, height, channels: 3 } })
    .composite([{ input: Buffer.from(overlay) }])
    .removeAlpha()
    .raw()
    .toBuffer();
  return png(data, width, height);
}
