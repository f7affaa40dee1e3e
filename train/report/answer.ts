/**
 * The answer to the page's question, in words, from the numbers: what is a held-out picture's own report worth to the
 * adapted model, against another picture's? Fixed noise and timesteps make the two losses comparable to the last bit.
 */
import { nearestOf } from '../metrics/nearest.ts';
import { obedienceOf, ownRow } from '../metrics/obedience.ts';
import { bestValidation, type Compared, type RunRecord, trainedParameters, type ValidationRow } from '../run/record.ts';
import { counted, integer, methodName, number, percent } from '../words/format.ts';
import { studentFactor, wilson } from '../words/statistics.ts';

export type Verdict = 'learned' | 'memorised' | 'nothing learned' | 'too few pictures' | 'diverged' | 'unclear';
export interface Answer {
  readonly verdict: Verdict;
  /** sentences in the order of their weight */
  readonly sentences: readonly string[];
}

/** Fewer pictures give an interval that says nothing. */
export const FEWEST_PICTURES = 8;
/** A validation loss this much above its lowest, or above the untouched base's, is not noise. */
const RISE = 1.1;
/** A share of copies that real held-out pictures do not reach (they lie below the threshold in one of a hundred). */
const COPIES = 0.05;

/** A gap between two mean losses with its 95% interval, where the standard error is known. */
interface Gap {
  readonly value: number;
  readonly error?: number;
  readonly low: number;
  readonly high: number;
}

export function gapOf(losses: Pick<ValidationRow, 'loss' | 'shuffled' | 'gapError'>, n: number): Gap | undefined {
  if (losses.shuffled === undefined) return undefined;
  const value = losses.shuffled - losses.loss;
  const error = losses.gapError;
  if (error === undefined || !Number.isFinite(error)) return { value, low: value, high: value };
  const half = error * studentFactor(n - 1);
  return { value, error, low: value - half, high: value + half };
}

/** The validation at the step whose weights the page shows, else the last; of those with exchanged reports. */
export function shownValidation(run: Pick<RunRecord, 'validations' | 'weights'>): ValidationRow | undefined {
  const rows = run.validations.filter((r) => r.shuffled !== undefined);
  return rows.find((r) => r.step === run.weights?.step) ?? rows.at(-1);
}

const said = (gap: Gap): string =>
  `${number(gap.value)}${gap.error === undefined ? '' : ` (95% interval ${number(gap.low)} to ${number(gap.high)})`}`;

/** The step from which on the run went wrong, if it did. */
function divergedAt({ metrics, validations, validation }: RunRecord): { step: number; what: string } | undefined {
  const bad = metrics.find((m) => !Number.isFinite(m.loss));
  if (bad) return { step: bad.step, what: 'the loss is not finite' };
  const base = validation?.base?.loss ?? Number.POSITIVE_INFINITY;
  const last = validations.at(-1);
  if (last === undefined || last.loss <= base * RISE) return undefined;
  return {
    step: last.step,
    what: Number.isFinite(last.loss)
      ? `the validation loss is ${number(last.loss)}, the untouched base’s ${number(base)}`
      : 'the validation loss is not finite',
  };
}

/** Signs that training pictures were learned by heart. */
function memorisedSigns(run: RunRecord): readonly string[] {
  const near = nearestOf(run.results);
  const copies =
    near !== undefined && near.n > 0 && wilson(near.below, near.n)[0] > COPIES
      ? [
          `${integer(near.below)} of ${counted(near.n, 'sample')} lie closer to a training picture than held-out pictures do (${percent(near.below / near.n)}, where 1% is chance)`,
        ]
      : [];
  const [lowest, last] = [bestValidation(run.validations), run.validations.at(-1)];
  const rose =
    lowest !== undefined && last !== undefined && last.loss > lowest.loss * RISE
      ? [
          `the validation loss rose from ${number(lowest.loss)} at step ${integer(lowest.step)} to ${number(last.loss)} at step ${integer(last.step)}`,
        ]
      : [];
  return [...copies, ...rose];
}

/** What the detectors say, on built-in data. */
function obedienceSentence(run: RunRecord): readonly string[] {
  const table = obedienceOf(run);
  const own = ownRow(table, run.method);
  if (table === undefined || own === undefined) return [];
  const share = (row: typeof own | undefined, question: string) => {
    const score = row?.scores.find((s) => s.question === question);
    return score === undefined ? undefined : `${integer(score.right)} of ${integer(score.n)}`;
  };
  const row = (method: string) => table.rows.find((r) => r.method === method);
  const lungs = share(own, 'each lung right');
  if (lungs === undefined) return [];
  const others = [
    ['always normal', 'drawing every film normal'],
    ['real films', 'the real films'],
  ].flatMap(([method, label]) => {
    const theirs = share(row(method!), 'each lung right');
    return theirs === undefined ? [] : [`${label} ${theirs}`];
  });
  const whole = share(own, 'whole report right');
  return [
    `Detectors read ${lungs} lungs as told${others.length > 0 ? ` (${others.join(', ')})` : ''}${whole === undefined ? '' : `, the whole report in ${whole} pictures`}.`,
  ];
}

