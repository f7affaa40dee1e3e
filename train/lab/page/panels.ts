/** The report's own panels, drawn into this page. Loaded when they are first needed: the charts' library comes along. */
import { printableDeep } from '../../../models/io/error.ts';
import { head } from '../../report/head.ts';
import { html, jsonForScript, type Markup } from '../../report/html.ts';
import type { AnyPanel } from '../../report/panel.ts';
import { PANELS } from '../../report/panels/index.ts';
import type { RunRecord } from '../../run/record.ts';

/** A part of a run's page: its head, or a panel. */
export interface Part {
  readonly id: string;
  readonly title: string;
  readonly markup: string;
}

/** The order of the page. */
export const PARTS: readonly string[] = ['head', ...PANELS.map(({ id }) => id)];

/**
 * Everything the report says of a run.
 * @param address of a picture of the run, by its file in the folder
 */
export async function partsOf(
  record: RunRecord,
  address: (file: string) => string,
  panels: readonly AnyPanel[] = PANELS,
): Promise<readonly Part[]> {
  const run = printableDeep(record);
  const picture = async (file: string, alt: string): Promise<Markup> => html`<img src="${address(file)}" alt="${alt}">`;
  const parts: Part[] = panels === PANELS ? [{ id: 'head', title: '', markup: head(run, panels, []).markup }] : [];
  for (const { id, title, show } of panels) {
    const drawn = await show({ run, picture });
    if (drawn?.body === undefined) continue;
    const data = drawn.script
      ? html`<script type="application/json">${jsonForScript({ modules: [], ...drawn.script })}</script>`
      : html``;
    parts.push({ id, title, markup: drawn.body.markup + data.markup });
  }
  return parts;
}

/** The page has a heading of its own: those of a run's head stand one level lower. */
const BELOW: Readonly<Record<string, string>> = { H1: 'h2', H2: 'h3' };

/**
 * Markup of the report as elements. It was made by the report's templates, which escape all that comes from outside.
 * @param name of the run, where several stand on one page
 */
export function elementsOf(markup: string, name?: string): DocumentFragment {
  const parsed = new DOMParser().parseFromString(`<body>${markup}</body>`, 'text/html');
  for (const heading of parsed.querySelectorAll('h1, h2')) {
    const lower = parsed.createElement(BELOW[heading.tagName]!);
    if (heading.className) lower.className = heading.className;
    lower.append(...heading.childNodes);
    heading.replaceWith(lower);
  }
  if (name !== undefined)
    for (const region of parsed.querySelectorAll('[role=region][aria-label]'))
      region.setAttribute('aria-label', `${region.getAttribute('aria-label')}, ${name}`);
  for (const named of parsed.querySelectorAll(':not(svg *)[id]')) named.removeAttribute('id');
  const fragment = document.createDocumentFragment();
  fragment.append(...parsed.body.childNodes);
  return document.importNode(fragment, true);
}

let loaded = false;
/** After something was drawn: the report's script names cells, and shows their histories where they are pointed at. */
export function enliven(): void {
  // once it stands in the document
  setTimeout(() => document.dispatchEvent(new Event('drawn')));
  if (loaded) return;
  loaded = true;
  const tip = document.createElement('div');
  tip.id = 'tip';
  tip.hidden = true;
  const script = document.createElement('script');
  script.src = 'report.js';
  document.body.append(tip, script);
}
