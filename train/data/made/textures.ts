/**
 * Rich textures: filled super-ellipses, families of curved lines and bands, branches, leaves, arcs, edges, Gaussians and
 * value noise, for the autoencoder, and with their words in scenes for the U-Net (`scenes.ts`). Bands, branches and soft
 * ellipses are what lets the base draw ribs, vessels and lungs without ever having seen a film.
 */

import { type Random, randomOf, type SeedKey, seedKey, subkey } from '../../../core/index.ts';
import { bandFamily, branches, leaves } from './bands.ts';
import { eachPixel, finish, type Grey, mix, soft, valueNoise } from './drawing.ts';
import { amplitudeOf, curvedFrame, type Layer, placeOf, toneOf } from './layer.ts';

const superEllipse: Layer = (picture, size, random) => {
  const [centreU, centreV] = [random.uniform(-0.8, 0.8), random.uniform(-0.8, 0.8)];
  const [radiusU, radiusV] = [random.uniform(0.12, 0.75), random.uniform(0.12, 0.75)];
  const exponent = random.uniform(1.6, 4);
  const edge = random.uniform(0.012, 0.08);
  const angle = random.uniform(-0.6, 0.6);
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const scale = Math.min(radiusU, radiusV);
  // Half of them replace what lies below, as an organ hides what is behind it; half add to it.
  const replace = random.chance(0.5);
  const value = replace ? random.uniform(0.03, 0.95) : amplitudeOf(random, 0.06, 0.4);
  eachPixel(size, (at, u, v) => {
    const x = Math.abs(cos * (u - centreU) + sin * (v - centreV)) / radiusU;
    const y = Math.abs(cos * (v - centreV) - sin * (u - centreU)) / radiusV;
    const weight = soft(((1 - (x ** exponent + y ** exponent) ** (1 / exponent)) * scale) / edge);
    picture[at] = replace ? mix(picture[at]!, value, weight) : picture[at]! + value * weight;
  });
  const extent = radiusU + radiusV > 0.9 ? 'large' : 'small';
  const tone = !replace ? toneOf(value) : value < 0.35 ? 'dark' : value > 0.62 ? 'bright' : 'faint';
  return `${extent} ${tone} oval ${placeOf(centreU, centreV)}`;
};

const lineFamily: Layer = (picture, size, random) => {
  const frame = curvedFrame(random);
  const width = random.uniform(0.014, 0.05);
  const spacing = random.uniform(Math.max(0.1, 2.5 * width), 0.3);
  const length = random.uniform(0.4, 1.6);
  const amplitude = amplitudeOf(random, 0.05, 0.25);
  eachPixel(size, (at, u, v) => {
    const [along, across] = frame(u, v);
    const offset = (across - spacing * Math.round(across / spacing)) / width;
    picture[at]! += amplitude * Math.exp(-offset * offset) * soft((length - Math.abs(along)) / 0.04);
  });
  return `${toneOf(amplitude)} lines`;
};

const arc: Layer = (picture, size, random) => {
  const frame = curvedFrame(random);
  const width = random.uniform(0.014, 0.06);
  const length = random.uniform(0.2, 1.2);
  const amplitude = amplitudeOf(random, 0.08, 0.4);
  eachPixel(size, (at, u, v) => {
    const [along, across] = frame(u, v);
    picture[at]! += amplitude * Math.exp(-((across / width) ** 2)) * soft((length - Math.abs(along)) / 0.03);
  });
  return `${toneOf(amplitude)} arc`;
};

const edgeLayer: Layer = (picture, size, random) => {
  const frame = curvedFrame(random);
  const softness = random.uniform(0.012, 0.08);
  const amplitude = amplitudeOf(random, 0.08, 0.4);
  eachPixel(size, (at, u, v) => {
    picture[at]! += amplitude * soft(frame(u, v)[1] / softness);
  });
  return 'edge';
};

const gaussian: Layer = (picture, size, random) => {
  const [centreU, centreV] = [random.uniform(-0.9, 0.9), random.uniform(-0.9, 0.9)];
  const [radiusU, radiusV] = [random.uniform(0.06, 0.5), random.uniform(0.06, 0.5)];
  const amplitude = amplitudeOf(random, 0.08, 0.45);
  eachPixel(size, (at, u, v) => {
    picture[at]! += amplitude * Math.exp(-(((u - centreU) / radiusU) ** 2) - ((v - centreV) / radiusV) ** 2);
  });
  return `${toneOf(amplitude)} glow ${placeOf(centreU, centreV)}`;
};

const clouds: Layer = (picture, size, random) => {
  const noise = valueNoise(random, 3 + random.int(22), size);
  const amplitude = random.uniform(0.02, 0.12);
  for (let at = 0; at < picture.length; at++) picture[at]! += amplitude * noise[at]!;
  return 'clouds';
};

const LAYERS: readonly Layer[] = [
  superEllipse,
  lineFamily,
  bandFamily,
  branches,
  leaves,
  arc,
  edgeLayer,
  gaussian,
  clouds,
];
const WEIGHTS = [0.24, 0.09, 0.2, 0.08, 0.05, 0.06, 0.08, 0.1, 0.1];

/** A level and 1 to `most` layers on it, with the words of each layer, the last drawn (the uppermost) first. */
export function drawLayers(
  random: Random,
  size: number,
  most: number,
): { readonly picture: Float64Array; readonly words: readonly string[] } {
  const picture = new Float64Array(size * size).fill(random.uniform(0.05, 0.75));
  const layers = 1 + random.int(most);
  const words = Array.from({ length: layers }, () => LAYERS[random.weighted(WEIGHTS)]!(picture, size, random));
  return { picture, words: words.reverse() };
}

/** The texture of a key, [size, size]: a level, 1 to 5 layers and grain up to 0.015. */
export function texture(key: SeedKey, size = 128): Grey {
  const random = randomOf(key);
  const { picture } = drawLayers(random, size, 5);
  return finish(picture, random, random.uniform(0, 0.015));
}

/** The index-th texture of a seeded set. */
export const textureAt = (seed: number, index: number, size = 128): Grey =>
  texture(subkey(subkey(seedKey(seed), 'textures'), index), size);
