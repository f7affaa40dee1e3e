/**
 * Simple detectors that read a phantom-like film back: means over fixed regions, one threshold each. The thresholds are
 * the best single cuts (sensitivity + specificity) on seeded phantoms, fitted once per process.
 */
import { mean as meanOf } from 'd3-array';
import { eachPixel, soft } from '../../data/made/drawing.ts';
import {
  type Density,
  type Finding,
  type LungFinding,
  lungFinding,
  type Opacity,
  SIDES,
  type Side,
  ZONES,
} from '../../data/made/phantom-report.ts';
import { lungDistance, type Phantom, phantomAt, ZONE_CENTRES } from '../../data/made/phantoms.ts';

/** What the detectors read in a film. */
export type FilmReading = {
  /** Correlation with the average phantom: whether it is a film at all (real phantoms: median 0.93, lowest 0.83). */
  readonly correlation: number;
  readonly lungs: Readonly<Record<Side, LungFinding | undefined>>;
  readonly cardiomegaly: boolean;
};

/** Reads films of one size. */
export type FilmReader = (pixels: ArrayLike<number>) => FilmReading;

type Region = (x: number, v: number) => boolean;
const disc =
  ([cx, cv]: readonly [number, number], inner: number, outer: number): Region =>
  (x, v) => {
    const distance = Math.hypot(x - cx, v - cv);
    return distance >= inner && distance < outer;
  };

/** Regions of one lung, in (x outwards, v down). */
const LUNG_REGIONS: Readonly<Record<string, Region>> = {
  air: (x, v) => {
    const rho = lungDistance(x, v);
    return rho > 0.73 && rho < 0.87 && x > 0.36 && v < 0.12;
  },
  angle: (x, v) => x > 0.53 && x < 0.65 && v > 0.345 && v < 0.42,
  moderate: (x, v) => x > 0.5 && x < 0.66 && v > 0.1 && v < 0.18,
  large: (x, v) => x > 0.46 && x < 0.64 && v > -0.14 && v < -0.06,
  ...Object.fromEntries(ZONES.map((zone) => [`disc ${zone}`, disc(ZONE_CENTRES[zone], 0, 0.1)])),
  ...Object.fromEntries(
    ZONES.map((zone): [string, Region] => {
      const ring = disc(ZONE_CENTRES[zone], 0.17, 0.23);
      const inner = zone === 'lower' ? 0.42 : 0.3;
      return [`ring ${zone}`, (x, v) => ring(x, v) && lungDistance(x, v) < 0.82 && v < 0.32 && x > inner];
    }),
  ),
};

/** Both sides of the heart; u is the viewer's right. */
const HEART_REGIONS: Readonly<Record<string, Region>> = {
  'heart right': (u, v) => u > -0.24 && u < -0.19 && v > 0.18 && v < 0.34,
  'heart left': (u, v) => u > 0.385 && u < 0.43 && v > 0.18 && v < 0.34,
};

/** The regions whose means are read, as places of pixels in a film of one size. @throws RangeError for one that is too small */
export function filmRegions(size: number): ReadonlyMap<string, readonly number[]> {
  const lists = new Map<string, number[]>();
  const collect = (name: string, region: Region, coordinate: (u: number) => number) => {
    const list: number[] = [];
    eachPixel(size, (at, u, v) => {
      if (region(coordinate(u), v)) list.push(at);
    });
    if (list.length === 0) throw new RangeError(`film of ${size} x ${size} pixels: expected at least 48 x 48`);
    lists.set(name, list);
  };
  for (const [name, region] of Object.entries(LUNG_REGIONS)) {
    collect(`right ${name}`, region, (u) => -u);
    collect(`left ${name}`, region, (u) => u);
  }
  for (const [name, region] of Object.entries(HEART_REGIONS)) collect(name, region, (u) => u);
  return lists;
}

type Measure = (pixels: ArrayLike<number>) => (region: string) => number;

