/** What every update was made with: the learning rate, and how long the gradient was. */
import type { RunRecord } from '../../run/record.ts';
import { gradientCurve, rateCurve } from '../charts/curves.ts';
import { chart, definePanel, parts } from '../panel.ts';

export const updates = definePanel<RunRecord>({
  id: 'updates',
  title: 'Updates',
  data: (run) => (run.metrics.some((m) => m.gradNorm !== undefined) ? run : undefined),
  draw: (run) => {
    const charts = { 'learning-rate': rateCurve(run), 'gradient-norm': gradientCurve(run) };
    return { body: parts([chart(charts['learning-rate']), chart(charts['gradient-norm'])]), charts };
  },
});
