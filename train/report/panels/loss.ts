/** Training and validation loss, and what the words are worth: the gap between true and exchanged reports. */
import { nameOfRun } from '../../run/name.ts';
import { bestValidation, type RunRecord } from '../../run/record.ts';
import { counted, integer, methodName, number, percent } from '../../words/format.ts';
import { gapOf, shownValidation } from '../answer.ts';
import { lossCurve, shuffledCurve, timestepCurve } from '../charts/curves.ts';
import { chart, definePanel, type Headline, parts } from '../panel.ts';

function validationHeadline(run: RunRecord): readonly Headline[] {
  const lowest = bestValidation(run.validations);
  if (lowest === undefined) return [];
  const base = run.validation?.base?.loss;
  const others = run.compared.flatMap((c) => {
    const b = bestValidation(c.validations);
    return b === undefined ? [] : [`${c.label} ${number(b.loss)}`];
  });
  const change =
    base === undefined ? '' : `${percent(lowest.loss / base - 1).replace('-', '−')} against the untouched base; `;
  const n = run.validation === undefined ? '' : `, n = ${integer(run.validation.n)}`;
  return [
    {
      place: 0,
      label: 'Validation loss',
      value: base === undefined ? number(lowest.loss) : `${number(base)} → ${number(lowest.loss)}`,
      note: `${change}best at step ${integer(lowest.step)}${n}${others.length > 0 ? `; ${others.join(', ')}` : ''}`,
    },
  ];
}

/** Which step's weights the page shows. */
function weightsHeadline({ weights: w, unfinished }: RunRecord): readonly Headline[] {
  if (unfinished)
    return [
      {
        place: -1,
        label: 'Step',
        value: `${integer(unfinished.step)} of ${integer(unfinished.of)}`,
        note: 'not finished: pictures and what is read off them come at the end',
      },
    ];
  if (w === undefined) return [];
  const [value, all] = [integer(w.step), integer(w.of)];
  const common = { place: 10, label: 'Weights of step', value };
  if (w.step === w.of) return [{ ...common, note: 'the last' }];
  const note = w.name === 'best' ? `of ${all}: the best validated; the last are in last.safetensors` : `of ${all}`;
  return [{ ...common, note }];
}

function gapHeadline(run: RunRecord): readonly Headline[] {
  const last = shownValidation(run);
  if (last === undefined) return [];
  const base = run.validation?.base;
  const before = base?.shuffled === undefined ? '' : `; untouched base ${number(base.shuffled - base.loss)}`;
  return [
    {
      place: 30,
      label: 'Loss gap, shuffled − true report',
      value: number(last.shuffled! - last.loss),
      note: `step ${integer(last.step)}: ${number(last.shuffled!)} − ${number(last.loss)}${before}. 0 = the words are ignored`,
    },
  ];
}

function lossWarnings(run: RunRecord): readonly string[] {
  const bad = run.metrics.filter((m) => !Number.isFinite(m.loss));
  const notFinite =
    bad.length === 0
      ? []
      : [`The loss was not finite at ${counted(bad.length, 'step')}, first at step ${bad[0]!.step}.`];
  const base = run.validation?.base?.loss;
  const shown = shownValidation(run);
  const same = base !== undefined && shown !== undefined && Math.abs(shown.loss / base - 1) < 0.005;
  const n = run.validation?.n ?? 0;
  const gap = shown && gapOf(shown, n);
  const inNoise = gap?.error !== undefined && gap.low <= 0 && gap.high >= 0 && Number.isFinite(gap.high);
  return [
    ...notFinite,
    ...(inNoise
      ? [
          `The gap between exchanged and true reports, ${number(gap.value)}, lies inside its noise (95% interval ${number(gap.low)} to ${number(gap.high)}, ${counted(n, 'picture')}): it may be chance.`,
        ]
      : []),
    ...(same
      ? ['The adapted model’s loss is the untouched base’s to within half a percent: both draw the same. Raise --lr.']
      : []),
  ];
}

/** Says plainly, for each other run, whether this one's loss is lower. */
function lossSentences(run: RunRecord): readonly string[] {
  const lowest = bestValidation(run.validations);
  const name = nameOfRun(run);
  return run.compared.flatMap((c) => {
    const other = bestValidation(c.validations);
    if (lowest === undefined || other === undefined) return [];
    const verdict = lowest.loss < other.loss ? 'better' : lowest.loss > other.loss ? 'not better' : 'level';
    const both = `${name} ${number(lowest.loss, 4)}, ${methodName(c.label)} ${number(other.loss, 4)}`;
    return [`Lowest validation loss: ${both}. ${name} is ${verdict}.`];
  });
}

export const loss = definePanel<RunRecord>({
  id: 'loss',
  title: 'Loss',
  data: (run) => (run.metrics.length + run.validations.length === 0 ? undefined : run),
  draw: (run) => {
    const charts = { loss: lossCurve(run), shuffled: shuffledCurve(run), timesteps: timestepCurve(run) };
    return { body: parts([chart(charts.loss), chart(charts.shuffled), chart(charts.timesteps)]), charts };
  },
  headlines: (run) => [...validationHeadline(run), ...weightsHeadline(run), ...gapHeadline(run)],
  sentences: lossSentences,
  warnings: lossWarnings,
});
