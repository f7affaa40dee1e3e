/** The page of an experiment: what may be concluded, tables, curves, ranks and pictures of all methods; one file, nothing loaded. */
import path from 'node:path';
import { group, mean } from 'd3-array';
import { printableDeep } from '../../models/io/error.ts';
import { series } from '../report/charts/colors.ts';
import { drawRankMaps } from '../report/charts/heatmap.ts';
import { lineChart, thin } from '../report/charts/line-chart.ts';
import { layout } from '../report/charts/modules.ts';
import { pictureOf } from '../report/embed.ts';
import { framed } from '../report/frame.ts';
import { html, type Markup } from '../report/html.ts';
import { beside, chart, parts, tableFrame } from '../report/panel.ts';
import type { RunRecord } from '../run/record.ts';
import { counted, duration, number } from '../words/format.ts';
import { compare, conclude, conclusions, rankAgreement, rankUse } from './compare.ts';
import type { Arm, Experiment } from './config.ts';
import { costTable, type Flops, memoryOverTime } from './costs.ts';
import { MEASURES, type Measure } from './measures.ts';
import type { State } from './state.ts';
import { gridTables, type Table, tablesOf } from './tables.ts';

/** the finished runs of a method */
const finished = (states: readonly State[], arm: Arm): readonly RunRecord[] =>
  states.flatMap((s) => (s.state === 'done' && s.run.arm.name === arm.name ? [s.record] : []));

const table = ({ title, head, rows }: Table): Markup =>
  tableFrame(
    html`<table><caption>${title}</caption><thead><tr>${head.map((h) => html`<th scope="col">${h}</th>`)}</tr></thead><tbody>${rows.map(([name, ...cells]) => html`<tr><th scope="row">${name!}</th>${cells.map((c) => html`<td class="n">${c}</td>`)}</tr>`)}</tbody></table>`,
    title,
  );

/** How the lines of a method are drawn: with more of them than colours the second round is dashed. */
const strokeOf = (i: number) => ({
  color: series[i % series.length]!,
  kind: i % (2 * series.length) < series.length ? ('line' as const) : ('dashed' as const),
});

/** Validation losses: the mean over seeds at each step that all of them have, and every seed's own points. */
function curves(e: Experiment, states: readonly State[]): string | undefined {
  const lines = e.arms.flatMap((arm, i) => {
    const runs = finished(states, arm);
    const all = runs.flatMap((r) => r.validations.map((v) => ({ step: v.step, value: v.loss })));
    const points = [...group(all, (p) => p.step)]
      .filter(([, at]) => at.length === runs.length)
      .map(([step, at]) => ({ step, value: mean(at, (p) => p.value)! }))
      .sort((a, b) => a.step - b.step);
    const { color, kind } = strokeOf(i);
    return [
      { name: arm.name, color, points, kind },
      ...(runs.length > 1 ? [{ name: 'each seed', color, points: all, kind: 'faint' as const }] : []),
    ];
  });
  return lineChart(lines, {
    title: 'Validation loss: mean over seeds, and each seed',
    description: 'Mean validation loss of every method over its seeds, with the points of single seeds.',
    y: 'validation loss',
    log: true,
  });
}

/** Where the ranks of a method went: the mean over its seeds, and each seed's own maps beside it (figures 3 and 4). */
function ranks(arm: Arm, states: readonly State[]): Markup | undefined {
  const runs = finished(states, arm).filter((r) => r.modules.length > 0);
  if (runs.length === 0) return undefined;
  const modules = group(
    runs.flatMap((r) => r.modules),
    (m) => m.path,
  );
  const average = [...modules].map(([p, rows]) => [p, rows.reduce((n, m) => n + m.rank, 0) / runs.length] as const);
  const maps = drawRankMaps(layout(average));
  const seeds = runs.map((r) => ({
    seed: String(r.settings.seed),
    maps: drawRankMaps(layout(r.modules.map((m) => [m.path, m.rank] as const))),
  }));
  const agreement = rankAgreement(states, arm.name);
  const use = rankUse(states, arm.name);
  const sentences = [
    agreement &&
      `Rank correlation between seeds (Spearman over the modules, mean of ${counted(agreement.pairs, 'pair')}): ${number(agreement.mean, 2)}.`,
    use &&
      `Of ${number(use.granted, 4)} ranks granted, ${number(use.used, 4)} are used (participation ratio of what changed)${Number.isFinite(use.correlation) ? `; over the modules the two correlate by ${number(use.correlation, 2)} (Spearman)` : ''}.`,
  ].filter((text) => text !== undefined);
  const own =
    seeds.length > 1
      ? html`<details><summary>Each seed’s ranks</summary>${seeds.map(
          ({ seed, maps: m }) => html`<h4>Seed ${seed}</h4>${beside(chart(m.unet), chart(m.text))}`,
        )}</details>`
      : undefined;
  return html`<h3>${arm.name}</h3>${sentences.length > 0 && html`<p class="lead">${sentences.join(' ')}</p>`}${beside(
    chart(maps.unet),
    chart(maps.text),
  )}${own}`;
}

/** The process's memory over the steps, a line for each method (figures 11 and 12). */
function memory(e: Experiment, states: readonly State[]): string | undefined {
  const lines = e.arms.flatMap((arm, i) => {
    const points = memoryOverTime(arm, states);
    return points.length === 0 ? [] : [{ name: arm.name, ...strokeOf(i), points: thin(points, 400) }];
  });
  return lineChart(lines, {
    title: 'Memory while training: mean over seeds',
    description: "The process's resident memory after every step, a line for each method.",
    y: 'MiB',
  });
}

