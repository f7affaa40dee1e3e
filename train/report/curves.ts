/** Curves over steps: loss, validation with true and shuffled reports, FI ratios, ranks, memory. */
import * as Plot from '@observablehq/plot';
import { ground, type Pair, series } from './colors.ts';
import { integer, number } from './format.ts';
import { groupBy, type ModuleHistory, quantile, rankAt, testSteps } from './history.ts';
import { placeOf } from './modules.ts';
import type { RunSummary } from './summary.ts';
import { type ChartText, draw, element, inline, type SvgElement } from './svg.ts';

interface Point {
  readonly step: number;
  readonly value: number;
}

/** A named line. `style` dashed for references, `faint` for raw values behind a smoothed line. */
interface Line {
  readonly name: string;
  readonly color: Pair;
  readonly points: readonly Point[];
  readonly kind?: 'line' | 'dashed' | 'faint' | 'steps';
}

const width = 760;
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

/** Plot's y options: logarithmic where the values span more than 1.5 decades and all are positive. */
function scaleFor(values: readonly number[], label: string): Plot.ScaleOptions {
  const finite = values.filter(Number.isFinite);
  const low = Math.min(...finite);
  const high = Math.max(...finite);
  const log = finite.length > 1 && low > 0 && high / low > 32;
  return {
    label,
    labelArrow: 'none',
    grid: false,
    nice: true,
    ...(log ? { type: 'log', tickFormat: '~g' } : {}),
  } as Plot.ScaleOptions;
}

