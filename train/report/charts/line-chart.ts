/** A chart of curves over training steps: what all of the run's curves share. */
import * as Plot from '@observablehq/plot';
import { integer, number, stepTick } from '../../words/format.ts';
import { finiteExtent } from '../../words/statistics.ts';
import { ground, type Pair } from './colors.ts';
import { appendHeading, type ChartText, draw, element, inline, type SvgElement } from './svg.ts';

export interface Point {
  readonly step: number;
  readonly value: number;
}

/** A named line. `style` dashed for references, `faint` for raw values behind a smoothed line. */
export interface Line {
  readonly name: string;
  readonly color: Pair;
  readonly points: readonly Point[];
  readonly kind?: 'line' | 'dashed' | 'faint' | 'steps';
}

const width = 992;
const height = 300;

/** Exponential moving average with bias correction (as Adam's), skipping non-finite values. */
export function smooth(points: readonly Point[], beta = 0.95): readonly Point[] {
  let average = 0;
  let weight = 0;
  return points.flatMap(({ step, value }) => {
    if (!Number.isFinite(value)) return [];
    average = beta * average + (1 - beta) * value;
    weight = beta * weight + (1 - beta);
    return [{ step, value: average / weight }];
  });
}

/** At most `limit` points, evenly picked, the last one always kept: more cannot be seen and make the page heavy. */
export function thin<T>(points: readonly T[], limit = 800): readonly T[] {
  if (points.length <= limit) return points;
  const stride = (points.length - 1) / (limit - 1);
  return Array.from({ length: limit }, (_, i) => points[Math.round(i * stride)]!);
}

/** Whether values want a logarithmic scale: all above 0, and over more than a decade. */
export function decades(values: readonly number[]): boolean {
  const [low, high] = finiteExtent(values);
  return low > 0 && high / low > 10;
}

/** Plot's y options: logarithmic, where `log` allows it and the values ask for it. */
function yScale(values: readonly number[], log: boolean): Plot.ScaleOptions {
  const [, high] = finiteExtent(values);
  // Thousands as everywhere on the page; below that Plot's own digits suit the step.
  const base = { label: null, nice: true, ...(high >= 1000 ? { tickFormat: integer } : {}) };
  // rounded to whole decades, most of a logarithmic axis would be empty
  return (log && decades(values) ? { ...base, nice: false, type: 'log', tickFormat: '~g' } : base) as Plot.ScaleOptions;
}

/** What a chart of curves says and how it scales. */
export interface LineChartOptions extends ChartText {
  /** Name and unit of the y axis. */
  readonly y: string;
  /** Switch to a logarithmic axis where values span decades. */
  readonly log?: boolean;
  /** Marks below the lines, and the values that they reach. */
  readonly below?: readonly Plot.Markish[];
  readonly reach?: readonly number[];
}

/** Draws lines over steps with a legend above; `undefined` when no line has a finite point. */
export function lineChart(lines: readonly Line[], options: LineChartOptions): string | undefined {
  const shown = lines.filter((l) => l.points.some((p) => Number.isFinite(p.value)));
  if (shown.length === 0) return undefined;
  const points = shown.flatMap((l) => l.points);
  const [first, last] = finiteExtent(points.map((p) => p.step));
  const values = [...points.map((p) => p.value), ...(options.reach ?? [])];
  const keys = placeKeys(shown);
  const below = KEY_ROW * (keys.at(-1)!.row + 1);
  const node = draw(
    {
      width,
      height: height + below - KEY_ROW,
      marginLeft: 62,
      marginRight: 18,
      marginTop: 56 + below,
      marginBottom: 40,
      x: {
        label: 'step',
        labelArrow: 'none',
        labelAnchor: 'center',
        tickFormat: stepTick,
        // A single step still needs an axis with some length.
        domain: first === last ? [first - 1, last + 1] : [first, last],
      },
      y: yScale(values, options.log ?? false),
      marks: [
        Plot.gridY({ stroke: ground.rule.light, strokeOpacity: 1 }),
        ...(options.below ?? []),
        ...shown.flatMap((l) => lineMarks(l)),
      ],
    } as Plot.PlotOptions,
    options,
  );
  appendHeading(node, options.title);
  for (const key of keys) appendKey(node, key);
  node.appendChild(
    element('text', { x: 0, y: 40 + below, 'text-anchor': 'start', fill: ground.muted.light }, options.y),
  );
  return inline(node);
}

function lineMarks(line: Line): readonly Plot.Markish[] {
  const points = thin(line.points);
  const common = { x: 'step', y: 'value', stroke: line.color.light };
  const tip = (p: Point): string => `${line.name}, step ${integer(p.step)}: ${number(p.value, 4)}`;
  if (line.kind === 'faint')
    return [Plot.dot(points, { x: 'step', y: 'value', r: 1.1, fill: line.color.light, fillOpacity: 0.35 })];
  const drawn = Plot.line(points, {
    ...common,
    strokeWidth: 1.8,
    ...(line.kind === 'dashed' ? { strokeDasharray: '5,4' } : {}),
    ...(line.kind === 'steps' ? { curve: 'step-after' } : {}),
  });
  // Few points are measurements worth seeing one by one; a single point is invisible as a line.
  if (points.length > 80 || line.kind === 'dashed') return [drawn];
  return [drawn, Plot.dot(points, { x: 'step', y: 'value', r: 2.6, fill: line.color.light, title: tip })];
}

type Key = Pick<Line, 'name' | 'color' | 'kind'> & { readonly x: number; readonly row: number };
const KEY_ROW = 18;

/** One key for each name, of several lines in grey, side by side, in as many rows as they need: about 6.6 pixels a letter at this size. */
function placeKeys(lines: readonly Line[]): readonly Key[] {
  let [x, row] = [0, 0];
  const named = new Map(lines.map((line) => [line.name, lines.filter(({ name }) => name === line.name)]));
  return [...named.values()].map(([first, ...more]) => {
    const { name, kind } = first!;
    const color = more.length > 0 ? ground.muted : first!.color;
    const wide = 22 + name.length * 6.6;
    if (x > 0 && x + wide > width) [x, row] = [0, row + 1];
    const key = { name, color, kind, x, row };
    x += wide + 18;
    return key;
  });
}

function appendKey(node: SvgElement, { name, color, kind, x, row }: Key): void {
  const y = 32 + row * KEY_ROW;
  const mark = { x1: x, x2: x + 16, y1: y, y2: y, stroke: color.light, 'stroke-width': 2.4 };
  if (kind === 'faint') node.appendChild(element('circle', { cx: x + 8, cy: y, r: 2, fill: color.light }));
  else node.appendChild(element('line', kind === 'dashed' ? { ...mark, 'stroke-dasharray': '5,4' } : mark));
  node.appendChild(element('text', { x: x + 22, y: y + 4, 'text-anchor': 'start', fill: ground.muted.light }, name));
}
