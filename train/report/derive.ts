/**
 * Sentences and figures that follow from the data, so that the head of the page cannot contradict its tables.
 */
import { counted, duration, integer, methodName, number, percent } from '../words/format.ts';
import { difference, type ModuleHistory, mean } from './history.ts';
import type { Fact, RunSummary } from './summary.ts';

/** The row of the obedience table that belongs to this run's own method. */
function ownScores(s: RunSummary): NonNullable<RunSummary['obedience']>['rows'][number] | undefined {
  return s.obedience?.rows.find((r) => r.method.toLowerCase() === s.method.toLowerCase());
}

/** Lowest finite validation loss and its step. */
export function best(
  rows: ReadonlyArray<{ readonly step: number; readonly loss: number }>,
): { step: number; loss: number } | undefined {
  const finite = rows.filter((r) => Number.isFinite(r.loss));
  return finite.length === 0 ? undefined : finite.reduce((a, b) => (b.loss < a.loss ? b : a));
}

function validationFact(s: RunSummary): readonly Fact[] {
  const lowest = best(s.validation?.rows ?? []);
  if (s.validation === undefined || lowest === undefined) return [];
  const base = s.validation.base?.loss;
  const others = s.comparisons.flatMap((c) => {
    const b = best(c.validation);
    return b === undefined ? [] : [`${c.method} ${number(b.loss)}`];
  });
  const change =
    base === undefined ? '' : `${percent(lowest.loss / base - 1).replace('-', '−')} against the untouched base; `;
  return [
    {
      label: 'Validation loss',
      value: base === undefined ? number(lowest.loss) : `${number(base)} → ${number(lowest.loss)}`,
      note: `${change}best at step ${integer(lowest.step)}, n = ${integer(s.validation.n)}${others.length > 0 ? `; ${others.join(', ')}` : ''}`,
    },
  ];
}

function obedienceFact(s: RunSummary): readonly Fact[] {
  const own = ownScores(s);
  const score = own?.scores[0];
  if (own === undefined || score === undefined) return [];
  const others = s.obedience!.rows.flatMap((r) => {
    const same = r === own ? undefined : r.scores.find((x) => x.question === score.question);
    return same === undefined ? [] : [`${r.method} ${percent(same.right / same.n)}`];
  });
  return [
    {
      label: `Obeys the report: ${score.question}`,
      value: `${integer(score.right)} of ${integer(score.n)}`,
      note: `${percent(score.right / score.n)}${others.length > 0 ? `; ${others.join(', ')}` : ''}`,
    },
  ];
}

/** Which step's weights the page shows. */
function weightsFact({ weights: w }: RunSummary): readonly Fact[] {
  if (w === undefined) return [];
  const [value, all] = [integer(w.step), integer(w.of)];
  if (w.step === w.of) return [{ label: 'Weights of step', value, note: 'the last' }];
  const note = w.name === 'best' ? `of ${all}: the best validated; the last are in last.safetensors` : `of ${all}`;
  return [{ label: 'Weights of step', value, note }];
}

/** At the step whose weights the page shows, else at the last. */
function gapFact(s: RunSummary): readonly Fact[] {
  const rows = (s.validation?.rows ?? []).filter((r) => r.shuffled !== undefined);
  const last = rows.find((r) => r.step === s.weights?.step) ?? rows.at(-1);
  if (last === undefined) return [];
  const gap = last.shuffled! - last.loss;
  const base = s.validation!.base;
  const before = base?.shuffled === undefined ? '' : `; untouched base ${number(base.shuffled - base.loss)}`;
  return [
    {
      label: 'Loss gap, shuffled − true report',
      value: number(gap),
      note: `step ${integer(last.step)}: ${number(last.shuffled!)} − ${number(last.loss)}${before}. 0 = the words are ignored`,
    },
  ];
}

function rankFact(histories: readonly ModuleHistory[]): readonly Fact[] {
  if (histories.length === 0) return [];
  const sum = (pick: (h: ModuleHistory) => number): number => histories.reduce((t, h) => t + pick(h), 0);
  const [start, end] = [sum((h) => h.start), sum((h) => h.rank)];
  return [
    {
      label: 'Total rank',
      value: start === end ? integer(end) : `${integer(start)} → ${integer(end)}`,
      note: `mean ${mean(histories.map((h) => h.rank)).toFixed(2)} over ${counted(histories.length, 'module')}, largest ${histories.reduce((m, h) => Math.max(m, h.rank), 0)}`,
    },
  ];
}

function costFact(s: RunSummary): readonly Fact[] {
  const last = s.metrics.at(-1);
  const seconds = s.seconds ?? last?.seconds;
  if (seconds === undefined) return [];
  const speed = last?.seconds ? `${number(s.metrics.length / last.seconds)} steps/s` : '';
  return [
    {
      label: 'Time',
      value: duration(seconds),
      note: [counted(s.metrics.length, 'step'), speed].filter(Boolean).join(', '),
    },
  ];
}