/** Draws lines over steps with a legend above; `undefined` when no line has a finite point. */
function chart(
  lines: readonly Line[],
  y: string,
  text: ChartText,
  extra: readonly Plot.Markish[] = [],
): SvgElement | undefined {
  const shown = lines.filter((l) => l.points.some((p) => Number.isFinite(p.value)));
  if (shown.length === 0) return undefined;
  const values = shown.flatMap((l) => l.points.map((p) => p.value));
  const steps = shown.flatMap((l) => l.points.map((p) => p.step));
  const [first, last] = [Math.min(...steps), Math.max(...steps)];
  const marks = shown.flatMap((l) => lineMarks(l));
  const node = draw(
    {
      width,
      height,
      marginLeft: 62,
      marginRight: 18,
      marginTop: 58,
      marginBottom: 40,
      // A single step still needs an axis with some length.
      x: {
        label: 'step',
        labelArrow: 'none',
        labelAnchor: 'center',
        domain: first === last ? [first - 1, last + 1] : [first, last],
        tickFormat: ',d',
      },
      y: scaleFor(values, y),
      marks: [Plot.gridY({ stroke: ground.rule.light, strokeOpacity: 1 }), ...extra, ...marks],
    } as Plot.PlotOptions,
    text,
  );
  appendLegend(node, shown, text.title);
  return node;
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

/** Title and, below it, one coloured key per line. */
export function appendLegend(
  node: SvgElement,
  lines: readonly Pick<Line, 'name' | 'color' | 'kind'>[],
  title: string,
): void {
  node.appendChild(element('text', { x: 0, y: 14, 'text-anchor': 'start', 'font-weight': 600 }, title));
  let x = 0;
  for (const { name, color, kind } of lines) {
    const mark = { x1: x, x2: x + 16, y1: 32, y2: 32, stroke: color.light, 'stroke-width': 2.4 };
    if (kind === 'faint') node.appendChild(element('circle', { cx: x + 8, cy: 32, r: 2, fill: color.light }));
    else node.appendChild(element('line', kind === 'dashed' ? { ...mark, 'stroke-dasharray': '5,4' } : mark));
    node.appendChild(element('text', { x: x + 22, y: 36, 'text-anchor': 'start', fill: ground.muted.light }, name));
    x += 40 + name.length * 6.6;
  }
}

const svg = (node: SvgElement | undefined): string | undefined => node && inline(node);

/** Training loss (raw and smoothed), validation loss, the frozen base's, and other methods' on one axis. */
export function lossCurve(s: RunSummary): string | undefined {
  const train = s.metrics.map((m) => ({ step: m.step, value: m.loss }));
  const validation = (s.validation?.rows ?? []).map((r) => ({ step: r.step, value: r.loss }));
  const steps = [...train, ...validation].map((p) => p.step);
  const base = s.validation?.base?.loss;
  const reference = base === undefined || steps.length === 0 ? [] : [Math.min(...steps), Math.max(...steps)];
  const lines: Line[] = [
    { name: 'train, each step', color: series[0]!, points: train, kind: 'faint' },
    { name: 'train, smoothed (0.95)', color: series[0]!, points: smooth(train) },
    { name: `validation (n = ${s.validation?.n ?? 0})`, color: series[1]!, points: validation },
    {
      name: 'untouched base',
      color: ground.muted,
      points: reference.map((step) => ({ step, value: base! })),
      kind: 'dashed',
    },
    ...s.comparisons.map(
      (c, i): Line => ({
        name: c.method,
        color: series[2 + (i % 3)]!,
        points: c.validation.map((r) => ({ step: r.step, value: r.loss })),
      }),
    ),
  ];
  const bad = s.metrics.filter((m) => !Number.isFinite(m.loss));
  const marks =
    bad.length === 0
      ? []
      : [
          Plot.tickX(thin(bad, 100), {
            x: 'step',
            stroke: series[1]!.light,
            strokeOpacity: 0.4,
            title: (m) => `step ${m.step}: the loss is ${m.loss}`,
          }),
        ];
  const description = `Loss against step: ${train.length} training steps, ${validation.length} validations, ${bad.length} steps with a loss that is not finite.`;
  return svg(chart(lines, 'loss (mean squared error)', { title: 'Loss', description }, marks));
}

/** Validation loss with each picture's own report and with another picture's: the gap is what the words are worth. */
export function shuffledCurve(s: RunSummary): string | undefined {
  const rows = (s.validation?.rows ?? []).filter((r) => r.shuffled !== undefined);
  const points = (pick: (r: (typeof rows)[number]) => number): Point[] =>
    rows.map((r) => ({ step: r.step, value: pick(r) }));
  if (rows.length === 0) return undefined;
  const lines: Line[] = [
    { name: 'own report', color: series[1]!, points: points((r) => r.loss) },
    { name: "another picture's report", color: series[3]!, points: points((r) => r.shuffled!) },
  ];
  const description =
    'Validation loss with the true and with a shuffled report; a growing gap means that the model reads the report.';
  return svg(
    chart(lines, 'validation loss', { title: 'Does it read the report? True against shuffled reports', description }),
  );
}

/** Median and 10–90% band of the FI ratios of each test, with the threshold λ. */
export function ratioCurve(s: RunSummary): string | undefined {
  const tests = groupBy(
    s.expansions.filter((e) => Number.isFinite(e.ratio)),
    (e) => e.step,
  );
  const band = [...tests]
    .sort((a, b) => a[0] - b[0])
    .map(([step, rows]) => {
      const ratios = rows.map((r) => r.ratio);
      return {
        step,
        low: quantile(ratios, 0.1),
        value: quantile(ratios, 0.5),
        high: quantile(ratios, 0.9),
        n: rows.length,
      };
    });
  if (band.length === 0) return undefined;
  const steps = [band[0]!.step, band.at(-1)!.step];
  const lambda = s.lambda;
  const lines: Line[] = [
    { name: `median of ${band[0]!.n} modules`, color: series[0]!, points: band },
    ...(lambda === undefined
      ? []
      : [
          {
            name: `λ = ${number(lambda)}`,
            color: series[1]!,
            points: steps.map((step) => ({ step, value: lambda })),
            kind: 'dashed',
          } as const,
        ]),
  ];
  const area = Plot.areaY(band, { x: 'step', y1: 'low', y2: 'high', fill: series[0]!.light, fillOpacity: 0.16 });
  const description =
    'FI ratio (expanded / original) at each expansion test: median and the range from the 10% to the 90% quantile over modules.';
  return svg(
    chart(lines, 'FI ratio', { title: 'FI ratio at each test (band: 10–90% of modules)', description }, [area]),
  );
}

/** Total rank of each network after every test. */
export function rankCurve(histories: readonly ModuleHistory[], lastStep: number): string | undefined {
  const steps = [0, ...testSteps(histories.flatMap((h) => h.tests)), lastStep];
  const distinct = [...new Set(steps)].sort((a, b) => a - b);
  const groups = groupBy(histories, (h) => placeOf(h.path)?.network ?? 'other');
  const names = { unet: 'U-Net', text: 'text encoder', other: 'other modules' } as const;
  const lines = (['unet', 'text', 'other'] as const).flatMap((key, i): Line[] => {
    const members = groups.get(key) ?? [];
    if (members.length === 0) return [];
    const points = distinct.map((step) => ({ step, value: members.reduce((sum, h) => sum + rankAt(h, step), 0) }));
    return [{ name: `${names[key]} (${members.length} modules)`, color: series[i]!, points, kind: 'steps' }];
  });
  const description = 'Sum of the ranks of all adapters, by network, against step.';
  return svg(chart(lines, 'total rank', { title: 'Total rank', description }));
}

/** Live bytes after each step. */
export function memoryCurve(s: RunSummary): string | undefined {
  const points = s.metrics
    .filter((m) => m.memory !== undefined)
    .map((m) => ({ step: m.step, value: m.memory! / 2 ** 20 }));
  const lines: Line[] = [{ name: 'live memory', color: series[0]!, points }];
  return svg(chart(lines, 'MiB', { title: 'Memory', description: 'Live bytes after each training step, in MiB.' }));
}
