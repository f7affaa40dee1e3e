/** Puts the panels together: one self-contained page, and the charts as files. */
import path from 'node:path';
import { printableDeep } from '../../models/io/error.ts';
import type { RunRecord } from '../run/record.ts';
import { methodName } from '../words/format.ts';
import { standalone } from './charts/svg.ts';
import { embed } from './embed.ts';
import { head } from './head.ts';
import { cspHash, html, jsonForScript, type Markup, trusted } from './html.ts';
import type { AnyPanel, Drawn, Page } from './panel.ts';
import { PANELS } from './panels/index.ts';
import { script } from './script.ts';
import { style } from './style.ts';

/** The finished report. `charts`: file name without extension → a complete SVG file. */
export interface Report {
  readonly html: string;
  readonly charts: ReadonlyMap<string, string>;
}

/** An embedded picture or a grey field that says why there is none. */
async function picture(folder: string, file: string, alt: string): Promise<Markup> {
  const embedded = await embed(path.join(folder, file));
  return 'missing' in embedded
    ? html`<div class="gap">picture left out: ${embedded.missing}</div>`
    : html`<img src="${trusted(embedded.src)}" width="${embedded.width}" height="${embedded.height}" alt="${alt}">`;
}

/**
 * Makes the whole report in memory. Reads the pictures' files, writes nothing, reaches no network.
 * @example await renderReport(await readRun('runs/first'))
 */
export async function renderReport(record: RunRecord, panels: readonly AnyPanel[] = PANELS): Promise<Report> {
  // Control characters are made visible in every text, once and for all panels; the folder's own name opens files.
  const run = { ...printableDeep(record), folder: record.folder };
  const page: Page = { run, picture: (file, alt) => picture(run.folder, file, alt) };
  const drawn: { readonly id: string; readonly title: string; readonly drawn: Drawn }[] = [];
  for (const { id, title, show } of panels) {
    const shown = await show(page);
    if (shown?.body !== undefined) drawn.push({ id, title, drawn: shown });
  }
  const sections = drawn.map(
    ({ id, title, drawn: { body } }) => html`<section id="${id}"><h2>${title}</h2>${body}</section>\n`,
  );
  const forScript = Object.assign({ modules: [] }, ...drawn.map((x) => x.drawn.script ?? {})) as object;
  const policy = `default-src 'none'; img-src data:; style-src ${cspHash(style)}; script-src ${cspHash(script)}; base-uri 'none'; form-action 'none'`;
  const markup = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${trusted(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>${methodName(run.method)} run ${run.name}</title>
<style>${trusted(style)}</style>
</head>
<body>
${head(run, panels, drawn)}
<main>
${sections}</main>
<footer>Made on this machine by selora-ts. The page loads nothing from anywhere: pictures, charts and numbers are inside this file.</footer>
<div id="tip" hidden></div>
<script type="application/json" id="run-data">${jsonForScript(forScript)}</script>
<script>${trusted(script)}</script>
</body>
</html>
`;
  const charts = drawn.flatMap((x) => Object.entries(x.drawn.charts ?? {}));
  const files = charts.flatMap(([name, svg]) => (svg === undefined ? [] : [[name, standalone(svg)] as const]));
  return { html: markup.markup, charts: new Map(files) };
}