/** Pixel lists of all regions, once per size; then a mean costs as much as the region is big. */
function measureOf(size: number): Measure {
  const lists = filmRegions(size);
  return (pixels) => (region) => {
    const list = lists.get(region)!;
    return list.reduce((sum, at) => sum + pixels[at]!, 0) / list.length;
  };
}

/**
 * The cut between two groups of numbers with the largest sensitivity + specificity, between two neighbours. Both are
 * counted softly, over 4% of the distance of their means: a single odd number does not decide where most are.
 */
export function bestCut(below: readonly number[], above: readonly number[]): number {
  const width = 0.04 * Math.abs(meanOf(above)! - meanOf(below)!) || Number.MIN_VALUE;
  const share = (values: readonly number[], cut: number) =>
    values.reduce((sum, value) => sum + soft((cut - value) / width), 0) / values.length;
  const all = [...below, ...above].sort((a, b) => a - b);
  let [best, cut] = [Number.NEGATIVE_INFINITY, 0];
  for (let at = 1; at < all.length; at++) {
    if (all[at]! === all[at - 1]!) continue;
    const middle = (all[at - 1]! + all[at]!) / 2;
    const score = share(below, middle) - share(above, middle);
    if (score > best) [best, cut] = [score, middle];
  }
  return cut;
}

type Thresholds = Readonly<
  Record<'air' | 'angle' | 'moderate' | 'large' | 'opacity' | 'dense' | 'spread' | 'heart', number>
>;

/** The numbers the thresholds cut: raw means, or excess over the average normal film. */
type Features = {
  readonly heart: number;
  readonly lungs: Readonly<Record<Side, LungFeatures>>;
};
type LungFeatures = {
  readonly air: number;
  readonly angle: number;
  readonly moderate: number;
  readonly large: number;
  readonly zone: Opacity['zone'];
  readonly excess: number;
  readonly spread: number;
};

function featuresOf(measure: Measure, normal: (region: string) => number): (pixels: ArrayLike<number>) => Features {
  return (pixels) => {
    const mean = measure(pixels);
    const excess = (region: string) => mean(region) - normal(region);
    const lung = (side: Side): LungFeatures => {
      const discs = ZONES.map((zone) => ({ zone, excess: excess(`${side} disc ${zone}`) }));
      const strongest = discs.reduce((most, next) => (next.excess > most.excess ? next : most));
      return {
        air: mean(`${side} air`),
        angle: mean(`${side} angle`),
        moderate: mean(`${side} moderate`),
        large: mean(`${side} large`),
        ...strongest,
        spread: excess(`${side} ring ${strongest.zone}`) / strongest.excess,
      };
    };
    return {
      heart: Math.min(mean('heart right'), mean('heart left')),
      lungs: { right: lung('right'), left: lung('left') },
    };
  };
}

/** Fits every threshold on phantoms whose findings are known. */
function fitThresholds(examples: readonly { features: Features; findings: readonly Finding[] }[]): Thresholds {
  const lungs = examples.flatMap(({ features, findings }) =>
    SIDES.map((side) => ({ features: features.lungs[side], finding: lungFinding(findings, side) })),
  );
  const cut = <T>(items: readonly T[], value: (item: T) => number, isAbove: (item: T) => boolean) =>
    bestCut(items.filter((item) => !isAbove(item)).map(value), items.filter(isAbove).map(value));
  const effusions = lungs.filter(({ finding }) => finding?.kind === 'effusion');
  const bigger =
    (...sizes: readonly string[]) =>
    ({ finding }: (typeof lungs)[number]) =>
      finding?.kind === 'effusion' && sizes.includes(finding.size);
  const open = lungs.filter(({ finding }) => finding === undefined || finding.kind === 'opacity');
  const opacities = lungs.filter(({ finding }) => finding?.kind === 'opacity');
  const opacityIs =
    (word: string) =>
    ({ finding }: (typeof lungs)[number]) =>
      finding?.kind === 'opacity' && (finding.density === word || finding.size === word);
  return {
    air: cut(
      lungs,
      (lung) => lung.features.air,
      ({ finding }) => finding?.kind !== 'pneumothorax',
    ),
    angle: cut(
      lungs,
      (lung) => lung.features.angle,
      ({ finding }) => finding?.kind === 'effusion',
    ),
    moderate: cut(effusions, (lung) => lung.features.moderate, bigger('moderate', 'large')),
    large: cut(effusions, (lung) => lung.features.large, bigger('large')),
    opacity: cut(
      open,
      (lung) => lung.features.excess,
      ({ finding }) => finding !== undefined,
    ),
    dense: cut(opacities, (lung) => lung.features.excess, opacityIs('dense')),
    spread: cut(opacities, (lung) => lung.features.spread, opacityIs('large')),
    heart: cut(
      examples,
      ({ features }) => features.heart,
      ({ findings }) => findings.some((finding) => finding.kind === 'cardiomegaly'),
    ),
  };
}

