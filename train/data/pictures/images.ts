/**
 * Images from people: PNG, JPEG, WebP, TIFF, BMP and DICOM, told by content and never by name, decoded wholly or refused. Half a
 * film or a film of grey filling must never be trained on.
 */

import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { asFileError, FileError } from '../../../models/io/error.ts';
import { decodeBmp, isBmp } from './bmp.ts';
import { decodeDicom, isDicom } from './dicom.ts';
import { isJpeg, mendedJpeg } from './jpeg-segments.ts';
import { pictureLibrary } from './library.ts';
import { cleanPng, ImageProblem, isPng } from './png-chunks.ts';
import { type Picture, trainingPixels } from './training-pixels.ts';

/** A film of 4020 × 4892 is 19.7 million pixels. */
export const MAX_PIXELS = 50_000_000;
export const MAX_IMAGE_BYTES = 256 * 2 ** 20;

const text = (bytes: Uint8Array, from: number, to: number) => String.fromCharCode(...bytes.subarray(from, to));
const isWebp = (bytes: Uint8Array) => text(bytes, 0, 4) === 'RIFF' && text(bytes, 8, 12) === 'WEBP';
const isTiff = (bytes: Uint8Array) => ['II*\0', 'MM\0*', 'II+\0', 'MM\0+'].includes(text(bytes, 0, 4));

type Kind = 'PNG' | 'JPEG' | 'WebP' | 'TIFF' | 'BMP' | 'DICOM';
const KINDS: readonly (readonly [Kind, (bytes: Uint8Array) => boolean])[] = [
  ['PNG', isPng],
  ['JPEG', isJpeg],
  ['WebP', isWebp],
  ['TIFF', isTiff],
  ['BMP', isBmp],
  ['DICOM', isDicom],
];

/** Why the decoder refused, in few words; its own messages may hold anything that is in the file. */
function decoderProblem(kind: string, error: unknown): ImageProblem {
  const message = error instanceof Error ? error.message : '';
  if (/pixel limit|Maximum supported image dimension/i.test(message)) {
    return new ImageProblem(`${kind} has too many pixels, at most ${MAX_PIXELS} are read`);
  }
  const reason = /premature end|out of data/i.test(message)
    ? 'truncated'
    : /Empty JPEG/i.test(message)
      ? 'of size zero'
      : 'corrupt';
  return new ImageProblem(`${kind} cannot be decoded, it is ${reason}`);
}

/** Pixels of a file that the picture library reads. @throws ImageProblem */
async function decodeWithLibrary(kind: Kind, source: Uint8Array): Promise<Picture> {
  try {
    // libtiff warns of every private tag, and there are many
    const failOn = kind === 'TIFF' ? 'error' : 'warning';
    const sharp = await pictureLibrary();
    const image = sharp(source, { failOn, limitInputPixels: MAX_PIXELS, ignoreIcc: true });
    const { space, depth, hasAlpha, pages = 1, orientation = 1 } = await image.metadata();
    if (pages > 1) throw new ImageProblem(`${kind} holds ${pages} pictures, expected one`);
    if (depth !== 'uchar' && depth !== 'ushort') {
      throw new ImageProblem(`${kind} has samples of another type than 8 or 16 bits`);
    }
    const grey = space === 'b-w' || space === 'grey16';
    const wide = depth === 'ushort';
    const upright = image.autoOrient();
    const { data, info } = await (hasAlpha ? upright.flatten({ background: '#000' }) : upright)
      .toColourspace(grey ? (wide ? 'grey16' : 'b-w') : wide ? 'rgb16' : 'srgb')
      .raw({ depth: wide ? 'ushort' : 'uchar' })
      .toBuffer({ resolveWithObject: true });
    const { width, height, channels } = info;
    if ((channels !== 1 && channels !== 3) || data.length !== width * height * channels * (wide ? 2 : 1)) {
      throw new ImageProblem(`${kind} has ${channels} colour channels, expected 1 or 3`);
    }
    const bytesOut = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const turned = orientation > 1 ? ({ turned: true } as const) : {};
    return wide
      ? { width, height, channels, depth: 16, data: new Uint16Array(bytesOut.slice().buffer), ...turned }
      : { width, height, channels, depth: 8, data: bytesOut, ...turned };
  } catch (error) {
    throw error instanceof ImageProblem ? error : decoderProblem(kind, error);
  }
}