/** Trained parameters: Σ rank · (d_in + d_out); undefined where a size is unknown. */
export function trainedParameters(s: Pick<RunSummary, 'modules'>): number | undefined {
  const sizes = s.modules.map((m) =>
    m.dIn === undefined || m.dOut === undefined ? Number.NaN : m.rank * (m.dIn + m.dOut),
  );
  const total = sizes.reduce((a, b) => a + b, 0);
  return sizes.length === 0 || Number.isNaN(total) ? undefined : total;
}

/** The headline numbers, those of the caller last. */
export function headlines(s: RunSummary, histories: readonly ModuleHistory[]): readonly Fact[] {
  const parameters = trainedParameters(s);
  const size: Fact[] = parameters === undefined ? [] : [{ label: 'Trained parameters', value: integer(parameters) }];
  return [
    ...validationFact(s),
    ...weightsFact(s),
    ...obedienceFact(s),
    ...gapFact(s),
    ...rankFact(histories),
    ...size,
    ...costFact(s),
    ...s.headlines,
  ];
}

/** `better`, `not better` or `level`, and whether the difference of two shares is within chance. */
function judge(
  a: { readonly right: number; readonly n: number },
  b: { readonly right: number; readonly n: number },
): string {
  const [low, high] = difference(a.right, a.n, b.right, b.n);
  if (low > 0) return 'better';
  if (high < 0) return 'worse';
  const sign = Math.sign(a.right / a.n - b.right / b.n);
  return `${sign > 0 ? 'higher' : sign < 0 ? 'lower' : 'level'}, a difference within chance`;
}

/** Says plainly, for each other method, whether this run's method did better: one sentence per shared score. */
export function comparisonSentences(s: RunSummary): readonly string[] {
  const name = methodName(s.method);
  const own = ownScores(s);
  const score = own?.scores[0];
  const drawn = (s.obedience?.rows ?? []).flatMap((r) => {
    const other = r === own ? undefined : r.scores.find((x) => x.question === score?.question);
    if (score === undefined || other === undefined || other.n === 0 || score.n === 0) return [];
    const shares = `${name} ${score.right} of ${score.n}, ${methodName(r.method)} ${other.right} of ${other.n}`;
    return [`${sentenceCase(score.question)}: ${shares}. ${name} is ${judge(score, other)}.`];
  });
  const lowest = best(s.validation?.rows ?? []);
  const losses = s.comparisons.flatMap((c) => {
    const other = best(c.validation);
    if (lowest === undefined || other === undefined) return [];
    const verdict = lowest.loss < other.loss ? 'better' : lowest.loss > other.loss ? 'not better' : 'level';
    const both = `${name} ${number(lowest.loss, 4)}, ${methodName(c.method)} ${number(other.loss, 4)}`;
    return [`Lowest validation loss: ${both}. ${name} is ${verdict}.`];
  });
  return [...drawn, ...losses];
}

const sentenceCase = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

/** The caller's warnings and those the data itself gives rise to, each once. */
export function warnings(s: RunSummary): readonly string[] {
  const changes = s.modules.map((m) => m.change).filter((c) => c !== undefined);
  const bad = s.metrics.filter((m) => !Number.isFinite(m.loss));
  const cut = (s.data?.splits ?? []).reduce((sum, x) => sum + (x.cut ?? 0), 0);
  const images = (s.data?.splits ?? []).reduce((sum, x) => sum + x.images, 0);
  const tested = s.expansions.length > 0;
  const lastStep = s.metrics.at(-1)?.step ?? 0;
  const untested = !tested && s.testEvery !== undefined && lastStep > 0;
  const found: readonly (string | false)[] = [
    changes.length > 0 && changes.every((c) => !(c > 0)) && 'Nothing was adapted: ΔW is zero in every module.',
    bad.length > 0 && `The loss was not finite at ${counted(bad.length, 'step')}, first at step ${bad[0]!.step}.`,
    cut > 0 &&
      `${integer(cut)} of ${counted(images, 'caption')} ${cut === 1 ? 'is' : 'are'} longer than ${s.data!.limit} ids and ${cut === 1 ? 'was' : 'were'} cut: the model never saw the end.`,
    (s.data?.duplicates ?? 0) > 0 && `${counted(s.data!.duplicates!, 'duplicate picture')} in the data.`,
    tested &&
      s.expansions.every((e) => !e.expanded) &&
      'No module ever grew: the FI ratio stayed at or below λ in every test.',
    untested &&
      (lastStep > s.testEvery!
        ? `No expansion test was made in ${integer(lastStep)} steps although one was due every ${s.testEvery}.`
        : `No expansion test was made: ${counted(lastStep, 'step')}, one test every ${s.testEvery}, none at the last. All ranks are as they began.`),
    s.memorisation !== undefined &&
      s.memorisation.below > 0 &&
      `${s.memorisation.below} of ${counted(s.memorisation.n, 'sample')} lie closer to a training picture than held-out films do.`,
  ];
  return [...new Set([...s.warnings, ...found.filter((w) => w !== false)])];
}
