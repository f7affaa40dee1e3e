/** Where the rank went: maps of ranks and of change, what did not fit a map, and every module as a table. */
import { mean } from 'd3-array';
import { trainedParameters } from '../../run/record.ts';
import { counted, integer, number, percent } from '../../words/format.ts';
import { drawChangeMaps, drawRankMaps } from '../charts/heatmap.ts';
import { columnWords, kindsOf, type Layout, layout } from '../charts/modules.ts';
import { rankAgainstChange, rankChangeCorrelation } from '../charts/scatter.ts';
import { type ModuleHistory, moduleHistories } from '../history.ts';
import { html, type Markup } from '../html.ts';
import { beside, chart, definePanel, parts, tableFrame } from '../panel.ts';
import { packModules } from '../script.ts';

/** What hovering a cell says where scripts are off: rank, change, and the last expansions with their FI ratios. */
function tooltip(histories: readonly ModuleHistory[]): (path: string, rank: number) => string {
  const byPath = new Map(histories.map((h) => [h.path, h]));
  return (path) => {
    const h = byPath.get(path)!;
    const grown = h.tests.filter((t) => t.expanded);
    const last = h.tests.at(-1);
    const lines = [
      `${path}: rank ${h.rank}${h.used === undefined ? '' : `, used ${tenth(h.used)}`}${h.change === undefined ? '' : `, ‖ΔW‖/‖W‖ ${number(h.change)}`}`,
      h.tests.length > 0 && `from ${h.start}; grew in ${h.grown} of ${h.tested} tests`,
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

/** A module without ranks uses none and has no parameters; an adapter's file does not name it. */
const sumOf = (list: readonly ModuleHistory[], pick: (h: ModuleHistory) => number | undefined): number =>
  list.reduce((total, h) => total + (h.rank === 0 ? 0 : (pick(h) ?? Number.NaN)), 0);
const parametersOf = (h: ModuleHistory): number => h.rank * (h.width ?? Number.NaN);
/** One decimal; `–` where it is not known of every module. */
const tenth = (value: number): string => (Number.isFinite(value) ? value.toFixed(1) : '–');
const share = (part: number, whole: number): Markup | false =>
  Number.isFinite(part / whole) && html` <span class="muted">${percent(part / whole)}</span>`;

/** Where rank and parameters went, by kind of layer, and how much of the rank is used. */
function kindTable(histories: readonly ModuleHistory[]): Markup {
  const total = { rank: sumOf(histories, (h) => h.rank), parameters: sumOf(histories, parametersOf) };
  const row = (label: string, members: readonly ModuleHistory[]) => {
    const [rank, used] = [sumOf(members, (h) => h.rank), sumOf(members, (h) => h.used)];
    const parameters = sumOf(members, parametersOf);
    return html`<tr><th scope="row">${label}</th><td class="n">${members.length}</td><td class="n">${integer(rank)}${share(rank, total.rank)}</td><td class="n">${tenth(used)}${share(used, rank)}</td><td class="n">${Number.isFinite(parameters) ? integer(parameters) : '–'}${share(parameters, total.parameters)}</td></tr>`;
  };
  const rows = kindsOf(histories).map(({ label, members }) => row(label, members));
  const head = html`<tr><th scope="col">kind of layer</th><th scope="col" class="n">modules</th><th scope="col" class="n">rank granted, share of all</th><th scope="col" class="n">rank used, share of granted</th><th scope="col" class="n">parameters, share of all</th></tr>`;
  const table = tableFrame(
    html`<table><caption>Rank by kind of layer</caption><thead>${head}</thead><tbody>${rows}${row('all', histories)}</tbody></table>`,
    'Rank by kind of layer',
  );
  return html`<p>Of the rank granted, as much is used as directions carry the change: the participation ratio (Σσ²)²/Σσ⁴ of ΔW’s singular values, summed over modules.</p>${table}`;
}

function moduleTable(histories: readonly ModuleHistory[]): Markup {
  const rows = histories.map((h) => {
    const last = h.tests.at(-1);
    return html`<tr><th scope="row">${h.path}</th><td class="n">${h.start}</td><td class="n">${h.rank}</td><td class="n">${h.used === undefined ? '–' : tenth(h.used)}</td><td class="n">${number(h.change)}</td><td class="n">${h.grown} of ${h.tested}</td><td class="n">${number(last?.ratio)}</td></tr>`;
  });
  const table = html`<table><thead><tr><th scope="col">module</th><th scope="col" class="n">first rank</th><th scope="col" class="n">rank</th><th scope="col" class="n">used</th><th scope="col" class="n">‖ΔW‖/‖W‖</th><th scope="col" class="n">grew in tests</th><th scope="col" class="n">last FI ratio</th></tr></thead><tbody>${rows}</tbody></table>`;
  return html`<details><summary>All ${histories.length} modules as a table</summary>${tableFrame(table, 'All modules')}</details>`;
}

/** What the names in these maps mean; only those of this model. */
function legend({ unet, text }: Layout<number>): Markup | undefined {
  if (unet === undefined && text === undefined) return undefined;
  const words = columnWords(unet?.columns ?? []);
  const columns = [
    ...(unet
      ? [`columns are places in the network from input to output${words.length > 0 ? ` (${words.join('; ')})` : ''}`]
      : []),
    ...(text ? [`${unet ? 'those of the text encoder' : 'columns'} its layers`] : []),
  ];
  return html`<p class="lead">Rows are kinds of layer, ${columns.join(', ')}. Point at a cell, or go to it with Tab and the arrow keys, for its history.</p>`;
}

/** What the correlation says, in one sentence. */
export function correlationSentence(histories: readonly ModuleHistory[]): string | undefined {
  const { rho, n } = rankChangeCorrelation(histories);
  if (Number.isNaN(rho)) return undefined;
  const found =
    rho >= 0.5
      ? 'modules with more rank are, by and large, those whose weights changed most'
      : rho >= 0.2
        ? 'modules with more rank tend to have changed more, with many exceptions'
        : rho > -0.2
          ? 'rank and change have little to do with each other'
          : 'modules with more rank tend to have changed less';
  return `Spearman’s correlation of rank and relative change is ${number(rho, 2)} over ${counted(n, 'module')}: ${found}; it does not tell whether the rank was needed, since more rank also lets a weight change more.`;
}

export const ranks = definePanel<readonly ModuleHistory[]>({
  id: 'ranks',
  title: 'Where the rank went',
  data: (run) => {
    const histories = moduleHistories(run);
    return histories.length === 0 ? undefined : histories;
  },
  draw: (histories) => {
    const placed = layout(histories.map((h) => [h.path, h.rank] as const));
    const changes = drawChangeMaps(
      layout(histories.flatMap((h) => (h.change === undefined ? [] : [[h.path, h.change] as const]))),
      '‖ΔW‖/‖W‖',
    );
    const maps = drawRankMaps(placed, tooltip(histories));
    const charts = {
      'rank-unet': maps.unet,
      'rank-text-encoder': maps.text,
      'change-unet': changes.unet,
      'change-text-encoder': changes.text,
      'rank-change': rankAgainstChange(histories),
    };
    const { other } = placed;
    const sentence = correlationSentence(histories);
    const rest =
      other.length === 0
        ? undefined
        : html`<h3>Modules with no place in the maps</h3><ul class="plain">${other.slice(0, 40).map((m) => html`<li>${m.path}: rank ${m.value}</li>`)}${other.length > 40 && html`<li class="muted">and ${other.length - 40} more</li>`}</ul>`;
    const body = parts([
      legend(placed),
      beside(chart(charts['rank-unet'], true), chart(charts['rank-text-encoder'], true)),
      rest,
      beside(chart(charts['change-unet'], true), chart(charts['change-text-encoder'], true)),
      kindTable(histories),
      chart(charts['rank-change'], true),
      sentence === undefined ? undefined : html`<p>${sentence}</p>`,
      moduleTable(histories),
    ]);
    return { body, charts, script: { modules: packModules(histories) } };
  },
  headlines: (run) => {
    const histories = moduleHistories(run);
    if (histories.length === 0) return [];
    const [start, end] = [sumOf(histories, (h) => h.start), sumOf(histories, (h) => h.rank)];
    const [used, parameters] = [sumOf(histories, (h) => h.used), trainedParameters(run)];
    return [
      {
        place: 40,
        label: 'Total rank',
        value: start === end ? integer(end) : `${integer(start)} → ${integer(end)}`,
        note: `mean ${mean(histories, (h) => h.rank)!.toFixed(2)} over ${counted(histories.length, 'module')}, largest ${histories.reduce((m, h) => Math.max(m, h.rank), 0)}`,
      },
      ...(Number.isFinite(used)
        ? [
            {
              place: 45,
              label: 'Rank used',
              value: `${integer(used)} of ${integer(end)}`,
              note: `${percent(used / end)}: participation ratio of ΔW’s singular values, summed over modules`,
            },
          ]
        : []),
      ...(parameters === undefined ? [] : [{ place: 50, label: 'Trained parameters', value: integer(parameters) }]),
    ];
  },
  warnings: ({ modules }) => {
    const changes = modules.map((m) => m.change).filter((c) => c !== undefined);
    return changes.length > 0 && changes.every((c) => !(c > 0))
      ? ['Nothing was adapted: ΔW is zero in every module.']
      : [];
  },
});
