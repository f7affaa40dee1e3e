/** What is compared between runs: one row each, read from a run's own records. */
import { max, mean } from 'd3-array';
import { obedienceOf, ownRow } from '../metrics/obedience.ts';
import { shownValidation } from '../report/answer.ts';
import { bestValidation, type RunRecord, trainedParameters } from '../run/record.ts';

/** A number of a run. */
export type Measure = {
  /** one word, for files */
  readonly id: string;
  /** name and unit */
  readonly label: string;
  /** which way is better; absent: it is no judgement */
  readonly better?: 'lower' | 'higher';
  /** undefined where the run does not have it */
  readonly of: (run: RunRecord) => number | undefined;
};

/** the row of the run's own method among what its metric counted */
const counted = (run: RunRecord) => ownRow(obedienceOf(run), run.method);
const share = (x: { readonly right: number; readonly n: number } | undefined) =>
  x === undefined || x.n === 0 ? undefined : x.right / x.n;
const answer = (question: string) => (run: RunRecord) =>
  share(counted(run)?.scores.find((s) => s.question === question));
const averaged = (side: 'sensitivity' | 'specificity') => (run: RunRecord) => {
  const all = (counted(run)?.findings ?? []).map((f) => f[side]);
  return share({ right: all.reduce((n, s) => n + s.right, 0), n: all.reduce((n, s) => n + s.n, 0) });
};
const finite = (x: number | undefined) => (x !== undefined && Number.isFinite(x) ? x : undefined);

/** All of them, in the order of tables. */
export const MEASURES: readonly Measure[] = [
  {
    id: 'loss',
    label: 'validation loss',
    better: 'lower',
    of: (run) =>
      finite(run.validations.find((v) => v.step === run.weights?.step)?.loss ?? bestValidation(run.validations)?.loss),
  },
  {
    id: 'gap',
    label: 'gap to exchanged reports',
    better: 'higher',
    of: (run) => {
      const v = shownValidation(run);
      return v?.shuffled === undefined ? undefined : finite(v.shuffled - v.loss);
    },
  },
  { id: 'lungs', label: 'each lung right', better: 'higher', of: answer('each lung right') },
  { id: 'side', label: 'side right', better: 'higher', of: answer('side right') },
  { id: 'sensitivity', label: 'findings seen (sensitivity)', better: 'higher', of: averaged('sensitivity') },
  { id: 'specificity', label: 'no false alarm (specificity)', better: 'higher', of: averaged('specificity') },
  { id: 'report', label: 'whole report right', better: 'higher', of: answer('whole report right') },
  { id: 'parameters', label: 'trained parameters', of: trainedParameters },
  { id: 'rank', label: 'total rank', of: (run) => run.modules.reduce((n, m) => n + m.rank, 0) },
  {
    id: 'used',
    label: 'used rank (participation)',
    of: (run) =>
      run.modules.every((m) => m.used === undefined) ? undefined : run.modules.reduce((n, m) => n + (m.used ?? 0), 0),
  },
  { id: 'seconds', label: 'seconds', of: (run) => run.seconds },
  {
    id: 'memory-mean',
    label: 'memory on average, MiB',
    of: (run) => finite((mean(run.metrics, (m) => m.memory) ?? Number.NaN) / 2 ** 20),
  },
  {
    id: 'memory',
    label: 'memory at most, MiB',
    of: (run) => finite((max(run.metrics, (m) => m.memory) ?? Number.NaN) / 2 ** 20),
  },
];
