/** Do the pictures obey the report? Simple detectors read them back and are compared with what the report says. */

import type { Finding } from '../data/made/phantom-report.ts';
import { toGrey } from '../data/pictures/image-write.ts';
import type { RunSummaryInput } from '../report/summary.ts';
import { filmReader } from './films/detectors.ts';
import { ALWAYS_NORMAL, judgeFilm, type Obedience, scoreFilms } from './films/score.ts';

export interface Obeyed {
  readonly table: NonNullable<RunSummaryInput['obedience']>;
  /** one per adapted picture */
  readonly verdicts: readonly { readonly text: string; readonly right: boolean }[];
}
const questions = (o: Obedience) => [
  { question: 'each lung right', right: o.eachLung.right, n: o.eachLung.of },
  { question: 'side right', right: o.side.right, n: o.side.of },
  { question: 'effusion seen', right: o.hit.effusion.right, n: o.hit.effusion.of },
  { question: 'opacity seen', right: o.hit.opacity.right, n: o.hit.opacity.of },
  { question: 'pneumothorax seen', right: o.hit.pneumothorax.right, n: o.hit.pneumothorax.of },
  { question: 'heart right', right: o.heart.right, n: o.heart.of },
  { question: 'whole report right', right: o.wholeReport.right, n: o.wholeReport.of },
];

/** Rows: what "always normal" would score, the untouched base, the adapted model. */
export function judgePictures(
  told: readonly (readonly Finding[])[],
  pictures: { readonly base: readonly Float32Array[]; readonly adapted: readonly Float32Array[] },
  o: { readonly side: number; readonly method: string; readonly parameters: number; readonly guidance: number },
): Obeyed {
  const reader = filmReader(o.side);
  const readings = (films: readonly Float32Array[]) => films.map((p) => reader(toGrey(p)));
  const [ofBase, ofAdapted] = [readings(pictures.base), readings(pictures.adapted)];
  const score = (read: readonly (typeof ofBase)[number][]) =>
    questions(scoreFilms(told.map((t, i) => ({ told: t, read: read[i]! }))));
  const verdicts = ofAdapted.map((r, i) => {
    const v = judgeFilm(told[i]!, r);
    const wrong = [!v.lungs.right && 'right lung', !v.lungs.left && 'left lung', !v.heart && 'heart'].filter(Boolean);
    return { text: v.whole ? 'as told' : `${wrong.join(', ') || 'size or zone'} wrong`, right: v.whole };
  });
  return {
    table: {
      what: `simple detectors on ${told.length} held-out reports, guidance ${o.guidance}`,
      rows: [
        { method: 'always normal', scores: score(told.map(() => ALWAYS_NORMAL)) },
        { method: 'base', scores: score(ofBase) },
        { method: o.method, parameters: o.parameters, scores: score(ofAdapted) },
      ],
    },
    verdicts,
  };
}
