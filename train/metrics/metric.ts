/** A metric: one number or table that says how good the pictures of a run are. One file here and one line in `index.ts`. */
import type { z } from 'zod';
import type { Json } from '../../models/io/json.ts';
import type { Finding } from '../data/made/phantom-report.ts';
import type { AnyPanel } from '../report/panel.ts';

/** A held-out report; `findings`: what a built-in one means, for the detectors. */
export interface Report {
  readonly text: string;
  readonly findings?: readonly Finding[];
}

/** Pictures RGB [side, side, 3] in [−1, 1]. */
export type Pictures = readonly Float32Array[];

/** What a metric may look at. Picture i of `real`, `autoencoder`, `base` and `adapted` belongs to report i. */
export interface Material {
  readonly side: number;
  readonly reports: readonly Report[];
  readonly real: Pictures;
  /** the real ones through the frozen autoencoder: no model can draw them better */
  readonly autoencoder: Pictures;
  /** the untouched base's and the adapted model's, from the same noise */
  readonly base: Pictures;
  readonly adapted: Pictures;
  /** all training pictures, read when asked for */
  readonly training: readonly { readonly pixels: () => Promise<Float32Array> }[];
  /** vectors of pictures by a network (for FID, KID, CLIP score); missing where none is given */
  readonly features?: (pictures: Pictures) => Promise<readonly Float32Array[]>;
  /** method and size of the adapter, and how the pictures were drawn */
  readonly method: string;
  readonly parameters: number;
  readonly guidance: number;
  /** Keeps a picture in the run's folder and tells its file. */
  readonly keep: (name: string, pixels: Float32Array) => Promise<string>;
}

/** What a metric needs, and how much of it at least. */
export type Need = 'reports' | 'findings' | 'real' | 'autoencoder' | 'base' | 'adapted' | 'training' | 'features';

/** What was read off one picture: shown below it. */
export interface Reading {
  readonly report: number;
  readonly picture: 'real' | 'autoencoder' | 'base' | 'adapted';
  readonly text: string;
  readonly right?: boolean;
}

export interface Metric<R = unknown> {
  /** `obedience`: its result is `obedience.json` in the run's folder */
  readonly name: string;
  /** one line: what is measured */
  readonly doc: string;
  /** where it is defined: paper and equation, or this repository */
  readonly source: string;
  readonly needs: Readonly<Partial<Record<Need, number>>>;
  /** the form of the result */
  readonly result: z.ZodType<R>;
  readonly compute: (material: Material) => R | Promise<R>;
  /** What was read off single pictures. */
  readonly readings?: (result: R) => readonly Reading[];
  /** Lines for the terminal. */
  readonly lines?: (result: R) => readonly string[];
  readonly panel: AnyPanel;
}

/** A metric whose result nobody outside knows the form of. */
export interface AnyMetric extends Pick<Metric, 'name' | 'doc' | 'source' | 'needs' | 'panel'> {
  readonly compute: (material: Material) => Promise<Json>;
  readonly readings: (result: Json | undefined) => readonly Reading[];
  readonly lines: (result: Json) => readonly string[];
}

/** Closes a metric over the form of its result. */
export function defineMetric<R>(metric: Metric<R>): AnyMetric {
  const { compute, readings, lines, result, ...rest } = metric;
  const read = (value: Json | undefined): R | undefined => result.safeParse(value).data;
  return {
    ...rest,
    compute: async (material) => (await compute(material)) as Json,
    readings: (value) => {
      const known = read(value);
      return known === undefined ? [] : (readings?.(known) ?? []);
    },
    lines: (value) => lines?.(result.parse(value)) ?? [],
  };
}

/** How much there is of each need. */
const have = (m: Material): Readonly<Record<Need, number>> => ({
  reports: m.reports.length,
  findings: m.reports.filter((r) => r.findings !== undefined).length,
  real: m.real.length,
  autoencoder: m.autoencoder.length,
  base: m.base.length,
  adapted: m.adapted.length,
  training: m.training.length,
  features: m.features ? 1 : 0,
});

/** What a metric lacks: `real: 3 of 50`; undefined where it can be computed. */
export function lacking({ needs }: Pick<Metric, 'needs'>, material: Material): string | undefined {
  const there = have(material);
  const short = (Object.entries(needs) as [Need, number][]).filter(([need, n]) => there[need] < n);
  return short.length === 0 ? undefined : short.map(([need, n]) => `${need}: ${there[need]} of ${n}`).join(', ');
}
