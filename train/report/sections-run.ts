/** The page's sections, second half: how the run went, what it cost, what it was made of, how to repeat it. */

import { bytes, duration, integer, number, percent } from '../words/format.ts';
import type { Layout } from './charts/modules.ts';
import { trainedParameters } from './derive.ts';
import type { ModuleHistory } from './history.ts';
import { html, type Markup } from './html.ts';
import { chart, factList } from './sections.ts';
import type { RunSummary } from './summary.ts';

/** The run's charts as page parts, by file name without `.svg`. */
export type Charts = Readonly<Record<string, string | undefined>>;

const parts = (list: readonly (Markup | undefined)[]): Markup | undefined => {
  const found = list.filter((m) => m !== undefined);
  return found.length === 0 ? undefined : html`${found}`;
};

/** Two charts next to each other where the page is wide enough. */
const beside = (a: Markup | undefined, b: Markup | undefined): Markup | undefined =>
  a || b ? html`<div class="side">${a}${b}</div>` : undefined;

export const curves = (c: Charts): Markup | undefined => parts([chart(c.loss), chart(c.shuffled)]);

/** Rank maps, change maps, what did not fit a map, and every module as a table. */
export function rankMaps(
  c: Charts,
  other: Layout<number>['other'],
  histories: readonly ModuleHistory[],
): Markup | undefined {
  if (histories.length === 0) return undefined;
  const rest =
    other.length === 0
      ? undefined
      : html`<h3>Modules with no place in the maps</h3><ul class="plain">${other.slice(0, 40).map((m) => html`<li>${m.path}: rank ${m.value}</li>`)}${other.length > 40 && html`<li class="muted">and ${other.length - 40} more</li>`}</ul>`;
  const legend = html`<p class="lead">Rows are kinds of layer, columns places in the network from input to output: d01 is down block 0, transformer 1; mid the middle (m1 its second resnet); u32 up block 3, transformer 2; t1 and t2 the time embedding. Hover a cell for its history and FI ratios.</p>`;
  return parts([
    legend,
    beside(chart(c['rank-unet'], true), chart(c['rank-text-encoder'], true)),
    rest,
    beside(chart(c['change-unet'], true), chart(c['change-text-encoder'], true)),
    chart(c['rank-change'], true),
    moduleTable(histories),
  ]);
}

function moduleTable(histories: readonly ModuleHistory[]): Markup {
  const rows = histories.map((h) => {
    const last = h.tests.at(-1);
    const grown = h.tests.filter((t) => t.expanded);
    return html`<tr><th scope="row">${h.path}</th><td class="n">${h.start}</td><td class="n">${h.rank}</td><td class="n">${number(h.change)}</td><td class="n">${grown.length} of ${h.tests.length}</td><td class="n">${number(last?.ratio)}</td></tr>`;
  });
  return html`<details><summary>All ${histories.length} modules as a table</summary><div class="tablewrap"><table><thead><tr><th scope="col">module</th><th scope="col" class="n">first rank</th><th scope="col" class="n">rank</th><th scope="col" class="n">‖ΔW‖/‖W‖</th><th scope="col" class="n">grew in tests</th><th scope="col" class="n">last FI ratio</th></tr></thead><tbody>${rows}</tbody></table></div></details>`;
}

export const growth = (c: Charts): Markup | undefined =>
  parts([chart(c['rank-total']), chart(c.expansions), chart(c['rank-history']), chart(c.ratios)]);

/** Where time and memory went. */
export function costs(s: RunSummary, c: Charts): Markup | undefined {
  const total = s.phases.reduce((sum, p) => sum + (Number.isFinite(p.seconds) ? p.seconds : 0), 0);
  const rows = s.phases.map(
    (p) =>
      html`<tr><th scope="row">${p.name}</th><td class="n">${duration(p.seconds)}</td><td class="n">${percent(p.seconds / total)}</td><td class="n">${p.calls === undefined ? '–' : integer(p.calls)}</td><td class="n">${p.calls ? perCall(p.seconds / p.calls) : '–'}</td><td class="n">${bytes(p.peakBytes)}</td></tr>`,
  );
  const table =
    rows.length === 0
      ? undefined
      : html`<div class="tablewrap"><table><thead><tr><th scope="col">phase</th><th scope="col" class="n">time</th><th scope="col" class="n">share</th><th scope="col" class="n">calls</th><th scope="col" class="n">per call</th><th scope="col" class="n">peak memory</th></tr></thead><tbody>${rows}</tbody></table></div>`;
  return parts([chart(c.time), table, chart(c.memory)]);
}

/** Milliseconds for what is short. */
const perCall = (seconds: number): string => (seconds < 1 ? `${number(seconds * 1000)} ms` : duration(seconds));

/** Data set and splits. */
export function data(s: RunSummary): Markup | undefined {
  const d = s.data;
  if (d === undefined) return undefined;
  const rows = d.splits.map(
    (x) =>
      html`<tr><th scope="row">${x.name}</th><td class="n">${integer(x.images)}</td><td class="n">${x.patients === undefined ? '–' : integer(x.patients)}</td><td class="n">${x.cut === undefined ? '–' : integer(x.cut)}</td><td><code>${x.hash ?? '–'}</code></td></tr>`,
  );
  const splits =
    rows.length > 0 &&
    html`<div class="tablewrap"><table><thead><tr><th scope="col">split</th><th scope="col" class="n">pictures</th><th scope="col" class="n">patients</th><th scope="col" class="n">captions cut at ${d.limit} ids</th><th scope="col">hash</th></tr></thead><tbody>${rows}</tbody></table></div>`;
  const duplicates = d.duplicates === undefined ? [] : [{ label: 'duplicate pictures', value: integer(d.duplicates) }];
  return html`<p>${d.source}</p>${splits}${factList([...duplicates, ...d.facts])}`;
}

/** The exact command, the resolved configuration, the machine. */
export function repeat(s: RunSummary): Markup | undefined {
  const parameters = trainedParameters(s);
  const size = parameters === undefined ? [] : [{ label: 'trained parameters', value: integer(parameters) }];
  const config = factList([...s.config, ...size]);
  const environment = factList(s.environment);
  if (s.command === '' && config === undefined && environment === undefined) return undefined;
  return parts([
    s.command === '' ? undefined : html`<pre>${s.command}</pre>`,
    config && html`<h3>Configuration</h3>${config}`,
    environment && html`<h3>Machine</h3>${environment}`,
  ]);
}
