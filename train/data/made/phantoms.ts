/**
 * Chest-film-like phantoms whose report fully determines what is drawn, made from a seed. Frontal view, white = dense,
 * u to the viewer's right and v down in [-1, 1]. x is the distance from the midline outwards; the patient's right lung
 * is at the viewer's left (u < 0), so x = |u| with the side given by the sign of u.
 *
 * The numbers are an anatomy of our own; they keep the findings apart (a lower opacity leaves the angle between ribs
 * and diaphragm free, which an effusion fills first), so that simple detectors can read them back.
 */

import { type Random, randomOf, type SeedKey, seedKey, subkey } from '../../../core/index.ts';
import { about, bump, heart, ribs, vessels } from './anatomy.ts';
import { centres, clip, finish, type Grey, mix, soft, valueNoise } from './drawing.ts';
import { drawFindings, type Finding, lungFinding, type Opacity, type Side, writeReport } from './phantom-report.ts';

/** A phantom film [size, size] with its report and the findings behind it. */
export type Phantom = { readonly pixels: Grey; readonly report: string; readonly findings: readonly Finding[] };

/** Standard lungs (no jitter): centre, radii and exponent of the super-ellipse in (x, v). */
export const LUNG = { x: 0.43, v: -0.08, radiusX: 0.33, radiusV: 0.66, exponent: 2.5 } as const;

/** Centres (x, v) of the three zones. */
export const ZONE_CENTRES = { upper: [0.43, -0.36], middle: [0.47, -0.06], lower: [0.53, 0.22] } as const;

/** Distance from a lung's centre, 1 at its border: (|dx/rx|^2.5 + |dv/rv|^2.5)^0.4. */
export function lungDistance(
  x: number,
  v: number,
  { x: cx, v: cv, radiusX, radiusV }: { x: number; v: number; radiusX: number; radiusV: number } = LUNG,
): number {
  const a = Math.abs((x - cx) / radiusX);
  const b = Math.abs((v - cv) / radiusV);
  return (a * a * Math.sqrt(a) + b * b * Math.sqrt(b)) ** 0.4;
}

type Lung = {
  readonly shape: { readonly x: number; readonly v: number; readonly radiusX: number; readonly radiusV: number };
  readonly dome: number;
  readonly collapse: number;
  readonly blob: ((x: number, v: number) => number) | undefined;
  readonly fluidTop: ((x: number) => number) | undefined;
  readonly vessels: (x: number, v: number) => number;
  readonly ribs: (x: number, v: number) => number;
};

function opacityBlob(random: Random, { zone, size, density }: Opacity): (x: number, v: number) => number {
  const [zoneX, zoneV] = ZONE_CENTRES[zone];
  const centreX = zoneX + random.normal(0.015);
  const centreV = zoneV + random.normal(0.02);
  const radius = (size === 'small' ? 0.14 : 0.26) * random.uniform(0.93, 1.07);
  const amplitude = (density === 'faint' ? 0.3 : 0.5) * random.uniform(0.93, 1.07);
  const [phase2, phase3] = [random.uniform(0, 2 * Math.PI), random.uniform(0, 2 * Math.PI)];
  const edge = 0.14 * radius + 0.012;
  return (x, v) => {
    const dx = x - centreX;
    const dv = (v - centreV) / 1.1;
    const distance = Math.hypot(dx, dv);
    if (distance > 1.2 * radius + 18 * edge) return 0;
    const angle = Math.atan2(dv, dx);
    const border = radius * (1 + 0.1 * Math.sin(2 * angle + phase2) + 0.07 * Math.sin(3 * angle + phase3));
    return amplitude * soft((border - distance) / edge);
  };
}

/** The upper border of an effusion: a meniscus that rises outwards, or only the blunted angle when small. */
function effusionTop(random: Random, size: 'small' | 'moderate' | 'large'): (x: number) => number {
  const level = { small: 0.3, moderate: 0.08, large: -0.18 }[size] + random.normal(0.012);
  return size === 'small' ? (x) => level - 0.55 * (x - 0.52) : (x) => level - 0.14 * clip((x - 0.4) / 0.3, -1, 1);
}

