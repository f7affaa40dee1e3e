/** Puts charts, pictures and facts together: one self-contained page, and the charts as files. */

import { methodName, number } from '../words/format.ts';
import { lossCurve, memoryCurve, rankCurve, ratioCurve, shuffledCurve } from './charts/curves.ts';
import { drawMap, drawRankMaps } from './charts/heatmap.ts';
import { type Layout, layout, type Network } from './charts/modules.ts';
import { inline, standalone } from './charts/svg.ts';
import { timeBars } from './charts/time-bars.ts';
import { expansionTimeline, rankAgainstChange, rankHistoryMap } from './charts/timelines.ts';
import { type Embedded, embed } from './embed.ts';
import { type ModuleHistory, moduleHistories, quantile } from './history.ts';
import { cspHash, html, jsonForScript, trusted } from './html.ts';
import { printableDeep } from './printable.ts';
import { type PackedModule, script } from './script.ts';
import { head, memorisation, obedience, samples, section } from './sections.ts';
import { type Charts, costs, curves, data, growth, rankMaps, repeat } from './sections-run.ts';
import { style } from './style.ts';
import { parseSummary, type RunSummary, type RunSummaryInput } from './summary.ts';

/** The finished report. `charts`: file name without extension → a complete SVG file. */
export interface Report {
  readonly html: string;
  readonly charts: ReadonlyMap<string, string>;
}

/** What hovering a cell says where scripts are off: rank, change, and the last expansions with their FI ratios. */
function tooltip(histories: ReadonlyMap<string, ModuleHistory>): (path: string, rank: number) => string {
  return (path) => {
    const h = histories.get(path)!;
    const grown = h.tests.filter((t) => t.expanded);
    const last = h.tests.at(-1);
    const lines = [
      `${path}: rank ${h.rank}${h.change === undefined ? '' : `, ‖ΔW‖/‖W‖ ${number(h.change)}`}`,
      h.tests.length > 0 && `from ${h.start}; grew in ${grown.length} of ${h.tests.length} tests`,
      grown.length > 0 &&
        `last expansions: ${grown
          .slice(-6)
          .map((t) => `step ${t.step} (FI ratio ${number(t.ratio)})`)
          .join(', ')}`,
      last && `last test: step ${last.step}, FI ratio ${number(last.ratio)}`,
    ];
    return lines.filter(Boolean).join('\n');
  };
}

function changeMap(placed: Layout<number>, network: Network): string | undefined {
  const grid = placed[network];
  if (grid === undefined) return undefined;
  const title = `${network === 'unet' ? 'U-Net' : 'Text encoder'}: ‖ΔW‖/‖W‖ per layer`;
  const subtitle = `n = ${grid.cells.length}, median ${number(
    quantile(
      grid.cells.map((c) => c.value),
      0.5,
    ),
  )}`;
  const description = 'Frobenius norm of the learned change relative to that of the frozen weight.';
  const format = (v: number): string => (Number.isFinite(v) ? v.toFixed(2).replace(/^0/, '') : '–');
  return inline(drawMap(grid, { title, subtitle, description, format, tooltip: (path, v) => `${path}: ${number(v)}` }));
}

/** All charts of a run as page parts; those without data are undefined. */
function drawCharts(s: RunSummary, histories: readonly ModuleHistory[], placed: Layout<number>): Charts {
  const lastStep = Math.max(0, ...[s.metrics.at(-1)?.step, s.expansions.at(-1)?.step].filter((x) => x !== undefined));
  const changes = layout(histories.flatMap((h) => (h.change === undefined ? [] : [[h.path, h.change] as const])));
  const ranks = drawRankMaps(placed, tooltip(new Map(histories.map((h) => [h.path, h]))));
  return {
    loss: lossCurve(s),
    shuffled: shuffledCurve(s),
    'rank-unet': ranks.unet,
    'rank-text-encoder': ranks.text,
    'change-unet': changeMap(changes, 'unet'),
    'change-text-encoder': changeMap(changes, 'text'),
    'rank-change': rankAgainstChange(histories),
    'rank-total': histories.length === 0 ? undefined : rankCurve(histories, lastStep),
    'rank-history': rankHistoryMap(histories, lastStep),
    expansions: expansionTimeline(histories, lastStep),
    ratios: ratioCurve(s),
    time: timeBars(s),
    memory: memoryCurve(s),
  };
}

