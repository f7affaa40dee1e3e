import { beforeAll, describe, expect, it } from 'vitest';
import { seedKey, subkey } from '../../../core/index.ts';
import { readTokenizer } from '../../../models/io/tokenizer-files.ts';
import {
  type DrawingPicture,
  drawingAt,
  drawingPicture,
  rastersOf,
} from '../../../train/data/made/drawing-pictures.ts';
import { EXCLUDED_WORDS, isExcluded, isHeldOutDrawing } from '../../../train/data/made/drawing-words.ts';
import { type Drawing, type Raster, rasterise, rasteriseAll, readDrawings } from '../../../train/data/made/drawings.ts';

const range = (n: number) => [...Array(n).keys()];

const made = (name: string, body: string): Drawing => ({
  ...{ source: 'noto', style: 'colour', label: name, tags: ['plain'], viewBox: '0 0 16 16' },
  ...{ name, body },
});

let drawings: readonly Drawing[];
let rasters: readonly Raster[];
beforeAll(async () => {
  drawings = await readDrawings();
  const every = (step: number) => drawings.filter((_, at) => at % step === 0);
  const heldOut = drawings.filter(({ name }) => isHeldOutDrawing(name)).slice(0, 20);
  rasters = await rasteriseAll([...every(60), ...heldOut], 48);
});