function drawLung(random: Random, side: Side, findings: readonly Finding[]): Lung {
  const finding = lungFinding(findings, side);
  return {
    shape: {
      x: LUNG.x * about(random, 0.012),
      v: LUNG.v + random.normal(0.008),
      radiusX: LUNG.radiusX * about(random, 0.015),
      radiusV: LUNG.radiusV * about(random, 0.015),
    },
    dome: (side === 'right' ? 0.42 : 0.48) + random.normal(0.012),
    // Beyond every distance where there is no pneumothorax.
    collapse: finding?.kind === 'pneumothorax' ? 0.52 + random.normal(0.012) : Number.POSITIVE_INFINITY,
    blob: finding?.kind === 'opacity' ? opacityBlob(random, finding) : undefined,
    fluidTop: finding?.kind === 'effusion' ? effusionTop(random, finding.size) : undefined,
    vessels: vessels(random),
    ribs: ribs(random),
  };
}

/** Free air around a collapsed lung, with the thin pleural line between the two. */
function collapsed(value: number, mask: number, rho: number, lung: Lung, x: number, v: number): number {
  const outer = soft((x - 0.3 + (v < -0.3 ? 0.5 : 0)) / 0.03);
  const air = mask * soft((rho - lung.collapse) / 0.02) * outer;
  const line = 0.24 * mask * bump((rho - lung.collapse) / 0.06) * outer;
  return mix(value, 0.03, air) + line + 0.1 * mask * soft((lung.collapse - rho) / 0.03) * outer;
}

/** Grain of the film: its noise's deviation. */
export const GRAIN = 0.008;

/** Density of the collar bone and of the border of the shoulder blade along a row, by x. */
function shoulder(v: number): (x: number) => number {
  const [low, high] = [soft((0.02 - v) / 0.05), soft((v + 0.72) / 0.04)];
  return (x) => {
    const collar = v + 0.64 + (0.3 - 0.28 * (x - 0.1)) * (x - 0.1);
    const bone = x > 0.06 && x < 0.76 && v < -0.5 ? 0.15 * soft((0.033 - Math.abs(collar)) / 0.012) : 0;
    const blade = x > 0.4 ? soft((x - 0.6 - 0.12 * (v + 0.45) ** 2) / 0.014) * low * high : 0;
    return bone + 0.05 * blade;
  };
}

