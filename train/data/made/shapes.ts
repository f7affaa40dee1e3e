/**
 * Captioned generic shapes: what the small base model is pre-trained on. One picture = a ground, 0 to 3 shapes and
 * noise; its caption tells all of it. No chest film is ever among them, but the words of place and size are shared
 * with the phantom reports. "left" is the viewer's left here.
 *
 * A caption (as a text) is either for training or held out, never both: see `isHeldOutCaption`.
 */

import { type Random, randomOf, type SeedKey, seedKey, subkey } from '../../../core/index.ts';
import { centres, eachPixel, finish, type Grey, soft, valueNoise } from './drawing.ts';

export type Column = 'left' | 'middle' | 'right';
export type Row = 'upper' | 'middle' | 'lower';
export type Size = 'small' | 'large';
export type Brightness = 'faint' | 'bright' | 'dark';
export type ShapeName = 'circle' | 'ellipse' | 'square' | 'ring' | 'blob' | 'bar';
export type Ground = 'plain' | 'cloudy' | 'stripes' | 'gradient' | 'dark';

/** What a caption says about one shape. */
export type Shape = {
  readonly x: Column;
  readonly y: Row;
  readonly size: Size;
  readonly brightness: Brightness;
  readonly shape: ShapeName;
};

/** A picture with its caption and the facts behind the caption. */
export type ShapePicture = {
  readonly pixels: Grey;
  readonly caption: string;
  readonly attributes: { readonly shapes: readonly Shape[]; readonly ground: Ground; readonly noisy: boolean };
};

export const COLUMNS = ['left', 'middle', 'right'] as const;
export const ROWS = ['upper', 'middle', 'lower'] as const;
const SHAPES = ['circle', 'ellipse', 'square', 'ring', 'blob', 'bar'] as const;
const PLURALS: Readonly<Record<ShapeName, string>> = {
  circle: 'circles',
  ellipse: 'ellipses',
  square: 'squares',
  ring: 'rings',
  blob: 'blobs',
  bar: 'bars',
};
const STEP = { left: -0.5, upper: -0.5, middle: 0, right: 0.5, lower: 0.5 } as const;
const AMPLITUDE: Readonly<Record<Brightness, number>> = { faint: 0.22, bright: 0.5, dark: -0.28 };

/** The places of one shape in words; several ways for each of the nine. */
export function placeWords(x: Column, y: Row): readonly string[] {
  if (x === 'middle' && y === 'middle') return ['in the center', 'in the middle'];
  if (x === 'middle') return [`in the ${y} middle`, `in the ${y} part`, `at the ${y} side`];
  if (y === 'middle') return [`on the ${x}`, `at the ${x} side`, `in the middle of the ${x} side`];
  return [`in the ${y} ${x}`, `in the ${x} ${y} part`, `in the ${y} part of the ${x} side`, `at the ${x} ${y} side`];
}

/** 'a' or 'an', by the first letter. */
export const article = (words: string) => (/^[aeiou]/.test(words) ? 'an' : 'a');

function describe(random: Random, { shape, size, brightness }: Shape, count: number): string {
  const adjectives = random.shuffle([size, brightness]).join(' ');
  if (count > 1) return `${['two', 'three'][count - 2]} ${adjectives} ${PLURALS[shape]}`;
  const words = `${adjectives} ${shape}`;
  return random.choice([`${article(words)} ${words}`, `there is ${article(words)} ${words}`, words]);
}

const oneShape = (random: Random, brightnesses: readonly Brightness[]): Shape => ({
  x: random.choice(COLUMNS),
  y: random.choice(ROWS),
  size: random.choice(['small', 'large']),
  brightness: random.choice(brightnesses),
  shape: random.choice(SHAPES),
});

/** Two large shapes in neighbouring places would run into one another. */
function clash(a: Shape, b: Shape): boolean {
  const gap = Math.max(Math.abs(STEP[a.x] - STEP[b.x]), Math.abs(STEP[a.y] - STEP[b.y]));
  return gap < (a.size === 'small' && b.size === 'small' ? 0.5 : 1);
}

