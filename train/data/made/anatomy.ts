/**
 * The parts of a phantom's chest, each drawn once with its own small differences and then asked at (x, v) or (u, v):
 * coordinates in [-1, 1], u to the viewer's right, v down, x = |u| the distance from the midline outwards. Sizes are
 * those that 128 pixels carry: a rib is a band of 5 to 6 pixels (1/64 each), a vessel thins from 5 pixels to 2.
 */
import type { Random } from '../../../core/index.ts';
import { soft } from './drawing.ts';

/** exp(-a² - b²), nothing where it cannot be seen. */
export const bump = (a: number, b = 0): number => {
  const square = a * a + b * b;
  return square > 20 ? 0 : Math.exp(-square);
};

/** A number around 1, for sizes that differ a little from person to person. */
export const about = (random: Random, deviation: number): number => 1 + random.normal(deviation);

/** Where a rib lies against its level at the spine, rising a little and then falling outwards; what `ribs` and the rib score share. */
export const ribCourse = (x: number): number => {
  const outwards = Math.max(x - 0.1, 0);
  return outwards * (0.1 + 0.42 * outwards) - 0.02;
};
/** Distance between two ribs. */
export const RIB_SPACING = 0.185;
const RIBS = 8;
const FIRST_RIB = -0.72;

/** Density of the ribs of one side, 0 to about 1: bands of 5 to 6 pixels, each with its own slope, width and contrast. */
export function ribs(random: Random): (x: number, v: number) => number {
  const all = Array.from({ length: RIBS }, (_, rib) => ({
    level: FIRST_RIB + RIB_SPACING * rib + random.normal(0.01),
    slope: random.normal(0.02),
    half: random.uniform(0.038, 0.047),
    contrast: random.uniform(0.8, 1.15),
  }));
  return (x, v) => {
    if (x < 0.07 || x > 0.9) return 0;
    const across = v - ribCourse(x);
    // bands of neighbours hardly meet: only the two ribs next to a point can cover it
    const first = Math.floor((across - FIRST_RIB) / RIB_SPACING);
    let most = 0;
    for (let at = Math.max(0, first); at <= Math.min(RIBS - 1, first + 1); at++) {
      const rib = all[at]!;
      const distance = Math.abs(across - rib.level - rib.slope * (x - 0.4));
      if (distance < 0.1) most = Math.max(most, rib.contrast * soft((rib.half - distance) / 0.012));
    }
    return most && most * soft((0.8 - x) / 0.02) * soft((x - 0.1) / 0.02);
  };
}

/** A line from a point in a direction, bent, that thins and fades along its length. */
type Vessel = {
  readonly x: number;
  readonly v: number;
  readonly cos: number;
  readonly sin: number;
  readonly bend: number;
  readonly length: number;
  readonly width: number;
};

const vesselAt = (random: Random, x: number, v: number, angle: number, length: number, width: number): Vessel => ({
  x,
  v,
  cos: Math.cos(angle),
  sin: Math.sin(angle),
  bend: random.normal(0.25),
  length,
  width,
});

/** Density of the vessels of one lung, 0 to 1: four out of the hilum, each with a branch; they thin and fade outwards. */
export function vessels(random: Random): (x: number, v: number) => number {
  const all = [-1.2, -0.45, 0.35, 1.15].flatMap((direction) => {
    const angle = direction + random.normal(0.12);
    const length = random.uniform(0.36, 0.5);
    const trunk = vesselAt(random, 0.16, -0.03 + random.normal(0.015), angle, length, 0.046);
    const along = length * random.uniform(0.3, 0.5);
    const across = trunk.bend * along * along;
    const [x, v] = [trunk.x + trunk.cos * along - trunk.sin * across, trunk.v + trunk.sin * along + trunk.cos * across];
    const turn = (random.chance(0.5) ? 1 : -1) * random.uniform(0.35, 0.6);
    return [trunk, vesselAt(random, x, v, angle + turn, 0.75 * length, 0.034)];
  });
  return (x, v) => {
    let most = 0;
    for (const vessel of all) {
      const dx = x - vessel.x;
      const dv = v - vessel.v;
      const along = (vessel.cos * dx + vessel.sin * dv) / vessel.length;
      if (along < -0.05 || along > 1) continue;
      const far = along * vessel.length;
      const across = vessel.cos * dv - vessel.sin * dx - vessel.bend * far * far;
      const width = vessel.width * (1 - 0.5 * along);
      most = Math.max(most, (1 - along) * bump(across / width));
    }
    return most;
  };
}

/** How far inside the heart (u, v) is: positive within, in units of length; an oval whose apex points down to the left lung. */
export function heart(random: Random, large: boolean): (u: number, v: number) => number {
  const centreU = 0.1 + random.normal(0.008);
  const centreV = 0.25 + random.normal(0.01);
  const radiusU = (large ? 0.37 : 0.25) * about(random, 0.02);
  const radiusV = (large ? 0.3 : 0.26) * about(random, 0.02);
  const apex = random.normal(0.06) + 0.55;
  return (u, v) => {
    const a = (u - centreU) / radiusU;
    const b = (v - centreV) / radiusV;
    const distance = Math.sqrt(a * a + b * b);
    if (distance > 1.6) return -0.6 * radiusU;
    const turn = Math.atan2(b, a) - apex;
    // the apex stands out towards the lower left lung, the upper border of that side is drawn in
    const border = 1 + 0.12 * Math.exp(-4 * turn * turn) - 0.06 * Math.exp(-4 * (turn + 1.2) ** 2);
    return (border - distance) * radiusU;
  };
}
