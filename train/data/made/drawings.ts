/**
 * Drawings for pre-training: emoji and line icons from development dependencies, with their words, and what is left of
 * them in grey. Read once, rasterised once; `drawing-pictures.ts` composes pictures of them.
 */

import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { pictureLibrary } from '../pictures/library.ts';
import { isExcluded, isPictorial, isVariant, labelOf, tagsOf, wordsOf } from './drawing-words.ts';

export type DrawingSource = 'fluent' | 'noto' | 'tabler';

/** A drawing as SVG with its words. */
export type Drawing = {
  readonly source: DrawingSource;
  /** Its name in the set: 'grinning-face'. */
  readonly name: string;
  readonly style: 'colour' | 'line' | 'filled';
  /** As said in a caption: 'grinning face'. */
  readonly label: string;
  /** Keywords beside the label: 'happy', 'smile'. */
  readonly tags: readonly string[];
  /** What is inside the SVG element. */
  readonly body: string;
  /** 'left top width height'. */
  readonly viewBox: string;
};

/** A drawing in grey, cut to its ink: [height, width] each, 0..255. */
export type Raster = {
  readonly drawing: Drawing;
  readonly width: number;
  readonly height: number;
  readonly grey: Uint8Array;
  readonly alpha: Uint8Array;
  /** Mean grey of its ink, 0..1. */
  readonly mean: number;
};

const PACKAGES: Readonly<Record<DrawingSource, string>> = {
  fluent: '@iconify-json/fluent-emoji-flat',
  noto: '@iconify-json/noto',
  tabler: '@iconify-json/tabler',
};
const KEYWORDS = 'emojilib';

type Box = { readonly left?: number; readonly top?: number; readonly width?: number; readonly height?: number };
type IconSet = Box & {
  readonly icons: Readonly<Record<string, Box & { readonly body: string; readonly hidden?: true }>>;
};

/** Finds a file of an installed package. */
export type Resolve = (specifier: string) => string;

async function readJson<T>(resolve: Resolve, name: string, file = ''): Promise<T> {
  let found: string;
  try {
    found = resolve(`${name}${file}`);
  } catch (cause) {
    throw new Error(`${name} is not installed: the drawings need this development dependency, run npm ci`, { cause });
  }
  return JSON.parse(await readFile(found, 'utf8')) as T;
}

/** One set's usable drawings: no variants, no excluded words, no body twice. */
function usable(source: DrawingSource, set: IconSet, keywords: ReadonlyMap<string, readonly string[]>): Drawing[] {
  const names = new Set(Object.keys(set.icons));
  const bodies = new Set<string>();
  const drawings: Drawing[] = [];
  for (const [name, icon] of Object.entries(set.icons)) {
    const wanted = source === 'tabler' ? isPictorial(name, names) : !isVariant(name, names);
    const label = labelOf(name);
    const known = [name, label].map((text) => keywords.get(wordsOf(text).join(' '))).find((found) => found) ?? [];
    if (!wanted || icon.hidden || bodies.has(icon.body) || isExcluded([name, label, ...known])) continue;
    bodies.add(icon.body);
    const of = (side: keyof Box, otherwise: number) => icon[side] ?? set[side] ?? otherwise;
    drawings.push({
      source,
      name,
      style: source !== 'tabler' ? 'colour' : name.endsWith('-filled') ? 'filled' : 'line',
      label,
      tags: tagsOf(known, label),
      body: icon.body,
      viewBox: `${of('left', 0)} ${of('top', 0)} ${of('width', 16)} ${of('height', 16)}`,
    });
  }
  return drawings;
}

/**
 * All usable drawings, set by set in the sets' own order; under a second.
 * @throws Error when one of the development dependencies is not installed.
 */
export async function readDrawings(
  resolve: Resolve = createRequire(import.meta.url).resolve,
): Promise<readonly Drawing[]> {
  const entries = Object.values(await readJson<Readonly<Record<string, readonly string[]>>>(resolve, KEYWORDS));
  const keywords = new Map(entries.map(([name, ...more]) => [wordsOf(name!).join(' '), more]));
  const drawings: Drawing[] = [];
  for (const source of ['fluent', 'noto', 'tabler'] as const) {
    drawings.push(...usable(source, await readJson<IconSet>(resolve, PACKAGES[source], '/icons.json'), keywords));
  }
  return drawings;
}

/**
 * The drawing in grey (luma 0.299 r + 0.587 g + 0.114 b) with its coverage, rendered at size × size and cut to its
 * ink; `undefined` where less than 1% is covered. A few ms.
 */
export async function rasterise(drawing: Drawing, size = 96): Promise<Raster | undefined> {
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="${size}" height="${size}" viewBox="${drawing.viewBox}">${drawing.body}</svg>`;
  const sharp = await pictureLibrary();
  const rgba = await sharp(Buffer.from(svg)).ensureAlpha().toColourspace('srgb').raw().toBuffer();
  let [left, top, right, bottom, ink, sum] = [size, size, -1, -1, 0, 0];
  for (let at = 0; at < size * size; at++) {
    const alpha = rgba[4 * at + 3]!;
    if (alpha < 12) continue;
    const [row, column] = [Math.floor(at / size), at % size];
    [left, right, top, bottom] = [Math.min(left, column), Math.max(right, column), Math.min(top, row), row];
    ink += alpha;
    sum += alpha * luma(rgba, at);
  }
  if (ink < 0.01 * 255 * size * size) return undefined;
  const [width, height] = [right - left + 1, bottom - top + 1];
  const grey = new Uint8Array(width * height);
  const alpha = new Uint8Array(width * height);
  for (let at = 0; at < grey.length; at++) {
    const from = (top + Math.floor(at / width)) * size + left + (at % width);
    grey[at] = Math.round(luma(rgba, from));
    alpha[at] = rgba[4 * from + 3]!;
  }
  return { drawing, width, height, grey, alpha, mean: sum / ink / 255 };
}

const luma = (rgba: Uint8Array, at: number): number =>
  0.299 * rgba[4 * at]! + 0.587 * rgba[4 * at + 1]! + 0.114 * rgba[4 * at + 2]!;

/** All drawings in grey, without the empty ones: 3,996 take 6 s and 52 MB at 96. */
export async function rasteriseAll(drawings: readonly Drawing[], size = 96): Promise<readonly Raster[]> {
  const rasters: Raster[] = [];
  for (const drawing of drawings) {
    const raster = await rasterise(drawing, size);
    if (raster !== undefined) rasters.push(raster);
  }
  return rasters;
}