/** Draws the findings as a film [size, size]; some ms at 128. Films of one key with and without `grain` differ in the grain alone. */
export function drawFilm(random: Random, findings: readonly Finding[], size = 128, grain = GRAIN): Grey {
  const [shiftU, shiftV] = [random.normal(0.014), random.normal(0.014)];
  const [scaleU, scaleV] = [random.uniform(0.96, 1.04), random.uniform(0.96, 1.04)];
  const lungs = { right: drawLung(random, 'right', findings), left: drawLung(random, 'left', findings) };
  const heartInside = heart(
    random,
    findings.some((finding) => finding.kind === 'cardiomegaly'),
  );
  const knob = { u: 0.11 + random.normal(0.008), v: -0.3 + random.normal(0.012) };
  const gas = { u: 0.4 + random.normal(0.02), v: 0.68 + random.normal(0.015), dark: random.uniform(0.12, 0.2) };
  const coarse = valueNoise(random, 5, size);
  const fine = valueNoise(random, 14, size);
  const picture = new Float64Array(size * size);
  const at = centres(size);
  for (let row = 0; row < size; row++) {
    const v = (at[row]! - shiftV) / scaleV;
    const halfWidth = 0.24 + 0.64 * soft((v + 0.78) / 0.07);
    // the column of the mediastinum widens towards the heart; the right border is straighter
    const wide = 0.13 + 0.03 * soft((v + 0.1) / 0.1);
    const above = { middle: soft((0.6 - v) / 0.05), bones: soft((0.6 - v) / 0.035), angle: soft((0.31 - v) / 0.02) };
    const windpipe = v < -0.05 ? [soft((v + 0.98) / 0.03), soft((-0.15 - v) / 0.02)] : undefined;
    const spine = soft((v + 0.95) / 0.05);
    const shoulders = shoulder(v);
    for (let column = 0; column < size; column++) {
      const u = (at[column]! - shiftU) / scaleU;
      const x = Math.abs(u);
      const lung = u < 0 ? lungs.right : lungs.left;
      const index = row * size + column;
      const texture = fine[index]!;
      const body = soft((halfWidth - x) / 0.025);
      let value = 0.02 + body * (0.48 + 0.1 * x + 0.03 * coarse[index]!);

      const rho = lungDistance(x, v, lung.shape);
      const dome = lung.dome + 0.55 * (x - 0.36) ** 2;
      const mask = soft(((1 - rho) * lung.shape.radiusX) / 0.02) * soft((dome - v) / 0.02);
      // air, a little denser towards the base, and what runs out of the hilum
      const air = 0.18 + 0.05 * (v + 0.1) + 0.015 * texture;
      value = mix(value, air, mask);
      if (mask > 0.01) {
        const hilum = 0.1 * bump((x - 0.17) / 0.08, (v + 0.02) / 0.17);
        // air gone, vessels do not stand out any more
        const clouded = lung.blob ? lung.blob(x, v) : 0;
        value += mask * (hilum + 0.14 * lung.vessels(x, v) * (1 - Math.min(1, 2 * clouded)));
      }
      if (Number.isFinite(lung.collapse)) value = collapsed(value, mask, rho, lung, x, v);

      // mediastinum with the aortic knob, then the heart, before which opacities hide
      const middle = body * soft((wide - x) / 0.02) * above.middle;
      value = mix(value, Math.max(value, 0.56 + 0.02 * texture), middle);
      // beyond that nothing of it is left
      if (Math.abs(u - knob.u) < 0.43 && Math.abs(v - knob.v) < 0.43)
        value = mix(value, 0.62, body * soft((0.065 - Math.hypot(u - knob.u, v - knob.v)) / 0.02));
      const inside = soft(heartInside(u, v) / 0.02);
      value = mix(value, 0.7 + 0.02 * texture, inside);

      if (lung.blob) value += lung.blob(x, v) * mask * (1 - 0.75 * inside) * above.angle;
      const fluid = lung.fluidTop ? mask * soft((v - lung.fluidTop(x)) / 0.02) * (1 - inside) : 0;
      value = mix(value, 0.64 + 0.02 * texture, fluid);

      // gas under the left dome; the windpipe and its two branches; the spine
      if (u > 0 && v > 0.5)
        value -= gas.dark * body * soft((1 - Math.hypot((u - gas.u) / 0.15, (v - gas.v) / 0.09)) * 6) * (1 - mask);
      if (x < 0.25) {
        const fork = Math.max(0, v + 0.32);
        const pipe = windpipe ? bump((x - 0.75 * fork) / 0.034) * windpipe[0]! * windpipe[1]! : 0;
        value += body * (0.08 * bump(u / 0.07) * spine * (1 - pipe) - 0.11 * pipe);
      }

      // bones lie over all, and stand out less where it is dense
      const bones = (v < 0.8 ? 0.14 * lung.ribs(x, v) * above.bones : 0) + (v < 0.2 ? shoulders(x) : 0);
      if (bones !== 0) value += body * (1 - 0.55 * soft((value - 0.5) / 0.05)) * bones;
      picture[index] = value;
    }
  }
  return finish(picture, random, grain);
}

/** Whether a report is kept for measuring only (one wording in eight, decided by the text alone). */
export const isHeldOutReport = (report: string): boolean => subkey(seedKey(0), report)[0] % 8 === 0;

/** Which wordings a phantom may be reported in. */
export type Wording = 'any' | 'train' | 'held-out';

/** The first wording of the findings that is allowed; every combination of findings has wordings of both kinds. */
function reportOf(key: SeedKey, findings: readonly Finding[], wording: Wording): string {
  for (let attempt = 0; ; attempt++) {
    const report = writeReport(randomOf(subkey(key, attempt)), findings);
    if (wording === 'any' || isHeldOutReport(report) === (wording === 'held-out')) return report;
  }
}

/**
 * The phantom of a key; its film is drawn when it is first asked for.
 * @example phantom(subkey(seedKey(1), 0)).report // 'Small left pleural effusion. Heart size is normal.'
 */
export function phantom(key: SeedKey, size = 128, wording: Wording = 'any'): Phantom {
  const findings = drawFindings(randomOf(subkey(key, 'findings')));
  let film: Grey | undefined;
  return {
    findings,
    report: reportOf(subkey(key, 'report'), findings, wording),
    get pixels() {
      film ??= drawFilm(randomOf(subkey(key, 'film')), findings, size);
      return film;
    },
  };
}

/**
 * The index-th phantom of a seeded set. Sets of different name share no phantom, and no report of the set 'train' is
 * ever a report of another set.
 */
export const phantomAt = (seed: number, set: string, index: number, size = 128): Phantom =>
  phantom(subkey(subkey(seedKey(seed), `phantoms ${set}`), index), size, set === 'train' ? 'train' : 'held-out');