type Scene = { readonly shapes: readonly Shape[]; readonly words: string };

/** Equal shapes in a line: "two small bright circles on the left". */
function countedScene(random: Random, count: number, brightnesses: readonly Brightness[]): Scene {
  const first = oneShape(random, brightnesses);
  const model: Shape = count === 3 ? { ...first, size: 'small' } : first;
  const vertical = random.chance(0.5);
  const along = count === 3 ? [0, 1, 2] : [0, 2];
  const shapes = along.map((at) => (vertical ? { ...model, y: ROWS[at]! } : { ...model, x: COLUMNS[at]! }));
  const line = vertical
    ? { left: 'on the left', middle: 'in the middle', right: 'on the right' }[model.x]
    : { upper: 'in the upper part', middle: 'in the center', lower: 'in the lower part' }[model.y];
  return { shapes, words: `${describe(random, model, count)} ${line}` };
}

/** So many shapes that do not run into one another, and the words that tell them. */
export function scene(random: Random, count: number, brightnesses: readonly Brightness[]): Scene {
  const phrase = (shape: Shape) => `${describe(random, shape, 1)} ${random.choice(placeWords(shape.x, shape.y))}`;
  if (count === 0) return { shapes: [], words: random.choice(['nothing', 'an empty picture']) };
  if (count === 3 || (count === 2 && random.chance(0.4))) return countedScene(random, count, brightnesses);
  const first = oneShape(random, brightnesses);
  if (count === 1) return { shapes: [first], words: phrase(first) };
  let second = oneShape(random, brightnesses);
  // A large shape in the middle has no place a full step away: both become small then.
  const stuck = first.x === 'middle' && first.y === 'middle';
  const fixed: Shape = stuck ? { ...first, size: 'small' } : first;
  while (clash(fixed, stuck ? { ...second, size: 'small' } : second)) second = oneShape(random, brightnesses);
  if (stuck) second = { ...second, size: 'small' };
  return { shapes: [fixed, second], words: [phrase(fixed), phrase(second)].join(random.choice([' and ', '. '])) };
}

/** Distance-like form of a shape: > 0 inside, in units of the picture, given offsets from its centre. */
function insideOf(random: Random, shape: ShapeName, radius: number): (du: number, dv: number) => number {
  const upright = random.chance(0.5);
  const phases = [random.uniform(0, 2 * Math.PI), random.uniform(0, 2 * Math.PI)] as const;
  const box = (du: number, dv: number, halfWidth: number, halfHeight: number) =>
    Math.min(halfWidth - Math.abs(du), halfHeight - Math.abs(dv));
  switch (shape) {
    case 'circle':
      return (du, dv) => radius - Math.hypot(du, dv);
    case 'ellipse':
      return (du, dv) => {
        const [long, short] = upright ? [dv, du] : [du, dv];
        return radius * 0.8 * (1 - Math.hypot(long / (1.3 * radius), short / (0.75 * radius)));
      };
    case 'square':
      return (du, dv) => box(du, dv, 0.87 * radius, 0.87 * radius);
    case 'ring':
      return (du, dv) => 0.26 * radius - Math.abs(Math.hypot(du, dv) - 0.8 * radius);
    case 'bar':
      return (du, dv) =>
        upright ? box(du, dv, 0.5 * radius, 1.25 * radius) : box(du, dv, 1.25 * radius, 0.5 * radius);
    case 'blob':
      return (du, dv) => {
        const angle = Math.atan2(dv, du);
        const wave = 1 + 0.13 * Math.sin(2 * angle + phases[0]) + 0.1 * Math.sin(3 * angle + phases[1]);
        return radius * wave - Math.hypot(du, dv);
      };
  }
}

