/** Puts the panels together: one self-contained page, and the charts as files. */
import path from 'node:path';
import { printableDeep } from '../../models/io/error.ts';
import { nameOfRun } from '../run/name.ts';
import type { RunRecord } from '../run/record.ts';
import { standalone } from './charts/svg.ts';
import { pictureOf } from './embed.ts';
import { framed } from './frame.ts';
import { head } from './head.ts';
import { html, jsonForScript } from './html.ts';
import type { AnyPanel, Drawn, Page } from './panel.ts';
import { PANELS } from './panels/index.ts';
import { script } from './script.ts';

/** The finished report. `charts`: file name without extension → a complete SVG file. */
export interface Report {
  readonly html: string;
  readonly charts: ReadonlyMap<string, string>;
}

/**
 * Makes the whole report in memory. Reads the pictures' files, writes nothing, reaches no network.
 * @example await renderReport(await readRun('runs/first'))
 */
export async function renderReport(record: RunRecord, panels: readonly AnyPanel[] = PANELS): Promise<Report> {
  // Control characters are made visible in every text, once and for all panels; the folder's own name opens files.
  const run = { ...printableDeep(record), folder: record.folder };
  const drawing: Page = { run, picture: (file, alt) => pictureOf(path.join(run.folder, file), alt) };
  const drawn: { readonly id: string; readonly title: string; readonly drawn: Drawn }[] = [];
  for (const { id, title, show } of panels) {
    const shown = await show(drawing);
    if (shown?.body !== undefined) drawn.push({ id, title, drawn: shown });
  }
  const sections = drawn.map(
    ({ id, title, drawn: { body } }) => html`<section id="${id}"><h2>${title}</h2>${body}</section>\n`,
  );
  const forScript = Object.assign({ modules: [] }, ...drawn.map((x) => x.drawn.script ?? {})) as object;
  const page = html`${head(run, panels, drawn)}
<main>
${sections}</main>
<div id="tip" hidden></div>
<script type="application/json" id="run-data">${jsonForScript(forScript)}</script>`;
  const charts = drawn.flatMap((x) => Object.entries(x.drawn.charts ?? {}));
  const files = charts.flatMap(([name, svg]) => (svg === undefined ? [] : [[name, standalone(svg)] as const]));
  return { html: framed(`${nameOfRun(run)} run ${run.name}`, page, script), charts: new Map(files) };
}
