/** The run's curves: loss, validation with true and shuffled reports, FI ratios, ranks, memory. */
import * as Plot from '@observablehq/plot';
import { group, quantile } from 'd3-array';
import type { RunRecord } from '../../run/record.ts';
import { integer, number } from '../../words/format.ts';
import { finiteExtent } from '../../words/statistics.ts';
import { type ModuleHistory, rankAt, testBins, testSteps } from '../history.ts';
import { ground, type Pair, series } from './colors.ts';
import { type Line, lineChart, type Point, smooth, thin } from './line-chart.ts';
import { placeOf } from './modules.ts';

/** Points that are seen one by one; more are told by their spread. */
const SEEN = 800;

/** Median and 10–90% of what falls together, at the step of its end. */
interface Bin extends Point {
  readonly low: number;
  readonly high: number;
}

function spread<T>(step: number, rows: readonly T[], pick: (row: T) => number): Bin {
  const values = Float64Array.from(rows, pick).sort();
  const at = (p: number): number => quantile(values, p)!;
  return { step, low: at(0.1), value: at(0.5), high: at(0.9) };
}

/** Finite points in at most `most` runs of neighbours of equal number. */
export function bands(
  points: readonly Point[],
  most: number,
): { readonly size: number; readonly bins: readonly Bin[] } {
  const finite = points.filter((p) => Number.isFinite(p.value));
  const size = Math.max(1, Math.ceil(finite.length / most));
  const bins = Array.from({ length: Math.ceil(finite.length / size) }, (_, i) => {
    const rows = finite.slice(i * size, (i + 1) * size);
    return spread(rows.at(-1)!.step, rows, (p) => p.value);
  });
  return { size, bins };
}

const band = (bins: readonly Bin[], color: Pair): Plot.Markish =>
  Plot.areaY(bins, { x: 'step', y1: 'low', y2: 'high', fill: color.light, fillOpacity: 0.16 });

