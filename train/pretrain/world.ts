/**
 * The world that the small base knows: captioned shapes, scenes of textures, drawings out of icon sets; and textures
 * without words for the autoencoder. Never a film. Pictures of a kind are numbered; each is made from its number alone.
 */
import type { Grey } from '../data/made/drawing.ts';
import { drawingAt } from '../data/made/drawing-pictures.ts';
import type { Raster } from '../data/made/drawings.ts';
import { sceneAt } from '../data/made/scenes.ts';
import { shapeAt } from '../data/made/shapes.ts';
import { textureAt } from '../data/made/textures.ts';
import { PICTURE, SEED } from './config.ts';

export interface Captioned {
  readonly pixels: Grey;
  readonly caption: string;
}
/** What is drawn, and how often among captioned pictures. */
export const KINDS = ['shape', 'scene', 'drawing'] as const;
export type Kind = (typeof KINDS)[number];

export const worldAt = (rasters: readonly Raster[], kind: Kind, index: number, size: number = PICTURE): Captioned =>
  kind === 'shape'
    ? shapeAt(SEED, 'train', index, size)
    : kind === 'scene'
      ? sceneAt(SEED, index, size)
      : drawingAt(SEED, 'train', index, rasters, size);

/** A picture for the autoencoder: one of the world, or, every other time, a texture; no captioned picture of `worldAt` below 10⁵. */
export const unnamedAt = (rasters: readonly Raster[], index: number): Grey =>
  index % 2 === 0
    ? textureAt(SEED, index, PICTURE)
    : worldAt(rasters, KINDS[(index >> 1) % 3]!, 100_000 + index).pixels;
