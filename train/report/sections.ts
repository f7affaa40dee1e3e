/** The page's sections from top to bottom, first half: what came out. Each is markup, or nothing where there is no data. */

import { counted, integer, methodName, number, percent } from '../words/format.ts';
import { comparisonSentences, headlines, warnings } from './derive.ts';
import type { Embedded } from './embed.ts';
import { type ModuleHistory, wilson } from './history.ts';
import { html, type Markup, trusted } from './html.ts';
import type { Fact, RunSummary, Sample } from './summary.ts';

/** A section with the name it has in the table of contents. */
export interface Section {
  readonly id: string;
  readonly title: string;
  readonly body: Markup;
}

export const section = (id: string, title: string, body: Markup | undefined): readonly Section[] =>
  body === undefined ? [] : [{ id, title, body }];

/** A chart of ours in its frame; `wide` charts scroll sideways rather than shrink. */
export const chart = (svg: string | undefined, wide = false): Markup | undefined =>
  svg === undefined ? undefined : html`<div class="chart${wide ? ' wide' : ''}">${trusted(svg)}</div>`;

/** Label and value pairs in columns. */
export const factList = (facts: readonly Fact[]): Markup | undefined =>
  facts.length === 0
    ? undefined
    : html`<dl class="facts">${facts.map((f) => html`<div><dt>${f.label}</dt><dd>${f.value}${f.note && html` <span class="muted">${f.note}</span>`}</dd></div>`)}</dl>`;

/** Question, answer, headline numbers, warnings in short, contents. */
export function head(s: RunSummary, histories: readonly ModuleHistory[], contents: readonly Section[]): Markup {
  const facts = headlines(s, histories);
  const sentences = comparisonSentences(s);
  const list = warnings(s);
  const origin = [methodName(s.method), s.name, s.started].filter(Boolean).join(' · ');
  return html`<header>
<p class="eyebrow">${origin}</p>
<h1>${s.question}</h1>
${s.answer && html`<p class="answer">${s.answer}</p>`}
${facts.length > 0 && html`<dl class="numbers">${facts.map((f) => html`<div><dt>${f.label}</dt><dd><span class="value">${f.value}</span>${f.note && html`<div class="note">${f.note}</div>`}</dd></div>`)}</dl>`}
${sentences.length > 0 && html`<h3>Against the other methods</h3><ul class="plain">${sentences.map((t) => html`<li>${t}</li>`)}</ul>`}
${list.length > 0 && html`<div class="alert" role="note"><ul class="plain">${list.map((w) => html`<li>${w}</li>`)}</ul></div>`}
${contents.length > 1 && html`<nav aria-label="Contents">${contents.map((c) => html`<a href="#${c.id}">${c.title}</a>`)}</nav>`}
</header>`;
}

/** An embedded picture or a grey field that says why there is none. */
export function image(embedded: Embedded | undefined, alt: string): Markup {
  if (embedded === undefined || 'missing' in embedded) {
    return html`<div class="gap">picture left out: ${embedded?.missing ?? 'not embedded'}</div>`;
  }
  return html`<img src="${trusted(embedded.src)}" width="${embedded.width}" height="${embedded.height}" alt="${alt}">`;
}

function verdict(p: Sample['pictures'][number]): Markup | undefined {
  if (p.verdict === undefined && p.right === undefined) return undefined;
  const sign =
    p.right === undefined
      ? undefined
      : p.right
        ? html`<span class="right">✓ right</span>`
        : html`<span class="wrong">✗ wrong</span>`;
  return html`<div class="muted">${sign}${sign && p.verdict ? ' · ' : ''}${p.verdict}</div>`;
}

