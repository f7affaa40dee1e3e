/**
 * A panel: one part of the page that owns its data. It takes what it shows out of the run's own records and draws it;
 * nothing that it shows is put together elsewhere. And the small parts that panels are made of.
 */
import type { Fact, RunRecord } from '../run/record.ts';
import { wilson } from '../words/statistics.ts';
import { html, type Markup, trusted } from './html.ts';

/** What a panel may ask of the page it is drawn on. */
export interface Page {
  readonly run: RunRecord;
  /** A picture file of the run, re-encoded into the page; where there is none, a field that says why. */
  readonly picture: (file: string, alt: string) => Promise<Markup>;
}

/** A panel as drawn: its part of the page, the charts (each a file of its own, too), and what the page's script reads. */
export interface Drawn {
  readonly body: Markup | undefined;
  readonly charts?: Readonly<Record<string, string | undefined>>;
  readonly script?: Readonly<Record<string, unknown>>;
}

/** A headline number at the top of the page; low places come first. */
export interface Headline extends Fact {
  readonly place: number;
}

export interface Panel<D> {
  /** anchor in the page: one lower-case word */
  readonly id: string;
  readonly title: string;
  /** What it shows, from the run's records; undefined where the run has nothing of it. */
  readonly data: (run: RunRecord) => D | undefined;
  readonly draw: (data: D, page: Page) => Drawn | Promise<Drawn>;
  /** Its numbers for the head of the page. */
  readonly headlines?: (run: RunRecord) => readonly Headline[];
  /** Sentences that compare this run with others, for the head of the page. */
  readonly sentences?: (run: RunRecord) => readonly string[];
  /** What a reader must be warned of. */
  readonly warnings?: (run: RunRecord) => readonly string[];
}

/** A panel whose data nobody outside sees. */
export type AnyPanel = Omit<Panel<never>, 'data' | 'draw'> & {
  readonly show: (page: Page) => Promise<Drawn | undefined>;
};

/**
 * Closes a panel over its data.
 * @example definePanel({ id: 'rate', title: 'Learning rate', data: (run) => run.metrics.map((m) => m.lr), draw: … })
 */
export function definePanel<D>({ data, draw, ...rest }: Panel<D>): AnyPanel {
  return {
    ...rest,
    show: async (page) => {
      const shown = data(page.run);
      return shown === undefined ? undefined : draw(shown, page);
    },
  };
}

/** A chart of ours in its frame; `wide` charts scroll sideways rather than shrink. */
export const chart = (svg: string | undefined, wide = false): Markup | undefined =>
  svg === undefined ? undefined : html`<div class="chart${wide ? ' wide' : ''}">${trusted(svg)}</div>`;

/** Label and value pairs in columns. */
export const factList = (facts: readonly Fact[]): Markup | undefined =>
  facts.length === 0
    ? undefined
    : html`<dl class="facts">${facts.map((f) => html`<div><dt>${f.label}</dt><dd>${f.value}${f.note && html` <span class="muted">${f.note}</span>`}</dd></div>`)}</dl>`;

/** What is there of several parts; undefined where there is nothing. */
export const parts = (list: readonly (Markup | undefined)[]): Markup | undefined => {
  const found = list.filter((m) => m !== undefined);
  return found.length === 0 ? undefined : html`${found}`;
};

/** Two charts next to each other where the page is wide enough. */
export const beside = (a: Markup | undefined, b: Markup | undefined): Markup | undefined =>
  a || b ? html`<div class="side">${a}${b}</div>` : undefined;

/** A table that scrolls in its own frame where the page is too narrow. */
export const tableFrame = (table: Markup, label: string): Markup =>
  html`<div class="tablewrap" role="region" aria-label="${label}" tabindex="0">${table}</div>`;

/** Share and Wilson's 95% interval as a small bar. */
export function intervalBar(right: number, n: number): Markup {
  const [low, high] = wilson(right, n).map((v) => v * 180);
  const at = n === 0 ? 0 : (right / n) * 180;
  return trusted(
    `<svg class="interval" viewBox="0 0 180 16" aria-hidden="true"><line x1="0" x2="180" y1="8" y2="8" stroke="#d9dde3"/><line x1="${low!.toFixed(1)}" x2="${high!.toFixed(1)}" y1="8" y2="8" stroke="#0072b2" stroke-width="3" stroke-opacity=".45"/><circle cx="${at.toFixed(1)}" cy="8" r="4" fill="#0072b2"/></svg>`,
  );
}
