/** A metric of two sets of pictures: one file here and one line in `index.ts`. */
import type { HostKey } from '../../../selora/adapter.ts';
import type { Features } from '../measures/frechet.ts';
import type { Planes } from '../measures/ssim.ts';

/** Pictures of a set that have a text, with CLIP's vectors of both. */
export interface TextPairs {
  readonly texts: readonly string[];
  readonly vectors: { readonly pictures: Features; readonly texts: Features };
  /** pictures without a text, which are not among them */
  readonly without: number;
  /** texts that are longer than CLIP reads */
  readonly cut: number;
}

/** One set, with whatever was computed of its pictures. */
export interface PictureSet {
  readonly name: string;
  /** a feature vector of each picture */
  readonly features: Features;
  /** each picture in grey bytes, in its own size */
  readonly grey: readonly Planes[];
  /** where CLIP was given and the set has texts */
  readonly pairs?: TextPairs;
}

/** Scores of a set by each judge, one row a picture, a number a word: higher, more likely in its report. */
export type WordScores = readonly (readonly number[])[];
/** What the judges say. */
export interface Judged {
  /** what they were asked */
  readonly words: readonly string[];
  /** learned from one half of the real pictures; read the other half, and the fakes */
  readonly ofReal: { readonly real: WordScores; readonly fake: WordScores };
  /** learned from the fakes; reads that other half */
  readonly ofFake: WordScores;
  /** learned from as many real pictures as there are fakes, at most half of them; reads the same */
  readonly ofFewReal: WordScores;
  /** which words stand in which reports: of the half that is read, and of the fakes */
  readonly truth: { readonly real: readonly (readonly boolean[])[]; readonly fake: readonly (readonly boolean[])[] };
  /** pictures learned from, by judge */
  readonly learned: { readonly real: number; readonly fake: number; readonly few: number };
}

/** What a metric may look at. */
export interface Sets {
  readonly real: PictureSet;
  readonly fake: PictureSet;
  /** real pictures through the autoencoder alone, where a run has them */
  readonly autoencoder?: PictureSet;
  /** what trained judges read, where they were asked for */
  readonly judged?: Judged;
  /** of all random draws */
  readonly key: HostKey;
}

/** One number of the page. */
export interface Reading {
  readonly label: string;
  readonly value: number;
  readonly interval?: readonly [low: number, high: number];
  /** what the interval is, or why there is none */
  readonly note?: string;
  /** the same number where nothing is wrong or where it cannot be better: real against real, the autoencoder alone */
  readonly floors?: readonly { readonly label: string; readonly value: number }[];
}

/** Two pictures side by side: places in the fake and in the real set. */
export interface Pair {
  readonly fake: number;
  readonly real: number;
  readonly distance: number;
}

/** What a metric found. */
export interface Found {
  readonly readings: readonly Reading[];
  /** what may not be concluded, one sentence each */
  readonly cautions?: readonly string[];
  readonly pairs?: readonly Pair[];
}

/** A metric of two sets. */
export interface SetMetric {
  /** lower-case word */
  readonly name: string;
  readonly title: string;
  /** one line: what is measured, and which way is better */
  readonly doc: string;
  /** where it is defined */
  readonly source: string;
  /** pictures it needs in each set */
  readonly least: number;
  readonly compute: (sets: Sets) => Found;
}

/** Even and odd pictures of a set: real against real. */
export function halves(features: Features): readonly [Features, Features] {
  return [features.filter((_, i) => i % 2 === 0), features.filter((_, i) => i % 2 === 1)];
}