describe('the drawings', () => {
  it('are some thousands, of three sets, each body once', () => {
    expect(drawings.length).toBeGreaterThan(3500);
    for (const source of ['fluent', 'noto', 'tabler'] as const) {
      const of = drawings.filter((drawing) => drawing.source === source);
      expect(of.length).toBeGreaterThan(1000);
      expect(new Set(of.map(({ body }) => body)).size).toBe(of.length);
      expect(new Set(of.map(({ name }) => name)).size).toBe(of.length);
    }
  });

  it('show no chest, bone or film: none has an excluded word in its name, label or tags', () => {
    for (const word of ['chest', 'rib', 'bone', 'skull', 'skeleton', 'lung', 'spine', 'x ray', 'xray', 'stethoscope'])
      expect(EXCLUDED_WORDS).toContain(word);
    const texts = drawings.map(
      ({ name, label, tags }) => ` ${[name, label, ...tags].join(' ').replace(/[^a-z]/gi, ' ')} `,
    );
    for (const word of EXCLUDED_WORDS)
      expect(texts.filter((text) => text.toLowerCase().includes(` ${word} `) || text.includes(` ${word}s `))).toEqual(
        [],
      );
    // the sets do have them
    for (const name of ['skull', 'bone', 'lungs', 'anatomical-heart', 'stethoscope', 'x-ray', 'Treasure chest'])
      expect(isExcluded([name])).toBe(true);
    for (const name of ['red-heart', 'ribbon', 'key']) expect(isExcluded([name])).toBe(false);
    expect(drawings.some(({ name }) => name === 'red-heart')).toBe(true);
  });

  it('are no flags, skin tones or letters', () => {
    const bad = /flag|skin|tone\d|keycap|-(medium|dark)$|^family-|brand|^letter/;
    expect(drawings.map(({ name }) => name).filter((name) => bad.test(name))).toEqual([]);
    for (const name of ['police-car-light', 'grinning-face', 'umbrella-filled'])
      expect(drawings.some((drawing) => drawing.name === name)).toBe(true);
  });

  it('have labels and tags that can be said', () => {
    for (const { label, tags } of drawings) {
      expect(label).toMatch(/^[a-z0-9]+(?:[ '][a-z0-9]+)*$/);
      for (const tag of tags) expect(tag).toMatch(/^[a-z]+(?: [a-z]+)?$/);
    }
    const grinning = drawings.find(({ name }) => name === 'grinning-face')!;
    expect(grinning.label).toBe('grinning face');
    expect(grinning.tags).toContain('happy');
  });

  it('name the package that is missing and what to run', async () => {
    const missing = () => {
      throw new Error('Cannot find module');
    };
    await expect(readDrawings(missing)).rejects.toThrow(/^emojilib is not installed: .* run npm ci$/);
  });
});

describe('a raster', () => {
  it('has the luma of its colours and is cut to its ink', async () => {
    const body = '<path fill="#f00" d="M4 4h8v4H4z"/><path fill="#0f0" d="M4 8h8v4H4z"/>';
    const { width, height, grey, alpha, mean } = (await rasterise(made('flag', body), 32))!;
    expect([width, height]).toEqual([16, 16]);
    expect(alpha.every((value) => value === 255)).toBe(true);
    // Rec. 601: 0.299 · 255 and 0.587 · 255
    expect([...grey]).toEqual(range(256).map((at) => (at < 128 ? 76 : 150)));
    expect(mean).toBeCloseTo((0.299 + 0.587) / 2, 3);
  });

  it('covers the area of a circle, black where nothing is said, and is none where there is no ink', async () => {
    const { alpha, mean } = (await rasterise(made('disc', '<circle cx="8" cy="8" r="6" fill="currentColor"/>'), 96))!;
    expect(alpha.reduce((sum, value) => sum + value / 255, 0) / (Math.PI * 36 * 36)).toBeCloseTo(1, 2);
    expect(mean).toBe(0);
    expect(await rasterise(made('nothing', ''), 32)).toBeUndefined();
  });
});

/** Mass of |difference to the ground|, where the ground is the picture's corner. */
function centroid({ pixels, drawings: [drawing] }: DrawingPicture, size: number) {
  // a corner that the drawing leaves free: the one opposite to its centre
  const corner = (at: number) => (at < 0.5 ? size - 2 : 1);
  const ground = pixels[corner(drawing!.centre[1]) * size + corner(drawing!.centre[0])]!;
  let [mass, u, v] = [0, 0, 0];
  for (const at of range(size * size)) {
    const difference = Math.abs(pixels[at]! - ground);
    if (difference < 0.12) continue;
    mass += difference;
    u += difference * ((at % size) + 0.5);
    v += difference * (Math.floor(at / size) + 0.5);
  }
  return [u / mass / size, v / mass / size] as const;
}

describe('a picture of drawings', () => {
  it('has its drawing where the caption says', async () => {
    const disc = (await rasterise(made('disc', '<circle cx="8" cy="8" r="8" fill="#fff"/>'), 48))!;
    const third = (at: number, words: readonly string[]) => words[at < 0.4 ? 0 : at > 0.6 ? 2 : 1]!;
    let seen = 0;
    for (const index of range(300)) {
      const key = subkey(seedKey(8), index);
      const plan = drawingPicture(key, [disc], 8);
      if (plan.ground !== 'plain' || plan.drawings.length !== 1) continue;
      const picture = drawingPicture(key, [disc], 64);
      const [u, v] = centroid(picture, 64);
      const [column, row] = [third(u, ['left', '', 'right']), third(v, ['upper', '', 'lower'])];
      const said = picture.caption.split(/\W/);
      for (const side of ['left', 'right']) expect(said.includes(side)).toBe(side === column);
      for (const side of ['upper', 'lower']) expect(said.includes(side)).toBe(side === row);
      seen++;
    }
    expect(seen).toBeGreaterThan(60);
  });

  it('is mirrored or not as its facts say', async () => {
    const corner = (await rasterise(made('corner', '<path fill="#fff" d="M0 0h4v12h12v4H0z"/>'), 48))!;
    const sides = { true: 0, false: 0 };
    for (const index of range(200)) {
      const key = subkey(seedKey(9), index);
      const plan = drawingPicture(key, [corner], 8);
      if (plan.ground !== 'plain' || plan.drawings.length !== 1) continue;
      const [u] = centroid(drawingPicture(key, [corner], 64), 64);
      const { centre, mirrored } = plan.drawings[0]!;
      expect(u > centre[0]).toBe(mirrored);
      sides[`${mirrored}`]++;
    }
    expect(Math.min(sides.true, sides.false)).toBeGreaterThan(8);
  });

  it('has a ground brighter on the side that the caption names', async () => {
    const disc = (await rasterise(made('disc', '<circle cx="8" cy="8" r="8" fill="#fff"/>'), 16))!;
    const told = range(400).flatMap((index) => {
      const { pixels, caption, drawings: shown } = drawingPicture(subkey(seedKey(10), index), [disc], 16);
      const side = /ground brighter on the (left|right|upper|lower) side/.exec(caption)?.[1];
      if (side === undefined || shown.some(({ x, y, size }) => x !== 'middle' || y !== 'middle' || size === 'large'))
        return [];
      const line = (far: boolean) => {
        const at = far ? 15 : 0;
        const across = side === 'left' || side === 'right';
        return range(16).reduce((sum, other) => sum + pixels[across ? other * 16 + at : at * 16 + other]!, 0) / 16;
      };
      return [line(side === 'right' || side === 'lower') - line(side === 'left' || side === 'upper')];
    });
    expect(told.length).toBeGreaterThan(3);
    for (const difference of told) expect(difference).toBeGreaterThan(0.03);
  });

  it('repeats from its key, differs by it, stays inside 0..1 and has the same words at every size', () => {
    for (const index of range(12)) {
      const picture = drawingAt(1, 'train', index, rasters, 48);
      expect(drawingAt(1, 'train', index, rasters, 48)).toEqual(picture);
      expect(drawingAt(2, 'train', index, rasters, 48).pixels).not.toEqual(picture.pixels);
      expect(picture.pixels.every((value) => value >= 0 && value <= 1)).toBe(true);
      expect(drawingAt(1, 'train', index, rasters, 16).caption).toBe(picture.caption);
    }
  });

  it('stands out from its ground', () => {
    for (const index of range(60)) {
      const { pixels, ground, drawings: shown } = drawingAt(3, 'train', index, rasters, 32);
      if (ground !== 'plain' || shown.length !== 1) continue;
      const sorted = [...pixels].sort((a, b) => a - b);
      expect(sorted.at(-1)! - sorted[0]!).toBeGreaterThan(0.25);
    }
  });

  it('is of drawings of its split only, and variants of a thing are in the same one', () => {
    for (const split of ['train', 'held-out'] as const) {
      expect(rastersOf(split, rasters).length).toBeGreaterThan(10);
      for (const index of range(150)) {
        for (const { raster } of drawingAt(4, split, index, rasters, 4).drawings)
          expect(isHeldOutDrawing(raster.drawing.name)).toBe(split === 'held-out');
      }
    }
    const share = drawings.filter(({ name }) => isHeldOutDrawing(name)).length / drawings.length;
    // one in 16, ± 4 deviations of some 2,500 things
    expect(Math.abs(share - 1 / 16)).toBeLessThan(0.02);
    for (const { name } of drawings) {
      expect(isHeldOutDrawing(`${name}-filled`)).toBe(isHeldOutDrawing(name));
      expect(isHeldOutDrawing(`woman-${name}`)).toBe(isHeldOutDrawing(`man-${name}`));
    }
  });

  it('has a short caption that the text encoder reads whole', async () => {
    const { tokenizer } = await readTokenizer('models/small-base/tokenizer', {
      vocab_size: 49408,
      max_position_embeddings: 77,
    });
    const captions = range(400).map((index) => drawingAt(5, 'train', index, rasters, 2).caption);
    for (const caption of captions) {
      expect(caption).toMatch(/^[ -~]+$/);
      expect(caption).toBe(caption.toLowerCase());
      expect(tokenizer.encode(caption).cut).toBe(false);
    }
    const lengths = captions.map((caption) => tokenizer.tokenize(caption).length).sort((a, b) => a - b);
    expect(lengths[200]).toBeLessThan(20);
    expect(new Set(captions).size).toBeGreaterThan(390);
  });
});