/** Adds a shape to a picture [size, size]. */
export function drawShape(picture: Float64Array, size: number, random: Random, shape: Shape): void {
  const radius = (shape.size === 'small' ? 0.2 : 0.38) * random.uniform(0.92, 1.08);
  const centreU = STEP[shape.x] + random.uniform(-0.04, 0.04);
  const centreV = STEP[shape.y] + random.uniform(-0.04, 0.04);
  const amplitude = AMPLITUDE[shape.brightness] * random.uniform(0.93, 1.07);
  const edge = shape.shape === 'blob' ? 0.1 * radius : 0.012;
  const inside = insideOf(random, shape.shape, radius);
  const at = centres(size);
  // Nothing of a shape is further than 1.35 radii (and its soft edge) from its centre.
  const reach = 1.35 * radius + 18 * edge;
  for (let row = 0; row < size; row++) {
    const dv = at[row]! - centreV;
    if (Math.abs(dv) > reach) continue;
    for (let column = 0; column < size; column++) {
      const du = at[column]! - centreU;
      if (Math.abs(du) > reach) continue;
      picture[row * size + column]! += amplitude * soft(inside(du, dv) / edge);
    }
  }
}

/** Draws the ground and says it; "plain" goes without words. */
function drawGround(size: number, random: Random, ground: Ground): { picture: Float64Array; words: string } {
  const level = random.uniform(0.3, 0.42);
  const picture = new Float64Array(size * size).fill(ground === 'dark' ? random.uniform(0.06, 0.12) : level);
  switch (ground) {
    case 'plain':
      return { picture, words: '' };
    case 'dark':
      return { picture, words: ' on a dark ground' };
    case 'cloudy': {
      const clouds = valueNoise(random, random.choice([4, 5, 6]), size);
      return { picture: picture.map((value, at) => value + 0.06 * clouds[at]!), words: ' on a cloudy ground' };
    }
    case 'stripes': {
      const vertical = random.chance(0.5);
      const period = random.uniform(0.16, 0.3);
      const phase = random.uniform(0, 2 * Math.PI);
      eachPixel(size, (at, u, v) => {
        picture[at]! += 0.06 * Math.sin((2 * Math.PI * (vertical ? u : v)) / period + phase);
      });
      return { picture, words: ` on ${vertical ? 'vertical' : 'horizontal'} stripes` };
    }
    case 'gradient': {
      const side = random.choice(['left', 'right', 'upper', 'lower'] as const);
      const slope = random.uniform(0.08, 0.12) * (side === 'right' || side === 'lower' ? 1 : -1);
      const horizontal = side === 'left' || side === 'right';
      eachPixel(size, (at, u, v) => {
        picture[at]! += slope * (horizontal ? u : v);
      });
      return { picture, words: ` on a ground brighter on the ${side} side` };
    }
  }
}

/** Limits what `shapePicture` draws: single shapes on plain ground are what the detector can read. */
export type ShapeChoice = 'any' | 'single-on-plain';

/**
 * The picture of a key: [size, size] pixels, caption and facts.
 * @example shapePicture(subkey(seedKey(1), 0), 128).caption // 'there is a small bright circle on the left'
 */
export function shapePicture(key: SeedKey, size = 128, choice: ShapeChoice = 'any'): ShapePicture {
  const words = randomOf(subkey(key, 'words'));
  const drawing = randomOf(subkey(key, 'drawing'));
  const single = choice === 'single-on-plain';
  const ground: Ground = single
    ? 'plain'
    : (['plain', 'cloudy', 'stripes', 'gradient', 'dark'] as const)[words.weighted([0.62, 0.08, 0.08, 0.16, 0.06])]!;
  const brightnesses: readonly Brightness[] = ground === 'dark' ? ['faint', 'bright'] : ['faint', 'bright', 'dark'];
  const count = single ? 1 : words.weighted([0.04, 0.76, 0.18, 0.02]);
  const noisy = !single && words.chance(0.05);
  const { shapes, words: what } = scene(words, count, brightnesses);
  const { picture, words: where } = drawGround(size, drawing, ground);
  for (const shape of shapes) drawShape(picture, size, drawing, shape);
  return {
    pixels: finish(picture, drawing, noisy ? 0.06 : 0.012),
    caption: `${what}${where}${noisy ? ', noisy' : ''}`,
    attributes: { shapes, ground, noisy },
  };
}

