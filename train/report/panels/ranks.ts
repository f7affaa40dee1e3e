/** Where the rank went: maps of ranks and of change, what did not fit a map, and every module as a table. */
import { mean, quantile } from 'd3-array';
import { trainedParameters } from '../../run/record.ts';
import { counted, integer, number } from '../../words/format.ts';
import { drawMap, drawRankMaps } from '../charts/heatmap.ts';
import { type Layout, layout, type Network } from '../charts/modules.ts';
import { inline } from '../charts/svg.ts';
import { rankAgainstChange } from '../charts/timelines.ts';
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
  const subtitle = `n = ${grid.cells.length}, median ${number(quantile(grid.cells, 0.5, (c) => c.value))}`;
  const description = 'Frobenius norm of the learned change relative to that of the frozen weight.';
  const format = (v: number): string => (Number.isFinite(v) ? v.toFixed(2).replace(/^0/, '') : '–');
  return inline(drawMap(grid, { title, subtitle, description, format, tooltip: (path, v) => `${path}: ${number(v)}` }));
}

function moduleTable(histories: readonly ModuleHistory[]): Markup {
  const rows = histories.map((h) => {
    const last = h.tests.at(-1);
    const grown = h.tests.filter((t) => t.expanded);
    return html`<tr><th scope="row">${h.path}</th><td class="n">${h.start}</td><td class="n">${h.rank}</td><td class="n">${number(h.change)}</td><td class="n">${grown.length} of ${h.tests.length}</td><td class="n">${number(last?.ratio)}</td></tr>`;
  });
  const table = html`<table><thead><tr><th scope="col">module</th><th scope="col" class="n">first rank</th><th scope="col" class="n">rank</th><th scope="col" class="n">‖ΔW‖/‖W‖</th><th scope="col" class="n">grew in tests</th><th scope="col" class="n">last FI ratio</th></tr></thead><tbody>${rows}</tbody></table>`;
  return html`<details><summary>All ${histories.length} modules as a table</summary>${tableFrame(table, 'All modules')}</details>`;
}

const legend = html`<p class="lead">Rows are kinds of layer, columns places in the network from input to output: d01 is down block 0, transformer 1; mid the middle (m1 its second resnet); u32 up block 3, transformer 2; t1 and t2 the time embedding. Hover a cell for its history and FI ratios.</p>`;

export const ranks = definePanel<readonly ModuleHistory[]>({
  id: 'ranks',
  title: 'Where the rank went',
  data: (run) => {
    const histories = moduleHistories(run);
    return histories.length === 0 ? undefined : histories;
  },
  draw: (histories) => {
    const placed = layout(histories.map((h) => [h.path, h.rank] as const));
    const changes = layout(histories.flatMap((h) => (h.change === undefined ? [] : [[h.path, h.change] as const])));
    const maps = drawRankMaps(placed, tooltip(histories));
    const charts = {
      'rank-unet': maps.unet,
      'rank-text-encoder': maps.text,
      'change-unet': changeMap(changes, 'unet'),
      'change-text-encoder': changeMap(changes, 'text'),
      'rank-change': rankAgainstChange(histories),
    };
    const { other } = placed;
    const rest =
      other.length === 0
        ? undefined
        : html`<h3>Modules with no place in the maps</h3><ul class="plain">${other.slice(0, 40).map((m) => html`<li>${m.path}: rank ${m.value}</li>`)}${other.length > 40 && html`<li class="muted">and ${other.length - 40} more</li>`}</ul>`;
    const body = parts([
      legend,
      beside(chart(charts['rank-unet'], true), chart(charts['rank-text-encoder'], true)),
      rest,
      beside(chart(charts['change-unet'], true), chart(charts['change-text-encoder'], true)),
      chart(charts['rank-change'], true),
      moduleTable(histories),
    ]);
    return { body, charts, script: { modules: packModules(histories) } };
  },
  headlines: (run) => {
    const histories = moduleHistories(run);
    if (histories.length === 0) return [];
    const sum = (pick: (h: ModuleHistory) => number): number => histories.reduce((t, h) => t + pick(h), 0);
    const [start, end] = [sum((h) => h.start), sum((h) => h.rank)];
    const parameters = trainedParameters(run);
    return [
      {
        place: 40,
        label: 'Total rank',
        value: start === end ? integer(end) : `${integer(start)} → ${integer(end)}`,
        note: `mean ${mean(histories, (h) => h.rank)!.toFixed(2)} over ${counted(histories.length, 'module')}, largest ${histories.reduce((m, h) => Math.max(m, h.rank), 0)}`,
      },
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
