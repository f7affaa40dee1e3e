/** CLIP score: do pictures go with their texts? */
import { meanWithError, studentFactor } from '../../words/statistics.ts';
import { type ClipScore, clipScore } from '../measures/clip-score.ts';
import type { Features } from '../measures/frechet.ts';
import type { Reading, SetMetric, TextPairs } from './metric.ts';

/** With each picture the text of the next one that has another text; undefined where all have one and the same. */
export function otherTexts({ texts, vectors }: TextPairs): Features | undefined {
  const n = texts.length;
  const others = texts.map((text, i) => {
    for (let step = 1; step < n; step++) if (texts[(i + step) % n] !== text) return vectors.texts[(i + step) % n]!;
    return undefined;
  });
  return others.every((v) => v !== undefined) ? others : undefined;
}

const scoreOf = ({ vectors }: TextPairs): ClipScore => clipScore(vectors.pictures, vectors.texts);
const meanOf = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

/** Mean cosine of pairs, with Student's interval. */
function reading(label: string, pairs: readonly number[], note: string): Reading {
  const { mean, error } = meanWithError(pairs);
  const half = error * studentFactor(pairs.length - 1);
  return {
    label,
    value: mean,
    ...(Number.isFinite(half) ? { interval: [mean - half, mean + half] as const } : {}),
    note: `95% of a mean over ${pairs.length} pairs${note}`,
  };
}

export const agreement: SetMetric = {
  name: 'agreement',
  title: 'CLIP score',
  doc: 'cosine of a picture’s and its text’s vectors by CLIP; higher is better, and above that of other texts where the text is drawn at all',
  source: 'Hessel et al., CLIPScore (2021); torchmetrics for the form with 100',
  least: 1,
  compute({ real, fake }) {
    if (fake.pairs === undefined) return { readings: [] };
    const score = scoreOf(fake.pairs);
    const others = otherTexts(fake.pairs);
    const apart = others && clipScore(fake.pairs.vectors.pictures, others).pairs;
    const own = real.pairs && scoreOf(real.pairs);
    const floors = [
      ...(apart ? [{ label: 'the same pictures with other texts of the set', value: meanOf(apart) }] : []),
      ...(own ? [{ label: 'real pictures with their own texts', value: meanOf(own.pairs) }] : []),
    ];
    const readings = [
      { ...reading('100·cosine', score.pairs, ', none clamped'), floors },
      ...(apart
        ? [
            reading(
              '100·cosine above other texts',
              score.pairs.map((x, i) => x - apart[i]!),
              '; around 0: by CLIP the pictures do not tell one text from another',
            ),
          ]
        : []),
      { label: 'CLIP score, each pair clamped at 0', value: score.hundred, note: 'torchmetrics; up to 100' },
      { label: 'CLIP score, mean clamped at 0', value: score.meanFirst, note: 'torchmetrics of other versions' },
      { label: 'CLIPScore', value: score.hessel, note: 'Hessel et al.: 2.5·max(cos, 0), up to 2.5' },
    ];
    const cautions = [
      ...(others ? [] : ['All fakes have one text: whether CLIP tells it from others cannot be said.']),
      ...textCautions('fake', fake.pairs),
      ...(real.pairs ? textCautions('real', real.pairs) : []),
      'CLIP learned from captions of photographs: of findings in films it knows little. Its score says whether a picture looks like what the text is about, not whether the findings are right.',
    ];
    return { readings, cautions };
  },
};

function textCautions(name: string, { without, cut }: TextPairs): readonly string[] {
  return [
    ...(without > 0 ? [`${without} ${name} pictures have no text: CLIP score is of the others.`] : []),
    ...(cut > 0 ? [`${cut} texts of ${name} pictures are longer than CLIP reads: it saw their beginnings.`] : []),
  ];
}
