/** The head of the page: question, answer, headline numbers, comparisons and warnings, contents. */
import { nameOfRun } from '../run/name.ts';
import type { RunRecord } from '../run/record.ts';
import { answerOf } from './answer.ts';
import { html, type Markup } from './html.ts';
import type { AnyPanel } from './panel.ts';

export const QUESTION = 'Did the adapter learn what the reports say?';

/** The run's own warnings and those of the panels, each once. */
export const warningsOf = (run: RunRecord, panels: readonly AnyPanel[]): readonly string[] => [
  ...new Set([...run.warnings, ...panels.flatMap((p) => p.warnings?.(run) ?? [])]),
];

/** Question, answer, headline numbers, warnings in short, contents. */
export function head(
  run: RunRecord,
  panels: readonly AnyPanel[],
  contents: readonly { readonly id: string; readonly title: string }[],
): Markup {
  const facts = panels.flatMap((p) => p.headlines?.(run) ?? []).sort((a, b) => a.place - b.place);
  const sentences = panels.flatMap((p) => p.sentences?.(run) ?? []);
  const answer = answerOf(run);
  const list = warningsOf(run, panels);
  const origin = [nameOfRun(run), run.name].filter(Boolean).join(' · ');
  return html`<header>
<p class="eyebrow">${origin}</p>
<h1>${QUESTION}</h1>
${answer && html`<p class="answer" id="answer">${answer.sentences.join(' ')}</p>`}
${facts.length > 0 && html`<dl class="numbers">${facts.map((f) => html`<div><dt>${f.label}</dt><dd><span class="value">${f.value}</span>${f.note && html`<div class="note">${f.note}</div>`}</dd></div>`)}</dl>`}
${sentences.length > 0 && html`<h2 class="small">Against the other methods</h2><ul class="plain">${sentences.map((t) => html`<li>${t}</li>`)}</ul>`}
${list.length > 0 && html`<div class="alert" role="note"><ul class="plain">${list.map((w) => html`<li>${w}</li>`)}</ul></div>`}
${contents.length > 1 && html`<nav aria-label="Contents">${contents.map((c) => html`<a href="#${c.id}">${c.title}</a>`)}</nav>`}
</header>`;
}