/** Real | base | adapted per held-out report. `embedded[i][j]` is picture j of sample i. */
export function samples(s: RunSummary, embedded: ReadonlyArray<readonly Embedded[]>): Markup | undefined {
  if (s.samples.length === 0) return undefined;
  const splits = [...new Set(s.samples.map((x) => x.split))].join(', ');
  const cards = s.samples.map(
    (x, i) => html`<article class="sample"><blockquote>${x.report}</blockquote>
<div class="strip">${x.pictures.map((p, j) => html`<figure>${image(embedded[i]?.[j], `${p.label}: ${x.report}`)}<figcaption><span class="label">${p.label}</span>${verdict(p)}</figcaption></figure>`)}</div>
${x.note && html`<p class="muted">${x.note}</p>`}</article>`,
  );
  const held = s.samples.every((x) => x.split !== 'train') ? ', none of them trained on' : '';
  return html`<p class="lead">${counted(s.samples.length, 'report')} from the split “${splits}”${held}. ${s.samplesNote}</p><div class="samples">${cards}</div>`;
}

/** Share and Wilson's 95% interval as a small bar. */
function interval(right: number, n: number): Markup {
  const [low, high] = wilson(right, n).map((v) => v * 180);
  const at = n === 0 ? 0 : (right / n) * 180;
  return trusted(
    `<svg class="interval" viewBox="0 0 180 16" aria-hidden="true"><line x1="0" x2="180" y1="8" y2="8" stroke="#d9dde3"/><line x1="${low!.toFixed(1)}" x2="${high!.toFixed(1)}" y1="8" y2="8" stroke="#0072b2" stroke-width="3" stroke-opacity=".45"/><circle cx="${at.toFixed(1)}" cy="8" r="4" fill="#0072b2"/></svg>`,
  );
}

/** Findings drawn as told, per method, with 95% intervals. */
export function obedience(s: RunSummary): Markup | undefined {
  const table = s.obedience;
  if (table === undefined || table.rows.length === 0) return undefined;
  const questions = [...new Set(table.rows.flatMap((r) => r.scores.map((x) => x.question)))];
  const own = (r: { method: string }) => r.method.toLowerCase() === s.method.toLowerCase() && trusted(' class="own"');
  const cell = (r: (typeof table.rows)[number], question: string): Markup => {
    const score = r.scores.find((x) => x.question === question);
    return score === undefined || score.n === 0
      ? html`<td class="muted">–</td>`
      : html`<td${own(r)}>${integer(score.right)} of ${integer(score.n)} <span class="muted">${percent(score.right / score.n)}</span>${interval(score.right, score.n)}</td>`;
  };
  const heads = table.rows.map(
    (r) =>
      html`<th scope="col"${own(r)}>${methodName(r.method)}${r.parameters !== undefined && html`<div class="muted">${integer(r.parameters)} parameters</div>`}</th>`,
  );
  const rows = questions.map((q) => html`<tr><th scope="row">${q}</th>${table.rows.map((r) => cell(r, q))}</tr>`);
  return html`<p class="lead">${table.what}</p><div class="tablewrap"><table><caption>Bars: 95% intervals (Wilson), 0 to 100%.</caption>
<thead><tr><th scope="col">question</th>${heads}</tr></thead><tbody>${rows}</tbody></table></div>`;
}

/** Nearest training pictures: has the model copied? */
export function memorisation(
  s: RunSummary,
  embedded: ReadonlyArray<readonly [Embedded, Embedded]>,
): Markup | undefined {
  const m = s.memorisation;
  if (m === undefined) return undefined;
  const [low, high] = wilson(m.below, m.n);
  const pairs = m.pairs.map(
    (p, i) =>
      html`<article class="sample"><div class="strip"><figure>${image(embedded[i]?.[0], 'sample')}<figcaption><span class="label">sample</span></figcaption></figure><figure>${image(embedded[i]?.[1], 'nearest training picture')}<figcaption><span class="label">nearest training picture</span></figcaption></figure></div><figcaption class="muted">distance ${number(p.distance)}${p.label && ` · ${p.label}`}</figcaption></article>`,
  );
  return html`<p>${integer(m.below)} of ${counted(m.n, 'sample')} lie below the threshold of ${number(m.threshold)} (95% interval ${percent(low)} to ${percent(high)}). Measure: ${m.measure}.</p>${pairs.length > 0 && html`<div class="samples">${pairs}</div>`}`;
}