const orNull = (v: number | undefined): number | null =>
  v !== undefined && Number.isFinite(v) ? Number(v.toPrecision(4)) : null;

/** Histories for the page's script. */
function pack(histories: readonly ModuleHistory[]): readonly PackedModule[] {
  return histories.map((h) => [
    h.path,
    h.start,
    h.rank,
    orNull(h.change),
    h.tests.map((t) => [
      t.step,
      orNull(t.ratio),
      t.expanded ? 1 : 0,
      orNull(t.fiOriginal),
      orNull(t.fiExpanded),
      t.rankAfter,
      t.keyHash ?? '',
      orNull(t.expectedRatio),
    ]),
  ]);
}

/**
 * Makes the whole report in memory. Reads the pictures' files, writes nothing, reaches no network.
 * @throws Error one line that names the field when the summary is not of the declared form
 */
export async function renderReport(input: RunSummaryInput): Promise<Report> {
  const s = printableTexts(parseSummary(input));
  const histories = moduleHistories(s);
  const placed = layout(histories.map((h) => [h.path, h.rank] as const));
  const charts = drawCharts(s, histories, placed);
  const pictures = await Promise.all(s.samples.map((x) => Promise.all(x.pictures.map((p) => embed(p.image)))));
  const pairs = await Promise.all(
    (s.memorisation?.pairs ?? []).map(
      async (p): Promise<readonly [Embedded, Embedded]> => [await embed(p.sample), await embed(p.nearest)],
    ),
  );
  const sections = [
    ...section('pictures', 'Pictures', samples(s, pictures)),
    ...section('obedience', 'Do the pictures obey the report?', obedience(s)),
    ...section('loss', 'Loss', curves(charts)),
    ...section('ranks', 'Where the rank went', rankMaps(charts, placed.other, histories)),
    ...section('growth', 'How it grew', growth(charts)),
    ...section('memorisation', 'Is anything copied?', memorisation(s, pairs)),
    ...section('costs', 'Time and memory', costs(s, charts)),
    ...section('data', 'Data and splits', data(s)),
    ...section('repeat', 'Repeat this run', repeat(s)),
  ];
  const policy = `default-src 'none'; img-src data:; style-src ${cspHash(style)}; script-src ${cspHash(script)}; base-uri 'none'; form-action 'none'`;
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${trusted(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>${methodName(s.method)} run ${s.name}</title>
<style>${trusted(style)}</style>
</head>
<body>
${head(s, histories, sections)}
<main>
${sections.map((x) => html`<section id="${x.id}"><h2>${x.title}</h2>${x.body}</section>\n`)}</main>
<footer>Made on this machine by selora-ts. The page loads nothing from anywhere: pictures, charts and numbers are inside this file.</footer>
<div id="tip" hidden></div>
<script type="application/json" id="run-data">${jsonForScript({ modules: pack(histories) })}</script>
<script>${trusted(script)}</script>
</body>
</html>
`;
  const files = Object.entries(charts).flatMap(([name, svg]) =>
    svg === undefined ? [] : [[name, standalone(svg)] as const],
  );
  return { html: page.markup, charts: new Map(files) };
}

/** Makes control characters visible in every text of a summary; paths of picture files stay untouched. */
function printableTexts(s: RunSummary): RunSummary {
  const clean = printableDeep(s);
  const samples = clean.samples.map((x, i) => ({
    ...x,
    pictures: x.pictures.map((p, j) => ({ ...p, image: s.samples[i]!.pictures[j]!.image })),
  }));
  const pairs = clean.memorisation?.pairs.map((p, i) => {
    const { sample, nearest } = s.memorisation!.pairs[i]!;
    return { ...p, sample, nearest };
  });
  return {
    ...clean,
    samples,
    ...(clean.memorisation ? { memorisation: { ...clean.memorisation, pairs: pairs! } } : {}),
  };
}
