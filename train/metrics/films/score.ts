/** Whether films obey their reports: counts of what the detectors read against what the reports say. */

import { type Finding, type LungFinding, lungFinding, SIDES } from '../../data/made/phantom-report.ts';
import type { FilmReading } from './detectors.ts';

/** `right` cases out of `of`. */
export type Count = { readonly right: number; readonly of: number };

/** Detector verdicts for one film; `undefined` where the report says nothing to compare. */
export type FilmVerdict = {
  /** Presence and kind of finding right, per lung. */
  readonly lungs: Readonly<Record<'right' | 'left', boolean>>;
  readonly heart: boolean;
  /** Every attribute of the report (side, kind, zone, size, density, heart) right. */
  readonly whole: boolean;
};

/** Counts over many films. */
export type Obedience = {
  /** Reported findings that were read in the told lung (heart: at all). */
  readonly hit: Readonly<Record<Finding['kind'], Count>>;
  /** Lungs (heart: films) without the finding in which it was read all the same; here `right` counts false alarms. */
  readonly falseAlarm: Readonly<Record<Finding['kind'], Count>>;
  /** Reported lung findings read on the told side and not on the other one. */
  readonly side: Count;
  /** Zone, size and density among the hits of a finding that has them. */
  readonly attributes: Readonly<Record<'zone' | 'size' | 'density', Count>>;
  readonly eachLung: Count;
  /** Lungs without any finding in which none was read. */
  readonly clear: Count;
  readonly heart: Count;
  readonly wholeReport: Count;
  /** Pictures that are films at all: correlation with the average phantom at least `FILM_CORRELATION`. */
  readonly films: Count;
  readonly medianCorrelation: number;
};

/** Below this correlation a picture is not called a film (real phantoms: lowest of 500 is 0.83, median 0.93). */
export const FILM_CORRELATION = 0.8;

const hasHeart = (findings: readonly Finding[]) => findings.some(({ kind }) => kind === 'cardiomegaly');

const attribute = (finding: LungFinding | undefined, name: 'zone' | 'size' | 'density'): string | undefined =>
  finding && name in finding ? finding[name as keyof LungFinding] : undefined;

const sameFinding = (a: LungFinding | undefined, b: LungFinding | undefined): boolean =>
  a?.kind === b?.kind &&
  (['zone', 'size', 'density'] as const).every((name) => attribute(a, name) === attribute(b, name));

/** Compares one reading with the findings of its report. */
export function judgeFilm(told: readonly Finding[], read: FilmReading): FilmVerdict {
  const heart = hasHeart(told) === read.cardiomegaly;
  const kindRight = (side: 'right' | 'left') => lungFinding(told, side)?.kind === read.lungs[side]?.kind;
  return {
    lungs: { right: kindRight('right'), left: kindRight('left') },
    heart,
    whole: heart && SIDES.every((side) => sameFinding(lungFinding(told, side), read.lungs[side])),
  };
}

const sayLung = (finding: LungFinding): string =>
  [
    attribute(finding, 'density'),
    attribute(finding, 'size'),
    `${finding.side}${finding.kind === 'opacity' ? ` ${finding.zone}` : ''}`,
    finding.kind,
  ]
    .filter((word) => word !== undefined)
    .join(' ');

/** What the detectors read, in words: `dense small right upper opacity, cardiomegaly`; sides are the patient's. */
export function sayReading({ lungs, cardiomegaly }: FilmReading): string {
  const found = SIDES.flatMap((side) => (lungs[side] ? [sayLung(lungs[side])] : []));
  return [...found, ...(cardiomegaly ? ['cardiomegaly'] : [])].join(', ') || 'normal';
}

const count = <T>(items: readonly T[], isRight: (item: T) => boolean): Count => ({
  right: items.filter(isRight).length,
  of: items.length,
});

/** A film with findings in none of its places: what "always normal" would draw. */
export const ALWAYS_NORMAL: FilmReading = {
  correlation: 1,
  lungs: { right: undefined, left: undefined },
  cardiomegaly: false,
};

/**
 * Counts over films and their reports. Compare with the same pairs read as `ALWAYS_NORMAL`, which is right in about
 * half of the lungs.
 * @throws RangeError without any pair.
 */
export function scoreFilms(
  pairs: readonly { readonly told: readonly Finding[]; readonly read: FilmReading }[],
): Obedience {
  if (pairs.length === 0) throw new RangeError('scoreFilms: expected at least one film');
  const lungs = pairs.flatMap(({ told, read }) =>
    SIDES.map((side) => ({
      told: lungFinding(told, side),
      read: read.lungs[side],
      other: read.lungs[side === 'right' ? 'left' : 'right'],
      toldOther: lungFinding(told, side === 'right' ? 'left' : 'right'),
    })),
  );
  const kinds = ['opacity', 'effusion', 'pneumothorax'] as const;
  const perKind = (both: (kind: LungFinding['kind']) => Count, heart: Count) => ({
    ...(Object.fromEntries(kinds.map((kind) => [kind, both(kind)])) as Record<LungFinding['kind'], Count>),
    cardiomegaly: heart,
  });
  const among = (kind: LungFinding['kind'], present: boolean) =>
    count(
      lungs.filter(({ told }) => (told?.kind === kind) === present),
      ({ read }) => read?.kind === kind,
    );
  const hearts = (present: boolean) =>
    count(
      pairs.filter(({ told }) => hasHeart(told) === present),
      ({ read }) => read.cardiomegaly,
    );
  const hits = lungs.filter(({ told, read }) => told !== undefined && told.kind === read?.kind);
  const attributes = (name: 'zone' | 'size' | 'density') =>
    count(
      hits.filter(({ told }) => attribute(told, name) !== undefined),
      ({ told, read }) => attribute(told, name) === attribute(read, name),
    );
  const verdicts = pairs.map(({ told, read }) => judgeFilm(told, read));
  const correlations = pairs.map(({ read }) => read.correlation).sort((a, b) => a - b);
  return {
    hit: perKind((kind) => among(kind, true), hearts(true)),
    falseAlarm: perKind((kind) => among(kind, false), hearts(false)),
    side: count(
      lungs.filter(({ told, toldOther }) => told !== undefined && told.kind !== toldOther?.kind),
      ({ told, read, other }) => read?.kind === told?.kind && other?.kind !== told?.kind,
    ),
    attributes: { zone: attributes('zone'), size: attributes('size'), density: attributes('density') },
    eachLung: count(
      verdicts.flatMap(({ lungs: { right, left } }) => [right, left]),
      (right) => right,
    ),
    clear: count(
      lungs.filter(({ told }) => told === undefined),
      ({ read }) => read === undefined,
    ),
    heart: count(verdicts, ({ heart }) => heart),
    wholeReport: count(verdicts, ({ whole }) => whole),
    films: count(correlations, (value) => value >= FILM_CORRELATION),
    medianCorrelation: correlations[correlations.length >> 1]!,
  };
}
