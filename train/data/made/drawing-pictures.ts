/**
 * Captioned pictures of drawings, the broad world that the small base is pre-trained on: a ground, one drawing or two
 * of them in places that the caption tells, mirrored or in negative at times, and a bit of grain.
 */

import { type Random, randomOf, type SeedKey, seedKey, subkey } from '../../../core/index.ts';
import { resizeFloat } from '../pictures/resample.ts';
import { clip, eachPixel, finish, type Grey, mix, valueNoise } from './drawing.ts';
import { isHeldOutDrawing } from './drawing-words.ts';
import type { Raster } from './drawings.ts';
import { article, COLUMNS, type Column, placeWords, ROWS, type Row, type Size } from './shapes.ts';
import { drawLayers } from './textures.ts';

export type DrawingGround = 'plain' | 'gradient' | 'cloudy' | 'texture';

/** What a caption says about one drawing. */
export type PlacedDrawing = {
  readonly raster: Raster;
  readonly x: Column;
  readonly y: Row;
  readonly size: Size;
  readonly mirrored: boolean;
  readonly inverted: boolean;
  /** Tone of its black and of its white, 0..1; the same for line icons. */
  readonly tones: readonly [number, number];
  /** Its longer side and its centre, in sides of the picture. */
  readonly side: number;
  readonly centre: readonly [number, number];
};

/** A picture with its caption and the facts behind the caption. */
export type DrawingPicture = {
  readonly pixels: Grey;
  readonly caption: string;
  readonly drawings: readonly PlacedDrawing[];
  readonly ground: DrawingGround;
};

export type DrawingSplit = 'train' | 'held-out';

const OFFSET = { left: -1, upper: -1, middle: 0, right: 1, lower: 1 } as const;

/** Drawings whose mirror image is another thing, or wrong. */
const SIDED =
  /left|right|arrow|clock|letter|alphabet|question|mark|sign|music|note|abc|card|dollar|language|number|off|atm|place|news|calendar|store|box|type|points|closet|score|temperature/;

function place(random: Random, raster: Raster, x: Column, y: Row, size: Size, most: number): PlacedDrawing {
  const aside = x !== 'middle' || y !== 'middle';
  const side =
    size === 'small' ? random.uniform(0.35, Math.min(0.56, most)) : random.uniform(0.62, aside ? 0.68 : 0.95);
  // as far aside as there is room, so that none is cut off by more than a sliver
  const step = Math.min(0.26, ((1 - side) / 2) * (size === 'small' ? 0.88 : 1));
  const jitter = (at: Column | Row) =>
    at === 'middle' ? Math.min(0.04, (1 - side) / 2) : Math.min(0.03, Math.max(0, (1 - side) / 2 - step) + 0.01);
  const at = (where: Column | Row) => 0.5 + step * OFFSET[where] + random.uniform(-1, 1) * jitter(where);
  const coloured = raster.drawing.style === 'colour';
  const bright = random.chance(0.5);
  const tone = bright ? random.uniform(0.75, 1) : random.uniform(0, 0.25);
  const tones = coloured ? ([random.uniform(0, 0.15), random.uniform(0.82, 1)] as const) : ([tone, tone] as const);
  return {
    ...{ raster, x, y, size, side, tones },
    centre: [at(x), at(y)],
    mirrored: random.chance(0.3) && !SIDED.test(raster.drawing.label),
    inverted: coloured && random.chance(0.08),
  };
}

/** One drawing anywhere, or two small ones on opposite sides. */
function placed(random: Random, rasters: readonly Raster[]): readonly PlacedDrawing[] {
  const first = random.choice(rasters);
  if (random.chance(0.82)) {
    const size = random.choice(['small', 'large'] as const);
    const centred = size === 'large' && random.chance(0.75);
    const [x, y] = centred ? (['middle', 'middle'] as const) : [random.choice(COLUMNS), random.choice(ROWS)];
    return [place(random, first, x, y, size, 1)];
  }
  const second = random.choice(rasters);
  const across = random.chance(0.5);
  const opposite = random.shuffle([0, 2]);
  const at = (raster: Raster, end: number) => {
    const [x, y] = across ? [COLUMNS[end]!, random.choice(ROWS)] : [random.choice(COLUMNS), ROWS[end]!];
    return place(random, raster, x, y, 'small', 0.46);
  };
  return [at(first, opposite[0]!), at(second, opposite[1]!)];
}

