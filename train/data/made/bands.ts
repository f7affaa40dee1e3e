/**
 * Layers of bands and of branches, for `textures.ts`: parallel bands of a few pixels, each with its own contrast, as a
 * fence, a shell or the veins of a leaf have them, and lines that fork and thin outwards, as trees and rivers do.
 */
import type { Random } from '../../../core/index.ts';
import { eachPixel, soft } from './drawing.ts';
import { amplitudeOf, curvedFrame, type Layer, placeOf, toneOf } from './layer.ts';

/** Bands of 3 to 8 pixels (of 128) side by side, curved, each with its own contrast; a period of 6 to 24 pixels. */
export const bandFamily: Layer = (picture, size, random) => {
  const frame = curvedFrame(random);
  const half = random.uniform(0.022, 0.065);
  const spacing = half * random.uniform(2.6, 6);
  const edge = random.uniform(0.004, 0.02);
  const length = random.uniform(0.3, 1.6);
  const amplitude = amplitudeOf(random, 0.05, 0.25);
  const spread = random.uniform(0, 0.35);
  const count = Math.ceil(4 / spacing);
  const each = Array.from({ length: 2 * count + 1 }, () => ({
    contrast: 1 + random.normal(spread),
    shift: random.normal(0.06 * spacing),
    slope: random.normal(0.03),
  }));
  // some fill the picture, some are a few beside one another
  const most = random.chance(0.5) ? count : 2 + random.int(6);
  eachPixel(size, (at, u, v) => {
    const [along, across] = frame(u, v);
    const nearest = Math.round(across / spacing);
    if (Math.abs(nearest) > most) return;
    const band = each[nearest + count]!;
    const distance = Math.abs(across - spacing * nearest - band.shift - band.slope * along);
    picture[at]! +=
      amplitude * band.contrast * soft((half - distance) / edge) * soft((length - Math.abs(along)) / 0.04);
  });
  return `${toneOf(amplitude)} bands`;
};

/** A line from a point in a direction, bent, that thins along its length. */
type Branch = { u: number; v: number; angle: number; bend: number; length: number; width: number };

/** The branch of a trunk, beginning somewhere along it. */
function fork(random: Random, from: Branch): Branch {
  const along = from.length * random.uniform(0.25, 0.7);
  const across = from.bend * along * along;
  const [cos, sin] = [Math.cos(from.angle), Math.sin(from.angle)];
  return {
    u: from.u + cos * along - sin * across,
    v: from.v + sin * along + cos * across,
    angle: from.angle + (random.chance(0.5) ? 1 : -1) * random.uniform(0.3, 0.9),
    bend: random.normal(0.4),
    length: from.length * random.uniform(0.5, 0.8),
    width: 0.7 * from.width,
  };
}

/** 3 to 8 lines out of a point, each with one to three branches; 1 to 5 pixels wide (of 128), thinning and fading. */
export const branches: Layer = (picture, size, random) => {
  const [u0, v0] = [random.uniform(-0.7, 0.7), random.uniform(-0.7, 0.7)];
  const first = random.uniform(0, 2 * Math.PI);
  const arms = 3 + random.int(6);
  const width = random.uniform(0.014, 0.04);
  const all = Array.from({ length: arms }, (_, arm): Branch[] => {
    const angle = first + (2 * Math.PI * arm) / arms + random.normal(0.2);
    const trunk = { u: u0, v: v0, angle, bend: random.normal(0.3), length: random.uniform(0.3, 0.9), width };
    const list = [trunk];
    for (let more = 1 + random.int(3); more > 0; more--) list.push(fork(random, random.choice(list)));
    return list;
  }).flat();
  const lines = all.map((b) => ({ ...b, cos: Math.cos(b.angle), sin: Math.sin(b.angle) }));
  const amplitude = amplitudeOf(random, 0.08, 0.3);
  eachPixel(size, (at, u, v) => {
    let most = 0;
    for (const line of lines) {
      const [du, dv] = [u - line.u, v - line.v];
      const far = line.cos * du + line.sin * dv;
      const along = far / line.length;
      if (along < -0.02 || along > 1) continue;
      const across = (line.cos * dv - line.sin * du - line.bend * far * far) / (line.width * (1 - 0.6 * along));
      if (Math.abs(across) < 3) most = Math.max(most, (1 - along) * Math.exp(-across * across));
    }
    picture[at]! += amplitude * most;
  });
  return `${toneOf(amplitude)} branches ${placeOf(u0, v0)}`;
};

/** "Dead leaves": 15 to 80 opaque discs, ovals and boxes over one another, sizes by a power law, each with its own shading. */
export const leaves: Layer = (picture, size, random) => {
  const count = 15 + random.int(66);
  const edge = random.uniform(0.006, 0.03);
  for (let leaf = 0; leaf < count; leaf++) {
    const radius = Math.min(0.7, 0.06 / Math.sqrt(random.uniform(0.006, 1)));
    const [cu, cv] = [random.uniform(-1.1, 1.1), random.uniform(-1.1, 1.1)];
    const angle = random.uniform(0, Math.PI);
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    const [long, box] = [random.uniform(1, 2), random.chance(0.3)];
    const value = random.uniform(0.03, 0.95);
    const [shadeU, shadeV] = [random.normal(0.15), random.normal(0.15)];
    eachPixel(size, (at, u, v) => {
      const [du, dv] = [u - cu, v - cv];
      if (Math.abs(du) > 1.6 * long * radius || Math.abs(dv) > 1.6 * long * radius) return;
      const a = (cos * du + sin * dv) / long;
      const b = cos * dv - sin * du;
      const inside = box ? radius - Math.max(Math.abs(a), Math.abs(b)) : radius - Math.hypot(a, b);
      const weight = soft(inside / edge);
      picture[at] = picture[at]! + (value + shadeU * du + shadeV * dv - picture[at]!) * weight;
    });
  }
  return 'many leaves';
};
