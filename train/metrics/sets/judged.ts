/** What trained judges read: do fakes show what their reports say, and can one learn from them? */
import { randomOf } from '../../../core/index.ts';
import { foldKey, type HostKey } from '../../../selora/adapter.ts';
import { auc } from '../measures/auc.ts';
import type { Reading, SetMetric } from './metric.ts';

type Rows<T> = readonly (readonly T[])[];

/** The mean over words of the area under the curve, of the words that some reports have and others have not. */
export function meanAuc(
  scores: Rows<number>,
  truth: Rows<boolean>,
  at: readonly number[] = [...scores.keys()],
): number {
  const words = truth[0]?.map((_, w) => w) ?? [];
  const each = words.flatMap((w) => auc(at.map((i) => scores[i]![w]!), at.map((i) => truth[i]![w]!)) ?? []); // biome-ignore format: one line
  return each.length === 0 ? Number.NaN : each.reduce((a, b) => a + b, 0) / each.length;
}

/** pictures drawn anew for an interval */
const RESAMPLES = 500;
function reading(label: string, scores: Rows<number>, truth: Rows<boolean>, key: HostKey): Reading {
  const n = scores.length;
  const found = Array.from({ length: RESAMPLES }, (_, k) => {
    const random = randomOf(foldKey(key, 'judged', label, k));
    return meanAuc(
      scores,
      truth,
      Array.from({ length: n }, () => random.int(n)),
    );
  })
    .filter(Number.isFinite)
    .sort((a, b) => a - b);
  const at = (share: number) => found[Math.min(found.length - 1, Math.floor(share * found.length))]!;
  return {
    label,
    value: meanAuc(scores, truth),
    ...(found.length > 0 ? { interval: [at(0.025), at(0.975)] as const } : {}),
    note: `95%, bootstrap over the ${n} pictures that are read; the judge itself is one draw`,
  };
}

export const judged: SetMetric = {
  name: 'judged',
  title: 'A trained judge',
  doc: 'mean area under the curve over words of the reports: 1 is always right, ½ is chance; higher is better, and none can be above real films',
  source:
    'this repository; train on synthetic, test on real: Esteban et al., Real-valued Time Series Generation with Recurrent Conditional GANs (2017)',
  least: 8,
  compute({ judged: found, key }) {
    if (found === undefined) return { readings: [] };
    const { ofReal, ofFake, ofFewReal, truth, learned, words } = found;
    if (words.length === 0)
      return {
        readings: [],
        cautions: ['No word stands in 10 to 90% of the real reports: there is nothing to ask a judge.'],
      };
    const read = (label: string, scores: Rows<number>, of: Rows<boolean>) => reading(label, scores, of, key);
    const floor = (label: string, scores: Rows<number>) => [{ label, value: meanAuc(scores, truth.real) }];
    return {
      readings: [
        {
          ...read('learned from real pictures, reads fakes', ofReal.fake, truth.fake),
          floors: floor(
            `it reads real pictures (learned from ${learned.real}, ${truth.real.length} others)`,
            ofReal.real,
          ),
        },
        {
          ...read(`learned from ${learned.fake} fakes, reads real pictures`, ofFake, truth.real),
          floors: floor(`learned from ${learned.few} real pictures`, ofFewReal),
        },
      ],
      cautions: [
        `The judge was asked for the words ${words.join(', ')}. It is a small network that sees 32×32 cells of grey: what is finer it cannot see.`,
        ...(Math.min(learned.real, learned.fake) < 100
          ? [
              `Judges that learned from ${Math.min(learned.real, learned.fake)} pictures know little: only large differences mean something.`,
            ]
          : []),
      ],
    };
  },
};