const STYLE_WORDS = {
  colour: ['', '', '', 'drawing', 'picture'],
  line: ['', 'line drawing', 'outline', 'icon'],
  filled: ['', 'silhouette', 'icon'],
} as const;

/** "a large line drawing of a cat", without its place. */
function thingWords(random: Random, { raster, size, inverted, tones }: PlacedDrawing): string {
  const { label, style } = raster.drawing;
  const tone =
    style === 'colour' ? '' : tones[0] > 0.5 ? random.choice(['bright', 'white']) : random.choice(['dark', 'black']);
  const adjectives = random.shuffle([
    random.chance(0.85) ? size : '',
    random.chance(0.6) ? tone : '',
    inverted ? random.choice(['inverted', 'negative']) : '',
  ]);
  const kind = random.choice(STYLE_WORDS[style]);
  const many = /[^sui]s$| and |^(?:no|two|three) /.test(label);
  const one = many || random.chance(0.4) ? label : `${article(label)} ${label}`;
  const words = [...adjectives, kind === '' ? label : `${kind} of ${one}`].filter((word) => word !== '').join(' ');
  const opening = kind === '' && many ? random.weighted([0, 0, 1]) : random.weighted([0.5, 0.2, 0.3]);
  return ['', 'there is '].map((start) => `${start}${article(words)} ${words}`)[opening] ?? words;
}

/** Things with their places, the keywords of a single one, and the ground. */
function captionOf(random: Random, drawings: readonly PlacedDrawing[], ground: string): string {
  const phrases = drawings.map((drawing) => {
    const thing = thingWords(random, drawing);
    const where = random.choice(placeWords(drawing.x, drawing.y));
    return random.chance(0.15) ? `${where} ${thing}` : `${thing} ${where}`;
  });
  const tags = random.shuffle(drawings.length === 1 ? drawings[0]!.raster.drawing.tags : []);
  const told = tags.slice(0, random.weighted([0.5, 0.25, 0.25])).map((tag) => `, ${tag}`);
  return `${phrases.join(' and ')}${ground}${told.join('')}`;
}

type Ground = { readonly kind: DrawingGround; readonly picture: Float64Array; readonly words: string };

function drawGround(random: Random, size: number, textures: boolean): Ground {
  const kind = (['plain', 'gradient', 'cloudy', 'texture'] as const)[
    random.weighted([0.4, 0.2, 0.2, textures ? 0.2 : 0])
  ]!;
  if (kind === 'texture') {
    const { picture, words } = drawLayers(random, size, random.chance(0.5) ? 1 : 2);
    return { kind, picture, words: ` over ${words.join(', ')}` };
  }
  const picture = new Float64Array(size * size).fill(
    kind === 'plain' ? random.uniform(0.05, 0.95) : random.uniform(0.2, 0.8),
  );
  if (kind === 'cloudy') {
    const clouds = valueNoise(random, 4 + random.int(5), size);
    const amplitude = random.uniform(0.04, 0.1);
    return { kind, picture: picture.map((value, at) => value + amplitude * clouds[at]!), words: ' on a cloudy ground' };
  }
  if (kind === 'plain') return { kind, picture, words: '' };
  const side = random.choice(['left', 'right', 'upper', 'lower'] as const);
  const slope = random.uniform(0.08, 0.2) * OFFSET[side];
  const horizontal = side === 'left' || side === 'right';
  eachPixel(size, (at, u, v) => {
    picture[at]! += slope * (horizontal ? u : v);
  });
  return { kind, picture, words: ` on a ground brighter on the ${side} side` };
}

/** Grey as it is drawn: between the two tones, or from the second to the first. */
const toned = ({ tones: [low, high], inverted }: PlacedDrawing, grey: number): number =>
  inverted ? mix(high, low, grey) : mix(low, high, grey);

/** The drawing at its size in pixels: premultiplied tone and coverage, [height, width, 2]. */
function resized(drawing: PlacedDrawing, size: number) {
  const { width, height, grey, alpha } = drawing.raster;
  const scale = (drawing.side * size) / Math.max(width, height);
  const data = new Float32Array(2 * width * height);
  for (let at = 0; at < grey.length; at++) {
    const row = at - (at % width);
    const from = drawing.mirrored ? row + width - 1 - (at - row) : at;
    const coverage = alpha[from]! / 255;
    data[2 * at] = coverage * toned(drawing, grey[from]! / 255);
    data[2 * at + 1] = coverage;
  }
  const side = (length: number) => Math.max(1, Math.round(scale * length));
  return resizeFloat({ width, height, channels: 2, data }, side(width), side(height), 'bilinear');
}

