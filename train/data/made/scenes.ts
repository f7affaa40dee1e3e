/**
 * Captioned scenes, half of what the U-Net is pre-trained on: layers of textures, every other one mirrored, two thirds
 * with a captioned shape or two on top. Shapes on plain ground teach a denoiser what words mean, but not how to draw:
 * edges, lines and soft borders among other things at every noise level. No chest film is among them.
 */

import { randomOf, type SeedKey, seedKey, subkey } from '../../../core/index.ts';
import { finish, type Grey } from './drawing.ts';
import { drawShape, scene } from './shapes.ts';
import { drawLayers } from './textures.ts';

export type ScenePicture = { readonly pixels: Grey; readonly caption: string };

/** The left half, and its mirror image in place of the right one. */
const mirrored = (picture: Float64Array, size: number): Float64Array =>
  picture.map((value, at) => {
    const column = at % size;
    return column < size / 2 ? value : picture[at - column + (size - 1 - column)]!;
  });

/**
 * The scene of a key.
 * @example scenePicture(key).caption // 'small bright ring on the left over dark lines, large dark oval in the center'
 */
export function scenePicture(key: SeedKey, size = 128): ScenePicture {
  const random = randomOf(key);
  const { picture, words } = drawLayers(random, size, 4);
  const twofold = random.chance(0.5);
  const canvas = twofold ? mirrored(picture, size) : picture;
  // a mirrored picture shows nothing of what lay on the right
  const seen = twofold ? [...words.filter((phrase) => !phrase.includes('right')), 'mirrored'] : words;
  const ground = seen.join(', ');
  const told = scene(random, 1 + random.weighted([0.7, 0.3]), ['faint', 'bright', 'dark']);
  const shapes = random.chance(0.67) ? told.shapes : [];
  for (const shape of shapes) drawShape(canvas, size, random, shape);
  return {
    pixels: finish(canvas, random, random.uniform(0, 0.03)),
    caption: shapes.length === 0 ? ground : `${told.words} over ${ground}`,
  };
}

/** The index-th scene of a seeded set. */
export const sceneAt = (seed: number, index: number, size = 128): ScenePicture =>
  scenePicture(subkey(subkey(seedKey(seed), 'scenes'), index), size);
