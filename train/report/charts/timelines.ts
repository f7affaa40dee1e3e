/** Rank history by kind of layer and the time line of expansions. */
import * as Plot from '@observablehq/plot';
import { group, mean, quantile } from 'd3-array';
import { grownIn, testsIn } from '../../run/test-log.ts';
import { integer, number, stepTick } from '../../words/format.ts';
import { finiteExtent } from '../../words/statistics.ts';
import { type ModuleHistory, rankAt, testBins, testSteps } from '../history.ts';
import { ground, rampIndex, rampStep, series } from './colors.ts';
import { kindsOf } from './modules.ts';
import { appendHeading, appendScale, draw, inline } from './svg.ts';

const width = 992;
const rowHeight = 22;
const left = 96;

function frame(rows: readonly string[], lastStep: number, bottom: number): Plot.PlotOptions {
  return {
    width,
    height: 40 + rows.length * rowHeight + bottom,
    marginLeft: left,
    marginRight: 18,
    marginTop: 40,
    marginBottom: bottom,
    x: {
      label: 'step',
      labelArrow: 'none',
      labelAnchor: 'center',
      labelOffset: 34,
      domain: [0, Math.max(1, lastStep)],
      tickFormat: stepTick,
    },
    y: { domain: [...rows], tickSize: 0, padding: 0.1, label: null },
  } as Plot.PlotOptions;
}

/** Mean rank by kind of layer (rows) from test to test (columns). */
export function rankHistoryMap(histories: readonly ModuleHistory[], lastStep: number): string | undefined {
  const steps = testBins(testSteps(histories)).ends;
  if (steps.length === 0) return undefined;
  const edges = [0, ...steps, Math.max(lastStep, steps.at(-1)!)];
  const rows = kindsOf(histories);
  const cells = rows.flatMap(({ label, members }) =>
    edges.slice(0, -1).map((from, i) => {
      const value = mean(members, (h) => rankAt(h, i === 0 ? -1 : from))!;
      return { label, from, to: edges[i + 1]!, value, n: members.length };
    }),
  );
  const visible = cells.filter((c) => c.to > c.from);
  const [low, high] = finiteExtent(visible.map((c) => c.value));
  const bottom = 64;
  const options = frame(
    rows.map((r) => r.label),
    lastStep,
    bottom,
  );
  const fill = (c: (typeof cells)[number]): string => rampStep(rampIndex(c.value, low, high)).fill;
  const tip = (c: (typeof cells)[number]): string =>
    `${c.label}, steps ${integer(c.from)} to ${integer(c.to)}: mean rank ${number(c.value)} of ${c.n} modules`;
  const mark = Plot.barX(visible, {
    x1: 'from',
    x2: 'to',
    y: 'label',
    fill: { value: fill, scale: null },
    title: tip,
  } as Plot.BarXOptions);
  const description = `Mean rank of each kind of layer after each of ${steps.length} tests, from ${number(low)} to ${number(high)}.`;
  const node = draw({ ...options, marks: [mark] }, { title: 'Rank history', description });
  appendHeading(node, 'Rank history: mean rank by kind of layer');
  appendScale(
    node,
    { x: left + 24, y: 40 + rows.length * rowHeight + bottom - 14, width: 160 },
    number(low),
    number(high),
  );
  return inline(node);
}

/** Which kinds of layer grew when: a disc per test, its area the share of modules that were expanded. */
export function expansionTimeline(histories: readonly ModuleHistory[], lastStep: number): string | undefined {
  const rows = kindsOf(histories.filter((h) => h.tests.length > 0));
  if (rows.length === 0) return undefined;
  const { endOf } = testBins(testSteps(histories));
  const dots = rows.flatMap(({ label, members }) => {
    const byStep = group(
      members.flatMap((h) => h.tests),
      (t) => endOf(t.step),
    );
    return [...byStep].map(([step, tests]) => {
      const [grown, made] = [grownIn, testsIn].map((count) => tests.reduce((n, t) => n + count(t), 0)) as [
        number,
        number,
      ];
      const ratio = (p: number): string => number(quantile(tests, p, (t) => t.ratio));
      const tip = `step ${integer(step)}, ${label}: ${grown} of ${made} expanded; FI ratio median ${ratio(0.5)}, ${ratio(0)} to ${ratio(1)}`;
      return { label, step, share: grown / made, tip };
    });
  });
  const spacing = (width - left - 18) / Math.max(1, new Set(dots.map((d) => d.step)).size);
  const largest = Math.max(3, Math.min(9, spacing / 2.1));
  const grown = dots.filter((d) => d.share > 0);
  const radius = { value: (d: (typeof dots)[number]) => Math.sqrt(d.share) * largest, scale: null };
  const total = histories.reduce((sum, h) => sum + h.grown, 0);
  const node = draw(
    {
      ...frame(
        rows.map((r) => r.label),
        lastStep,
        40,
      ),
      marks: [
        Plot.ruleY(
          rows.map((r) => r.label),
          { stroke: ground.faint.light },
        ),
        Plot.dot(dots, { x: 'step', y: 'label', r: 1, fill: ground.muted.light, title: 'tip' }),
        Plot.dot(grown, {
          x: 'step',
          y: 'label',
          r: radius,
          fill: series[0]!.light,
          fillOpacity: 0.85,
          title: 'tip',
        } as Plot.DotOptions),
      ],
    },
    {
      title: 'Time line of expansions',
      description: `${total} expansions; one disc per test and kind of layer, area = share of its modules that grew.`,
    },
  );
  appendHeading(
    node,
    `Time line of expansions (n = ${integer(total)}; area of a disc = share of the modules that grew)`,
  );
  return inline(node);
}