/** Visits the pixels that a drawing covers: index, premultiplied tone, coverage. */
function eachCovered(
  drawing: PlacedDrawing,
  size: number,
  visit: (at: number, tone: number, coverage: number) => void,
) {
  const { width, height, data } = resized(drawing, size);
  const left = Math.round(drawing.centre[0] * size - width / 2);
  const top = Math.round(drawing.centre[1] * size - height / 2);
  for (let row = Math.max(0, -top); row < Math.min(height, size - top); row++) {
    for (let column = Math.max(0, -left); column < Math.min(width, size - left); column++) {
      const from = 2 * (row * width + column);
      if (data[from + 1]! > 0) visit((top + row) * size + left + column, data[from]!, data[from + 1]!);
    }
  }
}

/** Mean levels of a ground; what is not plain keeps away from black and white, where it would be clipped. */
const LEVELS = Array.from({ length: 19 }, (_, at) => 0.05 * (at + 1));

/** How much brighter or darker the ground must be for the drawings to stand out from it: 0 where they do already. */
function shiftOf({ kind, picture: ground }: Ground, drawings: readonly PlacedDrawing[], size: number): number {
  const level = ground.reduce((sum, value) => sum + value, 0) / (size * size);
  const tones = drawings.map((drawing) => toned(drawing, drawing.raster.mean));
  const shifts = LEVELS.filter((to) => kind === 'plain' || (to >= 0.2 && to <= 0.8))
    .map((to) => to - level)
    .sort((a, b) => Math.abs(a) - Math.abs(b));
  const contrast = (shift: number) => Math.min(...tones.map((tone) => Math.abs(tone - level - shift)));
  const candidates = [0, ...shifts];
  return (
    candidates.find((shift) => contrast(shift) >= 0.25) ??
    candidates.reduce((a, b) => (contrast(b) > contrast(a) ? b : a))
  );
}

/**
 * The picture of a key, [size, size], of some of the drawings. About 2 ms at 128.
 * @throws RangeError where there is no drawing.
 * @example drawingPicture(key, rasters).caption // 'a small grinning face in the upper left, happy'
 */
export function drawingPicture(key: SeedKey, rasters: readonly Raster[], size = 128): DrawingPicture {
  const words = randomOf(subkey(key, 'words'));
  const random = randomOf(subkey(key, 'drawing'));
  const drawings = placed(words, rasters);
  const under = drawGround(random, size, drawings.length === 1);
  const { kind, picture, words: groundWords } = under;
  const shift = shiftOf(under, drawings, size);
  for (let at = 0; at < picture.length; at++) picture[at] = clip(picture[at]! + shift, 0, 1);
  const level = kind === 'plain' ? picture[0]! : 0.5;
  for (const drawing of drawings) {
    eachCovered(drawing, size, (at, tone, coverage) => {
      picture[at] = tone + (1 - coverage) * picture[at]!;
    });
  }
  const plainWords = level < 0.2 ? ' on a dark ground' : level > 0.8 ? ' on a bright ground' : '';
  const brief = drawings.length === 2 && words.chance(0.5);
  const told = brief ? '' : kind === 'plain' ? (words.chance(0.6) ? plainWords : '') : groundWords;
  return {
    pixels: finish(picture, random, random.uniform(0, 0.02)),
    caption: captionOf(words, drawings, told),
    ...{ drawings, ground: kind },
  };
}

/** The rasters of a split: what `isHeldOutDrawing` says of their names. */
export const rastersOf = (split: DrawingSplit, rasters: readonly Raster[]): readonly Raster[] =>
  rasters.filter(({ drawing }) => isHeldOutDrawing(drawing.name) === (split === 'held-out'));

const splits = new WeakMap<readonly Raster[], Record<DrawingSplit, readonly Raster[]>>();

/**
 * The index-th picture of a seeded set: no drawing of the one split is ever in a picture of the other. The split of a
 * list of rasters is made once, so the list must not change afterwards.
 * @example drawingAt(1, 'train', 17, rasters) // a training pair
 */
export function drawingAt(
  seed: number,
  split: DrawingSplit,
  index: number,
  rasters: readonly Raster[],
  size = 128,
): DrawingPicture {
  let known = splits.get(rasters);
  if (known === undefined) {
    known = { train: rastersOf('train', rasters), 'held-out': rastersOf('held-out', rasters) };
    splits.set(rasters, known);
  }
  return drawingPicture(subkey(subkey(subkey(seedKey(seed), 'drawings'), split), index), known[split], size);
}
