/** What page “Train here” trains on: built-in phantoms, or pictures a person dropped; encoded once, as a run does. */
import { type Backend, CoreError } from '../../../core/index.ts';
import { createTokenizer, type Tokenizer, type TokenizerConfig } from '../../../models/clip/tokenizer.ts';
import type { Finding } from '../../data/made/phantom-report.ts';
import { phantomAt } from '../../data/made/phantoms.ts';
import { toGrey, toModelPixels } from '../../data/pictures/grey.ts';
import { type Picture, trainingPixels } from '../../data/pictures/training-pixels.ts';
import { type Encoded, encodePairs } from '../../model/encode.ts';
import type { ReadFile, Ready } from './base.ts';
import type { Tell } from './protocol.ts';

export const TOKENIZER_FILE = 'base/tokenizer.json';
/** The tokenizer as the build writes it down. */
export interface TokenizerFile {
  readonly vocabulary: readonly (readonly [string, number])[];
  readonly merges: readonly (readonly [string, string])[];
  readonly config: TokenizerConfig;
}
/** Reads it. Cost: some tens of milliseconds. */
export async function readTokenizer(read: ReadFile): Promise<Tokenizer> {
  const { vocabulary, merges, config } = JSON.parse(
    new TextDecoder().decode(await read(TOKENIZER_FILE)),
  ) as TokenizerFile;
  return createTokenizer(new Map(vocabulary), merges, config);
}

/** A picture of one's own: a file as the browser has it, read when its turn comes. */
export interface OwnPicture {
  readonly name: string;
  readonly text: string;
  readonly file: unknown;
}
/** What a worker of a browser has for pictures. */
type Browser = {
  createImageBitmap(file: unknown, how: object): Promise<{ width: number; height: number; close(): void }>;
  OffscreenCanvas: new (
    width: number,
    height: number,
  ) => {
    getContext(kind: '2d'): {
      fillRect(x: number, y: number, width: number, height: number): void;
      drawImage(image: unknown, x: number, y: number): void;
      getImageData(x: number, y: number, width: number, height: number): { data: Uint8ClampedArray };
    };
  };
};
const MOST_PIXELS = 50_000_000;

/** Its pixels as the browser decodes them: upright, without colour profiles, alpha over black. @throws CoreError naming it */
async function decoded({ name, file }: OwnPicture): Promise<Picture> {
  const { createImageBitmap, OffscreenCanvas } = globalThis as unknown as Browser;
  const how = { imageOrientation: 'from-image', premultiplyAlpha: 'none', colorSpaceConversion: 'none' };
  const bitmap = await createImageBitmap(file, how).catch(() => {
    throw new CoreError(`${name}: this browser cannot decode it, expected a PNG, JPEG, WebP or BMP picture`);
  });
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) throw new CoreError(`${name}: more than ${MOST_PIXELS} pixels`);
  const context = new OffscreenCanvas(width, height).getContext('2d');
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < data.length; i++) data[i] = rgba[Math.floor(i / 3) * 4 + (i % 3)]!;
  return { width, height, data, channels: 3, depth: 8 };
}
/** What is trained on. */
export type DataAsk =
  | { readonly kind: 'phantoms'; readonly pairs: number }
  | { readonly kind: 'own'; readonly pictures: readonly OwnPicture[] };

/** A report that films are drawn of, with its own film. */
export interface Shown {
  readonly text: string;
  /** grey, 0 to 1 */
  readonly film: Float32Array;
  /** what a phantom's report means, for the detectors */
  readonly findings?: readonly Finding[];
}
/** Data made ready. */
export interface Data {
  readonly training: readonly Encoded[];
  /** of the phantoms held-out ones, of one's own pictures the first */
  readonly shown: readonly Shown[];
}

/** reports that films are drawn of */
const SHOWN = 4;

/** As `--pairs` and `--split 80/10/10` of a run have them: the first eight tenths are trained on. */
const trainingOf = (pairs: number): number => Math.round(pairs * 0.8);

/** @throws CoreError for a batch that finds too few pictures */
export async function makeData(
  ask: DataAsk,
  base: Ready,
  tokenizer: Tokenizer,
  backend: Backend,
  tell: Tell,
): Promise<Data> {
  const { side, run } = base;
  const encode = (pairs: Parameters<typeof encodePairs>[4]) =>
    encodePairs(backend, base.vae, base.configs.vae, tokenizer, pairs, side, {
      onProgress: (done, of) => tell(`encoding pictures, ${done} of ${of}`),
    });
  if (ask.kind === 'own') {
    if (ask.pictures.length === 0) throw new CoreError('there is no picture');
    const pixels = async (p: OwnPicture) => trainingPixels(await decoded(p), side);
    const shown: Shown[] = [];
    for (const p of ask.pictures.slice(0, SHOWN)) shown.push({ text: p.text, film: toGrey(await pixels(p)) });
    return {
      training: await encode(ask.pictures.map((p) => ({ id: p.name, text: p.text, pixels: () => pixels(p) }))),
      shown,
    };
  }
  const phantom = (set: string, i: number) => phantomAt(run.seed, set, i, side);
  return {
    training: await encode(
      Array.from({ length: trainingOf(ask.pairs) }, (_, i) => {
        const { report } = phantom('train', i);
        return {
          id: `phantom-train-${i}`,
          text: report,
          pixels: async () => toModelPixels(phantom('train', i).pixels),
        };
      }),
    ),
    shown: Array.from({ length: SHOWN }, (_, i) => {
      const { report, pixels, findings } = phantom('test', i);
      return { text: report, film: pixels, findings };
    }),
  };
}
