/** How the adapters grew: total rank, which kinds of layer expanded when, and the FI ratios. */
import type { RunRecord } from '../../run/record.ts';
import { counted, integer, percent } from '../../words/format.ts';
import { rankCurve, ratioCurve } from '../charts/curves.ts';
import { gainAgainstBrought } from '../charts/scatter.ts';
import { expansionTimeline, rankHistoryMap } from '../charts/timelines.ts';
import { lastStepOf, moduleHistories } from '../history.ts';
import { html, type Markup } from '../html.ts';
import { chart, definePanel, parts, tableFrame } from '../panel.ts';

/** Samples shown of those that ranks were given for. */
const ASKED = 8;

/** The samples that ranks were given for by gain, a report at a timestep each: those with the largest parts. */
function askedTable(run: RunRecord): Markup | undefined {
  const all = run.metrics.flatMap(({ step, asked }) => (asked ?? []).map((sample) => ({ step, ...sample })));
  const sum = all.reduce((total, { part }) => total + part, 0);
  if (!(sum > 0)) return undefined;
  const rows = [...all]
    .sort((a, b) => b.part - a.part)
    .slice(0, ASKED)
    .map(
      ({ step, report, t, part }) =>
        html`<tr><td>${report}</td><td class="n">${integer(t)}</td><td class="n">${integer(step)}</td><td class="n">${percent(part / sum)}</td></tr>`,
    );
  const label = `Who asked for the ranks: of ${counted(all.length, 'sample')} of the tests those with the largest part of the expected gain`;
  return tableFrame(
    html`<table><caption>${label}</caption><thead><tr><th scope="col">report</th><th scope="col" class="n">timestep</th><th scope="col" class="n">test at step</th><th scope="col" class="n">part of the gain</th></tr></thead><tbody>${rows}</tbody></table>`,
    'Who asked for the ranks',
  );
}

function growthWarnings(run: RunRecord): readonly string[] {
  if (run.expansions.length > 0)
    return run.expansions.every((e) => !e.expanded)
      ? [
          run.expansions.some((e) => e.gain !== undefined)
            ? 'No module ever grew: no direction was expected to bring anything, or the budget was in use.'
            : 'No module ever grew: the FI ratio stayed at or below λ in every test.',
        ]
      : [];
  const last = run.metrics.at(-1)?.step ?? 0;
  if (run.testEvery === undefined || last === 0) return [];
  return [
    last > run.testEvery
      ? `No expansion test was made in ${integer(last)} steps although one was due every ${run.testEvery}.`
      : `No expansion test was made: ${counted(last, 'step')}, one test every ${run.testEvery}, none at the last. All ranks are as they began.`,
  ];
}

export const growth = definePanel<RunRecord>({
  id: 'growth',
  title: 'How it grew',
  data: (run) => (run.modules.length + run.expansions.length === 0 ? undefined : run),
  draw: (run) => {
    const [histories, last] = [moduleHistories(run), lastStepOf(run)];
    const charts = {
      'rank-total': rankCurve(histories, last),
      expansions: expansionTimeline(histories, last),
      'rank-history': rankHistoryMap(histories, last),
      ratios: ratioCurve(run),
      gains: gainAgainstBrought(run),
    };
    return {
      body: parts([
        chart(charts['rank-total']),
        chart(charts.expansions),
        chart(charts['rank-history']),
        chart(charts.ratios),
        chart(charts.gains),
        askedTable(run),
      ]),
      charts,
    };
  },
  warnings: growthWarnings,
});
