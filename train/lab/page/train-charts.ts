/** The charts of page “Train here”: the report's panels of each run, and the losses of all in one. Loaded when needed. */
import { series } from '../../report/charts/colors.ts';
import { type Line, lineChart, smooth } from '../../report/charts/line-chart.ts';
import { growth } from '../../report/panels/growth.ts';
import { loss } from '../../report/panels/loss.ts';
import { ranks } from '../../report/panels/ranks.ts';
import { updates } from '../../report/panels/updates.ts';
import { besides } from './beside.ts';
import { elementsOf } from './panels.ts';
import type { PageRun } from './train-run.ts';

export const trainCharts = () => besides([ranks, growth, loss, updates]);

/** Training losses of all runs on one axis: they see the same batches and the same noise. */
export function together(runs: readonly PageRun[]): DocumentFragment {
  const lines = runs.map(
    (run, i): Line => ({
      name: run.name,
      color: series[i % series.length]!,
      points: smooth(run.record().metrics.map((m) => ({ step: m.step, value: m.loss }))),
    }),
  );
  const svg = lineChart(lines, {
    title: 'Training loss, smoothed (0.95)',
    description: `Training loss of ${runs.length} runs against step, smoothed; all see the same batches and noise.`,
    y: 'loss (mean squared error)',
    log: true,
  });
  return elementsOf(
    svg === undefined ? '' : `<div class="chart" tabindex="0" role="region" aria-label="Loss of all runs">${svg}</div>`,
  );
}