/** Seconds by phase and method: means over seeds. */
function phases(e: Experiment, states: readonly State[]): Table {
  const names = [...new Set(states.flatMap((s) => (s.state === 'done' ? s.record.phases.map((p) => p.name) : [])))];
  return {
    title: 'Where the time went: mean over seeds',
    head: ['', ...e.arms.map((a) => a.name)],
    rows: names.map((name) => [
      name,
      ...e.arms.map((arm) => {
        const all = finished(states, arm).flatMap((r) => r.phases.filter((p) => p.name === name));
        return all.length === 0 ? '–' : duration(mean(all, (p) => p.seconds)!);
      }),
    ]),
  };
}

/** Most reports whose pictures the page holds: the paper's protocol draws a thousand. */
const SHOWN = 12;

/** The same reports from the same noise by every method: of the first seed that all of them have finished. */
async function pictures(e: Experiment, states: readonly State[]): Promise<Markup | undefined> {
  const seed = e.seeds.find((s) => e.arms.every((arm) => finished(states, arm).some((r) => r.settings.seed === s)));
  if (seed === undefined) return undefined;
  const runs = e.arms.map((arm) => ({ arm, run: finished(states, arm).find((r) => r.settings.seed === seed)! }));
  const [first] = runs;
  const figure = async (run: RunRecord, file: string, label: string, alt: string) => {
    const image = await pictureOf(path.join(run.folder, file), alt);
    return html`<figure>${image}<figcaption><span class="label">${label}</span></figcaption></figure>`;
  };
  const cards: Markup[] = [];
  const all = first!.run.samples;
  for (const sample of all.slice(0, SHOWN)) {
    const strip: Markup[] = [];
    for (const p of sample.pictures)
      if (p.label !== 'adapted') strip.push(await figure(first!.run, p.file, p.label, `${p.label}: ${sample.report}`));
    for (const { arm, run } of runs) {
      const own = run.samples.find((s) => s.report === sample.report)?.pictures.find((p) => p.label === 'adapted');
      if (own) strip.push(await figure(run, own.file, arm.name, `${arm.name}: ${sample.report}`));
    }
    cards.push(
      html`<article class="sample"><blockquote>${sample.report}</blockquote><div class="strip">${strip}</div></article>`,
    );
  }
  return cards.length === 0
    ? undefined
    : html`<p class="lead">Held-out reports of the runs with seed ${String(seed)}, not chosen; base and methods start from the same noise${all.length > SHOWN ? `; the first ${SHOWN} of ${all.length}` : ''}.</p>${cards}`;
}

const missingLine = (s: State): string =>
  `${s.run.arm.name}, seed ${s.run.seed}: ${s.state === 'unfinished' ? s.why : s.state}`;

/** The whole page. Reads the pictures of run folders, writes nothing. */
export async function renderExperiment(
  e: Experiment,
  found: readonly State[],
  flops: Flops = new Map(),
  measures: readonly Measure[] = MEASURES,
): Promise<string> {
  const states = found.map(
    (s): State => (s.state === 'done' ? { ...s, record: { ...printableDeep(s.record), folder: s.record.folder } } : s),
  );
  const rows = compare(e, states, measures);
  const done = states.filter((s) => s.state === 'done').length;
  const missing = states.filter((s) => s.state !== 'done').map(missingLine);
  const said = conclusions(e, rows);
  // of all that may be said the first measure's comparisons stand open, and what holds for all of them
  const first = e.arms.flatMap(({ name }) => (rows[0] && conclude(rows[0], name, e.against)) ?? []);
  const general = said.filter((t) => !e.arms.some(({ name }) => t.startsWith(`${name} against `)));
  const others = said.filter((t) => !first.includes(t) && !general.includes(t));
  const shown = await pictures(e, states);
  const sections = [
    {
      id: 'tables',
      title: 'Tables',
      body: parts([...tablesOf(e, rows), ...gridTables(e, rows)].filter((t) => t.rows.length > 0).map(table)),
    },
    { id: 'curves', title: 'How they learned', body: chart(curves(e, states)) },
    { id: 'ranks', title: 'Where the ranks went', body: parts(e.arms.map((arm) => ranks(arm, states))) },
    { id: 'pictures', title: 'Pictures', body: shown },
    {
      id: 'time',
      title: 'Time and memory',
      body:
        done > 0
          ? parts([table(costTable(e, states, flops)), chart(memory(e, states)), table(phases(e, states))])
          : undefined,
    },
  ].filter((s) => s.body !== undefined);
  const content = html`<header>
<p class="eyebrow">Experiment · ${e.name}</p>
<h1>What do ${counted(e.arms.length, 'method')} do on ${counted(e.seeds.length, 'seed')}?</h1>
<p class="answer" id="answer">${done} of ${counted(states.length, 'run')} finished; the others are compared with ${e.against}.</p>
${said.length > 0 && html`<h2 class="small">What may be concluded</h2><ul class="plain">${[...first, ...general].map((t) => html`<li>${t}</li>`)}</ul>`}
${others.length > 0 && html`<details><summary>By the other measures: ${counted(others.length, 'comparison')}</summary><ul class="plain">${others.map((t) => html`<li>${t}</li>`)}</ul></details>`}
${missing.length > 0 && html`<div class="alert" role="note"><p>Not in the tables:</p><ul class="plain">${missing.map((t) => html`<li>${t}</li>`)}</ul></div>`}
${sections.length > 1 && html`<nav aria-label="Contents">${sections.map((s) => html`<a href="#${s.id}">${s.title}</a>`)}</nav>`}
</header>
<main>
${sections.map((s) => html`<section id="${s.id}"><h2>${s.title}</h2>${s.body}</section>`)}
</main>`;
  return framed(`Experiment ${e.name}`, content);
}