function readLung(side: Side, lung: LungFeatures, cuts: Thresholds): LungFinding | undefined {
  if (lung.air < cuts.air) return { kind: 'pneumothorax', side };
  if (lung.angle > cuts.angle) {
    const size = lung.moderate > cuts.moderate ? (lung.large > cuts.large ? 'large' : 'moderate') : 'small';
    return { kind: 'effusion', side, size };
  }
  if (lung.excess <= cuts.opacity) return undefined;
  const density: Density = lung.excess > cuts.dense ? 'dense' : 'faint';
  return { kind: 'opacity', side, zone: lung.zone, size: lung.spread > cuts.spread ? 'large' : 'small', density };
}

function averageOf(films: readonly Phantom[], size: number): Float64Array {
  const sum = new Float64Array(size * size);
  for (const { pixels } of films) for (let at = 0; at < sum.length; at++) sum[at]! += pixels[at]! / films.length;
  return sum;
}

/** Pearson correlation of two pictures; 0 where one of them is flat. */
export function correlation(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const n = a.length;
  let [sumA, sumB, squareA, squareB, product] = [0, 0, 0, 0, 0];
  for (let at = 0; at < n; at++) {
    const [x, y] = [a[at]!, b[at]!];
    sumA += x;
    sumB += y;
    squareA += x * x;
    squareB += y * y;
    product += x * y;
  }
  const variances = (squareA - (sumA * sumA) / n) * (squareB - (sumB * sumB) / n);
  return variances > 1e-12 ? (product - (sumA * sumB) / n) / Math.sqrt(variances) : 0;
}

/** The films the thresholds are fitted on: a set of its own, apart from anything trained or measured on. */
const FIT = { seed: 2024, set: 'detector fit', count: 1200 } as const;
const readers = new Map<number, FilmReader>();

/**
 * The reader of films of one size, fitted on 1,200 seeded phantoms on first use (a few seconds), cached afterwards.
 * @throws RangeError when the pictures are too small to hold the regions.
 */
export function filmReader(size = 128): FilmReader {
  const cached = readers.get(size);
  if (cached) return cached;
  const measure = measureOf(size);
  const films = Array.from({ length: FIT.count }, (_, index) => phantomAt(FIT.seed, FIT.set, index, size));
  const normal = measure(
    averageOf(
      films.filter(({ findings }) => findings.length === 0),
      size,
    ),
  );
  const average = averageOf(films, size);
  const features = featuresOf(measure, normal);
  const cuts = fitThresholds(films.map(({ pixels, findings }) => ({ features: features(pixels), findings })));
  const reader: FilmReader = (pixels) => {
    if (pixels.length !== size * size) {
      throw new RangeError(`film: ${pixels.length} pixels, expected ${size} x ${size} = ${size * size}`);
    }
    const { heart, lungs } = features(pixels);
    return {
      correlation: correlation(pixels, average),
      lungs: { right: readLung('right', lungs.right, cuts), left: readLung('left', lungs.left, cuts) },
      cardiomegaly: heart > cuts.heart,
    };
  };
  readers.set(size, reader);
  return reader;
}
