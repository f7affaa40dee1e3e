/** How the adapters grew: total rank, which kinds of layer expanded when, and the FI ratios. */
import type { RunRecord } from '../../run/record.ts';
import { counted, integer } from '../../words/format.ts';
import { rankCurve, ratioCurve } from '../charts/curves.ts';
import { expansionTimeline, rankHistoryMap } from '../charts/timelines.ts';
import { lastStepOf, moduleHistories } from '../history.ts';
import { chart, definePanel, parts } from '../panel.ts';

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
    };
    return {
      body: parts([
        chart(charts['rank-total']),
        chart(charts.expansions),
        chart(charts['rank-history']),
        chart(charts.ratios),
      ]),
      charts,
    };
  },
  warnings: growthWarnings,
});