/** Whether a caption is kept for measuring only (one in eight, decided by the text alone). */
export const isHeldOutCaption = (caption: string): boolean => subkey(seedKey(0), caption)[0] % 8 === 0;

/**
 * The index-th picture of a seeded set. No caption of the 'train' split is ever a caption of the 'held-out' split.
 * @example shapeAt(1, 'train', 17) // a training pair
 */
export function shapeAt(
  seed: number,
  split: 'train' | 'held-out',
  index: number,
  size = 128,
  choice: ShapeChoice = 'any',
): ShapePicture {
  const base = subkey(subkey(subkey(seedKey(seed), 'shapes'), split), index);
  for (let attempt = 0; ; attempt++) {
    const key = subkey(base, attempt);
    // The caption does not depend on the picture's size, so a 1 × 1 picture is enough to ask for it.
    if (isHeldOutCaption(shapePicture(key, 1, choice).caption) === (split === 'held-out')) {
      return shapePicture(key, size, choice);
    }
  }
}

/** What the detector reads in a picture; `undefined` where it sees no shape. */
export type ShapeReading = Pick<Shape, 'x' | 'y' | 'size' | 'brightness'>;

/**
 * Reads a single shape on plain ground: difference d to the median, mask |d| > 0.085; thirds of the mask's centroid
 * at ±0.22, large above 5.5% of the picture, median d < 0 is dark and > 0.33 bright.
 * Exact on ≥ 95% of real pictures for each attribute (tested); one pass and one sort of [size, size] numbers.
 */
export function readShape(pixels: ArrayLike<number>, size: number): ShapeReading | undefined {
  const median = (values: Float32Array) => values.sort()[values.length >> 1]!;
  const ground = median(Float32Array.from(pixels));
  const differences: number[] = [];
  let sumU = 0;
  let sumV = 0;
  eachPixel(size, (at, u, v) => {
    const difference = pixels[at]! - ground;
    if (Math.abs(difference) <= 0.085) return;
    differences.push(difference);
    sumU += u;
    sumV += v;
  });
  const area = differences.length;
  if (area < 0.006 * size * size) return undefined;
  const third = <T>(mean: number, [low, middle, high]: readonly [T, T, T]): T =>
    mean < -0.22 ? low : mean > 0.22 ? high : middle;
  const difference = median(Float32Array.from(differences));
  return {
    x: third(sumU / area, COLUMNS),
    y: third(sumV / area, ROWS),
    size: area > 0.055 * size * size ? 'large' : 'small',
    brightness: difference < 0 ? 'dark' : difference > 0.33 ? 'bright' : 'faint',
  };
}

/** How many of the readings agree with the caption, per attribute; chance is 1/3, 1/3, 1/2, 1/3. */
export function scoreShapes(
  pairs: readonly { readonly told: ShapeReading; readonly read: ShapeReading | undefined }[],
): Readonly<Record<keyof ShapeReading | 'all', number>> {
  const share = (agree: (told: ShapeReading, read: ShapeReading) => boolean) =>
    pairs.filter(({ told, read }) => read !== undefined && agree(told, read)).length / pairs.length;
  const attributes = ['x', 'y', 'size', 'brightness'] as const;
  const each = (name: keyof ShapeReading) => share((told, read) => told[name] === read[name]);
  return {
    x: each('x'),
    y: each('y'),
    size: each('size'),
    brightness: each('brightness'),
    all: share((told, read) => attributes.every((name) => told[name] === read[name])),
  };
}