/** This run's gap against another's, both at their lowest loss. */
function againstSentence(run: RunRecord, own: Gap, n: number, other: Compared): readonly string[] {
  const rows = other.validations.filter((r) => r.shuffled !== undefined);
  const lowest = bestValidation(rows);
  const theirs = lowest && gapOf(rows.find((r) => r.step === lowest.step)!, n);
  if (theirs === undefined) return [];
  const size = (parameters: number | undefined) =>
    parameters === undefined ? '' : ` with ${integer(parameters)} parameters`;
  const apart = own.value - theirs.value;
  const noise = Math.hypot(own.error ?? 0, theirs.error ?? own.error ?? 0) * studentFactor(n - 1);
  const verdict =
    own.error !== undefined && Math.abs(apart) <= noise
      ? 'no difference beyond noise'
      : apart > 0
        ? 'more is learned here'
        : apart < 0
          ? 'less is learned here'
          : 'the same';
  return [
    `Against ${methodName(other.label)}${size(other.parameters)}: its gap is ${number(theirs.value)}, this one’s ${number(own.value)}${size(trainedParameters(run))}; ${verdict}.`,
  ];
}

/** Undefined where the run has no validation with exchanged reports, nor anything that went wrong. */
export function answerOf(run: RunRecord): Answer | undefined {
  const diverged = divergedAt(run);
  const shown = shownValidation(run);
  const n = run.validation?.n ?? 0;
  const gap = shown && gapOf(shown, n);
  if (diverged) {
    const best = bestValidation(run.validations);
    return {
      verdict: 'diverged',
      sentences: [
        `No: the run diverged, at step ${integer(diverged.step)} ${diverged.what}. Lower --lr or use --clip.`,
        ...(best ? [`Its lowest validation loss was ${number(best.loss)} at step ${integer(best.step)}.`] : []),
      ],
    };
  }
  if (shown === undefined || gap === undefined) return undefined;
  const detectors = obedienceSentence(run);
  if (n > 0 && n < FEWEST_PICTURES)
    return {
      verdict: 'too few pictures',
      sentences: [
        `It cannot be told: ${counted(n, 'validation picture')} ${n === 1 ? 'is' : 'are'} too few, at least ${FEWEST_PICTURES} are needed. Give more pictures, or a larger part to --split.`,
        ...detectors,
      ],
    };
  const base = run.validation?.base && gapOf(run.validation.base, n);
  const from = base === undefined ? '' : `, of the untouched base ${said(base)}`;
  const pictures = n > 0 ? ` on ${counted(n, 'held-out picture')}` : '';
  const measured = `Exchanged reports cost a loss of ${said(gap)} more than true ones${pictures}${from}.`;
  const others = run.compared.flatMap((other) => againstSentence(run, gap, n, other));
  const signs = memorisedSigns(run);
  if (signs.length > 0)
    return {
      verdict: 'memorised',
      sentences: [`It learned training pictures by heart: ${signs.join('; ')}.`, measured, ...detectors, ...others],
    };
  // The base's words may be worth something already: only what was gained on it was learned.
  const gained = gap.value - (base?.value ?? 0);
  const noise = Math.hypot(gap.error ?? 0, base?.error ?? 0) * studentFactor(n - 1);
  if (gap.error === undefined)
    return {
      verdict: 'unclear',
      sentences: [
        `${measured} Without an interval it cannot be told whether that is more than noise.`,
        ...detectors,
        ...others,
      ],
    };
  if (gap.low > 0 && gained > noise)
    return { verdict: 'learned', sentences: [`Yes, beyond noise. ${measured}`, ...detectors, ...others] };
  const untouched = run.validation?.base;
  const same = untouched !== undefined && Math.abs(shown.loss / untouched.loss - 1) < 0.01;
  return {
    verdict: 'nothing learned',
    sentences: [
      `No: the reports make no difference beyond noise${gap.low > 0 ? ' against the untouched base, whose own gap is only known so well' : ''}. ${measured}`,
      ...(same ? ['The loss itself is the untouched base’s to within 1%: raise --lr, or train longer.'] : []),
      ...detectors,
      ...others,
    ],
  };
}
