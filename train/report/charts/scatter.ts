/** One dot for each module: rank against change, and what a rank was expected to bring against what it brought. */
import * as Plot from '@observablehq/plot';
import type { RunRecord } from '../../run/record.ts';
import { number } from '../../words/format.ts';
import { finiteExtent, pearson, spearman } from '../../words/statistics.ts';
import type { ModuleHistory } from '../history.ts';
import { ground, series } from './colors.ts';
import { decades } from './line-chart.ts';
import { placeOf } from './modules.ts';
import { appendHeading, type ChartText, draw, element, inline } from './svg.ts';

interface Dot {
  readonly path: string;
  readonly x: number;
  readonly y: number;
  /** what is told of it after its path */
  readonly told: string;
}
interface ScatterOptions extends ChartText {
  readonly heading: string;
  readonly x: string;
  readonly y: string;
  /** draws where both are the same */
  readonly diagonal?: boolean;
}
const networks = { unet: 'U-Net', text: 'text encoder', other: 'other modules' } as const;
const colors = { unet: series[0]!.light, text: series[1]!.light, other: series[2]!.light };

/** Dots by network; an axis whose values span decades is logarithmic. */
function scatter(dots: readonly Dot[], { heading, x, y, diagonal = false, ...text }: ScatterOptions): string {
  const points = dots.map((d) => ({ ...d, network: placeOf(d.path)?.network ?? ('other' as const) }));
  const scale = (values: readonly number[]) => (decades(values) ? { type: 'log', tickFormat: '~g' } : { zero: true });
  const [xs, ys] = [points.map((p) => p.x), points.map((p) => p.y)];
  const ends = finiteExtent(xs).map((at) => ({ at }));
  const node = draw(
    {
      width: 520,
      height: 320,
      marginTop: 66,
      marginLeft: 56,
      marginBottom: 40,
      x: { label: x, labelArrow: 'none', labelAnchor: 'center', nice: true, ...scale(xs) },
      y: { label: null, nice: true, ...scale(ys) },
      marks: [
        Plot.gridY({ stroke: ground.rule.light, strokeOpacity: 1 }),
        ...(diagonal
          ? [Plot.line(ends, { x: 'at', y: 'at', stroke: ground.muted.light, strokeDasharray: '5,4' })]
          : []),
        Plot.dot(points, {
          x: 'x',
          y: 'y',
          r: 3.2,
          fillOpacity: 0.7,
          fill: { value: (p: (typeof points)[number]) => colors[p.network], scale: null },
          title: (p: (typeof points)[number]) => `${p.path}: ${p.told}`,
        } as Plot.DotOptions),
      ],
    } as Plot.PlotOptions,
    text,
  );
  appendHeading(node, heading);
  let at = 0;
  for (const key of ['unet', 'text', 'other'] as const) {
    if (!points.some((p) => p.network === key)) continue;
    node.appendChild(element('circle', { cx: at + 4, cy: 30, r: 3.2, fill: colors[key] }));
    const label = { x: at + 13, y: 34, 'text-anchor': 'start', fill: ground.muted.light };
    node.appendChild(element('text', label, networks[key]));
    at += 33 + networks[key].length * 6.6;
  }
  node.appendChild(element('text', { x: 0, y: 54, 'text-anchor': 'start', fill: ground.muted.light }, y));
  return inline(node);
}

/** The modules whose change was measured. */
const changed = (histories: readonly ModuleHistory[]) =>
  histories.flatMap((h) => (h.change !== undefined && Number.isFinite(h.change) ? [{ ...h, change: h.change }] : []));

/** Spearman's correlation of rank and relative change; NaN where all ranks are the same. */
export function rankChangeCorrelation(histories: readonly ModuleHistory[]): {
  readonly rho: number;
  readonly n: number;
} {
  const points = changed(histories);
  const rho = spearman(
    points.map((p) => p.rank),
    points.map((p) => p.change),
  );
  return { rho, n: points.length };
}

/** Final rank against ‖ΔW‖/‖W‖; nothing where all ranks are the same. */
export function rankAgainstChange(histories: readonly ModuleHistory[]): string | undefined {
  const { rho, n } = rankChangeCorrelation(histories);
  if (Number.isNaN(rho)) return undefined;
  const dots = changed(histories).map(({ path, rank, change }) => ({
    path,
    x: rank,
    y: change,
    told: `rank ${rank}, ‖ΔW‖/‖W‖ ${number(change)}`,
  }));
  return scatter(dots, {
    title: 'Rank against change',
    description: `Final rank and relative change of ${n} modules; Spearman's correlation ${number(rho, 2)}.`,
    heading: `Does rank go where the weights change? Spearman ${number(rho, 2)}, n = ${n}`,
    x: 'final rank',
    y: '‖ΔW‖ / ‖W‖',
  });
}

/** Expected gain of a rank against what one step of it alone brought; nothing where fewer than three were measured. */
export function gainAgainstBrought(run: RunRecord): string | undefined {
  const dots = run.expansions.flatMap(({ module, step, gain, brought }) =>
    gain !== undefined && brought !== undefined && Number.isFinite(gain) && Number.isFinite(brought)
      ? [
          {
            path: module,
            x: gain,
            y: brought,
            told: `step ${step}, expected ${number(gain)}, brought ${number(brought)}`,
          },
        ]
      : [],
  );
  const r = pearson(
    dots.map((d) => d.x),
    dots.map((d) => d.y),
  );
  if (Number.isNaN(r)) return undefined;
  return scatter(dots, {
    title: 'What a rank brings against what was expected',
    description: `Decrease of the loss per unit of learning rate by the first step of ${dots.length} new ranks, each alone, on data its direction was not taken from, against what was expected; dashed: as expected. Pearson's correlation ${number(r, 3)}.`,
    heading: `Does a rank bring what was expected? r = ${number(r, 3)}, n = ${dots.length}`,
    x: 'expected, loss per unit of learning rate',
    y: 'brought by one step of it alone',
    diagonal: true,
  });
}
