/**
 * Pictures into the page, as data addresses. Each is decoded and encoded again: only pixels travel, no text, EXIF
 * or other metadata that a hospital's file may carry, and no file that merely calls itself a picture.
 */
import { readFile, stat } from 'node:fs/promises';
import { printable } from '../../models/io/error.ts';
import { pictureLibrary } from '../data/pictures/library.ts';
import { html, type Markup, trusted } from './html.ts';

/** Files above this are left out: the report shows samples, not archives. */
const maxFileBytes = 32 * 2 ** 20;
/** Longest side in the page, in pixels. */
const maxSide = 512;

/** A picture ready for `<img src>`, or the reason why there is none. */
export type Embedded =
  | { readonly src: string; readonly width: number; readonly height: number }
  | { readonly missing: string };

/** PNG or JPEG by content; sharp alone would also open an SVG that is named `.png`. */
function isPngOrJpeg(bytes: Uint8Array): boolean {
  const png = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
  return png.every((b, i) => bytes[i] === b) || (bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff);
}

async function load(file: string): Promise<Uint8Array> {
  const info = await stat(file);
  if (!info.isFile()) throw new Error('not a regular file');
  if (info.size > maxFileBytes) throw new Error(`larger than ${maxFileBytes / 2 ** 20} MiB`);
  return readFile(file);
}

/** Decodes, shrinks where needed and encodes as PNG. Never throws: a report with a gap is better than none. */
export async function embed(file: string): Promise<Embedded> {
  try {
    const bytes = await load(file);
    if (!isPngOrJpeg(bytes)) return { missing: 'neither PNG nor JPEG' };
    const sharp = await pictureLibrary();
    const image = sharp(bytes, { limitInputPixels: 64 * 2 ** 20, failOn: 'warning' });
    const small = image.resize({ width: maxSide, height: maxSide, fit: 'inside', withoutEnlargement: true });
    const { data, info } = await small.png({ compressionLevel: 9 }).toBuffer({ resolveWithObject: true });
    return { src: `data:image/png;base64,${data.toString('base64')}`, width: info.width, height: info.height };
  } catch (error) {
    return { missing: reason(error) };
  }
}

/** Why a picture is missing, without its path: a report is passed on, the folders of this machine are not. */
function reason(error: unknown): string {
  if (!(error instanceof Error)) return 'unreadable';
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT') return 'no such file';
  return code === undefined
    ? printable(error.message.split('\n')[0]!).replace(/:\s*$/, '')
    : `cannot be read (${code})`;
}

/** The picture as a part of a page, or a grey field that says why there is none. */
export async function pictureOf(file: string, alt: string): Promise<Markup> {
  const embedded = await embed(file);
  return 'missing' in embedded
    ? html`<div class="gap">picture left out: ${embedded.missing}</div>`
    : html`<img src="${trusted(embedded.src)}" width="${embedded.width}" height="${embedded.height}" alt="${alt}">`;
}