/**
 * Decodes PNG, JPEG, WebP, TIFF, BMP or DICOM bytes. Alpha is laid over black and dropped, palettes are unfolded, colour profiles
 * are ignored (as Pillow and torchvision do), a picture that an EXIF mark turns is turned, 16 bits stay 16 bits.
 * @throws ImageProblem when it is none of them, is damaged, or has more than `MAX_PIXELS` pixels.
 */
export async function decodeImage(bytes: Uint8Array): Promise<Picture> {
  const kind = KINDS.find(([, is]) => is(bytes))?.[0];
  switch (kind) {
    case undefined:
      throw new ImageProblem(
        bytes.length === 0 ? 'is empty, expected an image' : 'is no PNG, JPEG, WebP, TIFF, BMP or DICOM image',
      );
    case 'PNG': {
      const { header, png, marked } = cleanPng(bytes);
      if (header.width * header.height > MAX_PIXELS) {
        const size = `${header.width} x ${header.height}`;
        throw new ImageProblem(`PNG of ${size} pixels, at most ${MAX_PIXELS} pixels are read`);
      }
      // a broken mark does not make a broken picture
      return marked
        ? decodeWithLibrary(kind, marked).catch(() => decodeWithLibrary(kind, png))
        : decodeWithLibrary(kind, png);
    }
    case 'JPEG':
      return decodeWithLibrary(kind, bytes).catch((error: unknown) => {
        const mended = mendedJpeg(bytes);
        if (mended === undefined) throw error;
        return decodeWithLibrary(kind, mended);
      });
    case 'BMP':
      return { ...decodeBmp(bytes, MAX_PIXELS), depth: 8 };
    case 'DICOM':
      return decodeDicom(bytes, MAX_PIXELS);
    default:
      return decodeWithLibrary(kind, bytes);
  }
}

/**
 * The bytes of a regular file, its size checked before anything is allocated. Opened without blocking, so that a pipe
 * is refused and not waited for.
 * @throws FileError for a missing file, a directory, pipe or device, or one above `limit` bytes.
 */
async function readRegular(file: string, limit: number): Promise<Uint8Array> {
  let handle: Awaited<ReturnType<typeof open>> | undefined;
  try {
    handle = await open(file, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
    const info = await handle.stat();
    if (info.isDirectory()) throw new FileError(file, 'image', 'is a directory, expected an image file');
    if (!info.isFile()) throw new FileError(file, 'image', 'is not a regular file');
    if (info.size > limit) throw new FileError(file, 'image', `has ${info.size} bytes, at most ${limit} are read`);
    return await handle.readFile();
  } catch (error) {
    throw asFileError(error, file, 'image');
  } finally {
    await handle?.close();
  }
}

/**
 * Reads one image file.
 * @throws FileError (one line: file, what is wrong) as `decodeImage`, or when it is no readable regular file.
 */
export async function readImage(file: string): Promise<Picture> {
  return decodeNamed(await readRegular(file, MAX_IMAGE_BYTES), file);
}

/** `decodeImage` with the name that a message begins with. @throws FileError */
export async function decodeNamed(bytes: Uint8Array, file: string): Promise<Picture> {
  try {
    return await decodeImage(bytes);
  } catch (error) {
    throw error instanceof ImageProblem ? new FileError(file, 'image', error.message) : error;
  }
}

/** Reads and prepares one image file. @throws FileError as `readImage`. */
export const loadTrainingPixels = async (file: string, side: number): Promise<Float32Array> =>
  trainingPixels(await readImage(file), side);
