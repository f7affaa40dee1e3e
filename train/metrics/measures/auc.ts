/** Area under the receiver operating characteristic. */
import { ranksOf } from '../../words/statistics.ts';

/**
 * The chance that a positive one has a higher score than a negative one, ties counted by half; undefined where one kind is
 * missing. AUC = (R₊ − n₊(n₊ + 1)/2)/(n₊·n₋), R₊ the sum of the positives' ranks.
 * @example auc([0.9, 0.4, 0.6], [true, false, false]) // 1
 * Source: Hanley and McNeil, The Meaning and Use of the Area under a ROC Curve (1982).
 */
export function auc(scores: readonly number[], positive: readonly boolean[]): number | undefined {
  const ranks = ranksOf(scores);
  const [yes, sum] = ranks.reduce(([n, s], r, i) => (positive[i] ? [n + 1, s + r] : [n, s]), [0, 0]);
  const no = scores.length - yes;
  return yes === 0 || no === 0 ? undefined : (sum - (yes * (yes + 1)) / 2) / (yes * no);
}
