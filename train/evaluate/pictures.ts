/** The two sets of `evaluate`: picture files of a folder, or those that a run drew. */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { asFileError, FileError } from '../../models/io/error.ts';
import { readImage } from '../data/pictures/images.ts';
import type { Planes } from '../metrics/measures/ssim.ts';
import { CONFIG_FILE } from '../run/folder.ts';
import { METRICS_FILE } from '../run/metrics.ts';

const PICTURE = /\.(png|jpe?g|webp|tiff?|bmp|dcm)$/i;

/** A picture of a set: 8-bit RGB, channels interleaved. */
export interface Loaded {
  readonly file: string;
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
  /** SHA-256 of size and pixels: what its features are kept under */
  readonly hash: string;
}

/** What the sets are made of. */
export interface SetFiles {
  readonly files: readonly string[];
  /** whether the folder is a run's */
  readonly run: boolean;
  /** of a run: the real pictures of its reports */
  readonly real: readonly string[];
  /** of a run: real ones through the autoencoder */
  readonly autoencoder: readonly string[];
}

/** Whether a folder is a run's. */
async function isRun(folder: string): Promise<boolean> {
  const names = await readdir(folder).catch((error) => {
    throw asFileError(error, folder);
  });
  return names.includes(CONFIG_FILE) && names.includes(METRICS_FILE);
}

/**
 * Picture files of a folder and the folders in it, in the order of their names; of a run those its adapted model drew.
 * @throws FileError where there are fewer than `least`
 */
export async function setFiles(folder: string, least: number): Promise<SetFiles> {
  const run = await isRun(folder);
  const at = run ? path.join(folder, 'samples') : folder;
  const names = (await readdir(at, { recursive: true }).catch((error) => {
    throw asFileError(error, at);
  })) as string[];
  const matching = (pattern: RegExp) =>
    names
      .filter((name) => pattern.test(name))
      .sort()
      .map((name) => path.join(at, name));
  const files = matching(run ? /^\d+-adapted(-\d+)?\.png$/ : PICTURE);
  if (files.length < least) throw new FileError(at, '', `${files.length} pictures, expected ${least} or more`);
  const of = (label: string) => (run ? matching(new RegExp(`^\\d+-${label}\\.png$`)) : []);
  return { files, run, real: of('real'), autoencoder: of('autoencoder') };
}

/** One picture as bytes; 16 bits are cut to 8, grey is repeated. @throws FileError naming the file */
export async function loadPicture(file: string): Promise<Loaded> {
  const { width, height, channels, depth, data } = await readImage(file);
  const bytes = new Uint8Array(width * height * 3);
  for (let i = 0; i < bytes.length; i++) {
    const value = data[channels === 3 ? i : Math.floor(i / 3)]!;
    bytes[i] = depth === 16 ? value >> 8 : value;
  }
  const hash = createHash('sha256').update(`${width}x${height} `).update(bytes).digest('hex');
  return { file, width, height, data: bytes, hash };
}

/** Mean of the channels, in bytes. */
export function greyOf({ width, height, data }: Loaded): Planes {
  const grey = Float64Array.from(
    { length: width * height },
    (_, i) => (data[3 * i]! + data[3 * i + 1]! + data[3 * i + 2]!) / 3,
  );
  return { width, height, channels: 1, data: grey };
}

/** SHA-256 of a file, for what is kept under it. */
export const fileHash = async (file: string): Promise<string> =>
  createHash('sha256')
    .update(await readFile(file).catch((error) => Promise.reject(asFileError(error, file))))
    .digest('hex');