/** Training loss (raw and smoothed), validation loss, the frozen base's, and other methods' on one axis. */
export function lossCurve(s: RunRecord): string | undefined {
  const train = s.metrics.map((m) => ({ step: m.step, value: m.loss }));
  const validation = s.validations.map((r) => ({ step: r.step, value: r.loss }));
  const steps = [...train, ...validation].map((p) => p.step);
  const base = s.validation?.base?.loss;
  const reference = base === undefined || steps.length === 0 ? [] : finiteExtent(steps);
  const many = train.length > SEEN ? bands(train, SEEN / 4) : undefined;
  const lines: Line[] = [
    many === undefined
      ? { name: 'train, each step', color: series[0]!, points: train, kind: 'faint' }
      : {
          name: `train, median and 10–90% of ${integer(many.size)} steps each`,
          color: series[0]!,
          points: many.bins,
          kind: 'faint',
        },
    { name: 'train, smoothed (0.95)', color: series[0]!, points: smooth(train) },
    { name: `validation (n = ${s.validation?.n ?? 0})`, color: series[1]!, points: validation },
    {
      name: 'untouched base',
      color: ground.muted,
      points: reference.map((step) => ({ step, value: base! })),
      kind: 'dashed',
    },
    ...s.compared.map(
      (c, i): Line => ({
        name: c.label,
        color: series[2 + (i % 3)]!,
        points: c.validations.map((r) => ({ step: r.step, value: r.loss })),
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
  return lineChart(lines, {
    title: 'Training and validation loss',
    description,
    y: 'loss (mean squared error)',
    log: true,
    below: many === undefined ? marks : [band(many.bins, series[0]!), ...marks],
    reach: many?.bins.flatMap((b) => [b.low, b.high]) ?? [],
  });
}

/** Validation loss with each picture's own report and with another picture's: the gap is what the words are worth. */
export function shuffledCurve(s: RunRecord): string | undefined {
  const rows = s.validations.filter((r) => r.shuffled !== undefined);
  const points = (pick: (r: (typeof rows)[number]) => number): Point[] =>
    rows.map((r) => ({ step: r.step, value: pick(r) }));
  if (rows.length === 0) return undefined;
  const lines: Line[] = [
    { name: 'own report', color: series[1]!, points: points((r) => r.loss) },
    { name: 'another picture’s report', color: series[3]!, points: points((r) => r.shuffled!) },
  ];
  const description =
    'Validation loss with the true and with a shuffled report; a growing gap means that the model reads the report.';
  return lineChart(lines, {
    title: 'Does it read the report? Its own against another picture’s',
    description,
    y: 'validation loss',
  });
}

/** Validation loss at each timestep of the grid: what is learned of large and of small structures. */
export function timestepCurve(s: RunRecord): string | undefined {
  const rows = s.validations.filter((r) => r.byTimestep !== undefined);
  const base = s.validation?.base?.byTimestep;
  const first = base ? [{ step: 0, byTimestep: base }] : [];
  const lines = (rows[0]?.byTimestep ?? []).map(({ t }, i): Line => {
    const at = (row: { readonly byTimestep?: NonNullable<typeof base> | undefined }) =>
      row.byTimestep?.find((x) => x.t === t)?.loss ?? Number.NaN;
    return {
      name: `t = ${t}`,
      color: series[i % series.length]!,
      points: [...first, ...rows].map((row) => ({ step: row.step, value: at(row) })),
    };
  });
  return lineChart(lines, {
    title: 'Validation loss by timestep',
    description:
      'Validation loss with the true report at each timestep of the grid: late timesteps are nearly all noise, there only the words tell.',
    y: 'validation loss',
    log: true,
  });
}

/** Learning rate of the U-Net's adapters. */
export function rateCurve(s: RunRecord): string | undefined {
  const points = s.metrics.flatMap(({ step, lr }) => (lr === undefined ? [] : [{ step, value: lr }]));
  return lineChart([{ name: 'learning rate', color: series[0]!, points }], {
    title: 'Learning rate',
    description: 'Learning rate of each training step.',
    y: 'learning rate',
  });
}

/** Norm of the gradient of every step, with the limit that it is clipped to. */
export function gradientCurve(s: RunRecord): string | undefined {
  const points = s.metrics.flatMap(({ step, gradNorm }) => (gradNorm === undefined ? [] : [{ step, value: gradNorm }]));
  const { clip } = s.settings;
  const limit =
    typeof clip === 'number' && clip > 0 && points.length > 0 ? finiteExtent(points.map((p) => p.step)) : [];
  return lineChart(
    [
      { name: 'each step', color: series[0]!, points, kind: 'faint' },
      { name: 'smoothed (0.95)', color: series[0]!, points: smooth(points) },
      {
        name: `clipped to ${number(Number(clip))}`,
        color: series[1]!,
        points: limit.map((step) => ({ step, value: Number(clip) })),
        kind: 'dashed',
      },
    ],
    {
      title: 'Gradient norm',
      description: 'Euclidean norm of the gradient by all trained parameters at each step, before it is clipped.',
      y: 'norm of the gradient',
      log: true,
    },
  );
}

/** Median and 10–90% band of the FI ratios of each test, with the threshold λ. */
export function ratioCurve(s: RunRecord): string | undefined {
  const finite = s.expansions.flatMap(({ ratio, step, module }) =>
    ratio !== undefined && Number.isFinite(ratio) ? [{ ratio, step, module }] : [],
  );
  const { endOf } = testBins([...new Set(finite.map((e) => e.step))].sort((a, b) => a - b));
  const bins = [...group(finite, (e) => endOf(e.step))]
    .sort((a, b) => a[0] - b[0])
    .map(([step, rows]) => ({ ...spread(step, rows, (r) => r.ratio), n: new Set(rows.map((r) => r.module)).size }));
  if (bins.length === 0) return undefined;
  const steps = [bins[0]!.step, bins.at(-1)!.step];
  const lambda = s.lambda;
  const lines: Line[] = [
    { name: `median of ${bins[0]!.n} modules`, color: series[0]!, points: bins },
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
  const description =
    'FI ratio (expanded / original) at each expansion test: median and the range from the 10% to the 90% quantile over modules.';
  return lineChart(lines, {
    title: 'FI ratio at each test (band: 10–90% of modules)',
    description,
    y: 'FI-score expanded / original',
    log: true,
    below: [band(bins, series[0]!)],
    reach: bins.flatMap((b) => [b.low, b.high]),
  });
}

/** Total rank of each network after every test. */
export function rankCurve(histories: readonly ModuleHistory[], lastStep: number): string | undefined {
  const steps = [0, ...testBins(testSteps(histories)).ends, lastStep];
  const distinct = [...new Set(steps)].sort((a, b) => a - b);
  const groups = group(histories, (h) => placeOf(h.path)?.network ?? 'other');
  const names = { unet: 'U-Net', text: 'text encoder', other: 'other modules' } as const;
  const lines = (['unet', 'text', 'other'] as const).flatMap((key, i): Line[] => {
    const members = groups.get(key) ?? [];
    if (members.length === 0) return [];
    const points = distinct.map((step) => ({ step, value: members.reduce((sum, h) => sum + rankAt(h, step), 0) }));
    return [{ name: `${names[key]} (${members.length} modules)`, color: series[i]!, points, kind: 'steps' }];
  });
  const description = 'Sum of the ranks of all adapters, by network, against step.';
  return lineChart(lines, { title: 'Total rank', description, y: 'sum of ranks' });
}

/** Memory of the process after each step. */
export function memoryCurve(s: RunRecord): string | undefined {
  const points = s.metrics
    .filter((m) => m.memory !== undefined)
    .map((m) => ({ step: m.step, value: m.memory! / 2 ** 20 }));
  const lines: Line[] = [{ name: 'memory of the process', color: series[0]!, points }];
  return lineChart(lines, {
    title: 'Memory while training',
    description: 'Resident memory of the process after each training step.',
    y: 'MiB',
  });
}
