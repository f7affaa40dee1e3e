/** Do the pictures obey the report? Simple detectors read them back and are compared with what the report says. */

import { z } from 'zod';
import { toGrey } from '../data/pictures/grey.ts';
import { html, type Markup, trusted } from '../report/html.ts';
import { definePanel, intervalBar, tableFrame } from '../report/panel.ts';
import { nameOfRun } from '../run/name.ts';
import { count, type RunRecord } from '../run/record.ts';
import { integer, methodName, percent } from '../words/format.ts';
import { difference } from '../words/statistics.ts';
import { type FilmReading, filmReader } from './films/detectors.ts';
import { ALWAYS_NORMAL, judgeFilm, type Obedience, sayReading, scoreFilms } from './films/score.ts';
import { defineMetric, type Material, type Pictures } from './metric.ts';

const share = z.object({ right: count, n: count });
export const obedienceSchema = z.object({
  /** what was asked of whom */
  what: z.string(),
  rows: z.array(
    z.object({
      method: z.string(),
      parameters: count.optional(),
      scores: z.array(share.extend({ question: z.string() })),
      /** of the lungs (heart: films) with the finding, in how many it was read; of those without, in how many not */
      findings: z.array(z.object({ finding: z.string(), sensitivity: share, specificity: share })).default([]),
    }),
  ),
  readings: z
    .array(
      z.object({
        report: count,
        picture: z.enum(['real', 'autoencoder', 'base', 'adapted']),
        text: z.string(),
        right: z.boolean(),
      }),
    )
    .default([]),
});
export type ObedienceResult = z.output<typeof obedienceSchema>;

const questions = (o: Obedience) => [
  { question: 'each lung right', right: o.eachLung.right, n: o.eachLung.of },
  { question: 'clear lung left clear', right: o.clear.right, n: o.clear.of },
  { question: 'side right', right: o.side.right, n: o.side.of },
  { question: 'effusion seen', right: o.hit.effusion.right, n: o.hit.effusion.of },
  { question: 'opacity seen', right: o.hit.opacity.right, n: o.hit.opacity.of },
  { question: 'pneumothorax seen', right: o.hit.pneumothorax.right, n: o.hit.pneumothorax.of },
  { question: 'heart right', right: o.heart.right, n: o.heart.of },
  { question: 'whole report right', right: o.wholeReport.right, n: o.wholeReport.of },
];

const FINDINGS = ['effusion', 'opacity', 'pneumothorax', 'cardiomegaly'] as const;
const perFinding = (o: Obedience): ObedienceResult['rows'][number]['findings'] =>
  FINDINGS.map((finding) => {
    const [hit, alarm] = [o.hit[finding], o.falseAlarm[finding]];
    return {
      finding,
      sensitivity: { right: hit.right, n: hit.of },
      specificity: { right: alarm.of - alarm.right, n: alarm.of },
    };
  });

/** Rows that stand beside every model's. */
export const [REAL, DECODED] = ['real films', 'autoencoder only'] as const;
/** Rows that tell what could be reached, not what another method does. */
const CEILINGS: ReadonlySet<string> = new Set([REAL, DECODED]);

/**
 * Rows: what "always normal" would score; the real films, which is the detectors' ceiling; those through the autoencoder
 * alone; the untouched base; the adapted model.
 */
function compute(m: Material): ObedienceResult {
  const told = m.reports.map((r) => r.findings!);
  const reader = filmReader(m.side);
  const read = (films: Pictures): readonly FilmReading[] => films.map((p) => reader(toGrey(p)));
  const row = (method: string, films: readonly FilmReading[]) => {
    const scored = scoreFilms(told.map((t, i) => ({ told: t, read: films[i]! })));
    return { method, scores: questions(scored), findings: perFinding(scored) };
  };
  const films = {
    real: read(m.real),
    autoencoder: read(m.autoencoder),
    base: read(m.base),
    adapted: read(m.adapted),
  };
  return {
    what: `simple detectors on ${told.length} held-out reports, guidance ${m.guidance}`,
    rows: [
      row(
        'always normal',
        told.map(() => ALWAYS_NORMAL),
      ),
      row(REAL, films.real),
      ...(films.autoencoder.length === told.length ? [row(DECODED, films.autoencoder)] : []),
      row('base', films.base),
      { ...row(m.method, films.adapted), parameters: m.parameters },
    ],
    readings: (Object.keys(films) as (keyof typeof films)[]).flatMap((picture) =>
      films[picture].map((r, report) => ({
        report,
        picture,
        text: sayReading(r),
        right: judgeFilm(told[report]!, r).whole,
      })),
    ),
  };
}

type Row = ObedienceResult['rows'][number];
type Share = { readonly right: number; readonly n: number };

/** What a run's folder has of it, and the rows of the runs it is compared with. */
export function obedienceOf(run: Pick<RunRecord, 'method' | 'results' | 'compared'>): ObedienceResult | undefined {
  const own = obedienceSchema.safeParse(run.results.obedience).data;
  if (own === undefined || own.rows.length === 0) return undefined;
  const others = run.compared.flatMap(({ label, method, parameters, results }): Row[] => {
    const row = obedienceSchema.safeParse(results.obedience).data?.rows.find((r) => r.method === method);
    return row === undefined ? [] : [{ ...row, method: label, ...(parameters === undefined ? {} : { parameters }) }];
  });
  return { ...own, rows: [...own.rows, ...others] };
}

/** The row of this run's own method. */
export const ownRow = (table: ObedienceResult | undefined, method: string): Row | undefined =>
  table?.rows.find((r) => r.method.toLowerCase() === method.toLowerCase());

const shareOf = ({ right, n }: Share): Markup =>
  html`${integer(right)} of ${integer(n)} <span class="muted">${percent(right / n)}</span>`;

/** A table with a column per method: `cell` fills it. */
function byMethod(
  run: Pick<RunRecord, 'method' | 'settings'>,
  rows: readonly Row[],
  {
    corner,
    caption,
    names,
    cell,
  }: {
    readonly corner: string;
    readonly caption: string;
    readonly names: readonly string[];
    readonly cell: (row: Row, name: string) => Markup | undefined;
  },
): Markup {
  const isOwn = (r: Row) => r.method.toLowerCase() === run.method.toLowerCase();
  const own = (r: Row) => isOwn(r) && trusted(' class="own"');
  const heads = rows.map(
    (r) =>
      html`<th scope="col"${own(r)}>${isOwn(r) ? nameOfRun(run) : methodName(r.method)}${r.parameters !== undefined && html`<div class="muted">${integer(r.parameters)} parameters</div>`}</th>`,
  );
  const lines = names.map(
    (name) =>
      html`<tr><th scope="row">${name}</th>${rows.map((r) => {
        const filled = cell(r, name);
        return filled === undefined ? html`<td class="muted">–</td>` : html`<td${own(r)}>${filled}</td>`;
      })}</tr>`,
  );
  return tableFrame(
    html`<table><caption>${caption}</caption>
<thead><tr><th scope="col">${corner}</th>${heads}</tr></thead><tbody>${lines}</tbody></table>`,
    caption,
  );
}

function tables(run: RunRecord, table: ObedienceResult): Markup {
  const { rows } = table;
  const asked = byMethod(run, rows, {
    corner: 'question',
    caption: 'Bars: 95% intervals (Wilson), 0 to 100%.',
    names: [...new Set(rows.flatMap((r) => r.scores.map((x) => x.question)))],
    cell: (r, question) => {
      const score = r.scores.find((x) => x.question === question);
      return score === undefined || score.n === 0
        ? undefined
        : html`${shareOf(score)}${intervalBar(score.right, score.n)}`;
    },
  });
  const withFindings = rows.filter((r) => r.findings.length > 0);
  if (withFindings.length === 0) return asked;
  const found = byMethod(run, withFindings, {
    corner: 'finding',
    caption:
      'Seen where told (sensitivity) and left out where not told (specificity; the rest are false alarms), per lung; cardiomegaly per film.',
    names: [...new Set(withFindings.flatMap((r) => r.findings.map((x) => x.finding)))],
    cell: (r, finding) => {
      const known = r.findings.find((x) => x.finding === finding);
      return (
        known &&
        html`${known.sensitivity.n > 0 && html`<div>seen ${shareOf(known.sensitivity)}</div>`}${known.specificity.n > 0 && html`<div>no alarm ${shareOf(known.specificity)}</div>`}`
      );
    },
  });
  return html`${asked}${found}`;
}

/** `better`, `worse` or `level`, and whether the difference of two shares is within chance. */
function judge(a: Share, b: Share): string {
  const [low, high] = difference(a.right, a.n, b.right, b.n);
  if (low > 0) return 'better';
  if (high < 0) return 'worse';
  const sign = Math.sign(a.right / a.n - b.right / b.n);
  return `${sign > 0 ? 'higher' : sign < 0 ? 'lower' : 'level'}, a difference within chance`;
}

const sentenceCase = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

/** The first question's share of this run and of the others. */
function firstScore(run: RunRecord) {
  const table = obedienceOf(run);
  const own = ownRow(table, run.method);
  const score = own?.scores[0];
  if (table === undefined || own === undefined || score === undefined) return undefined;
  const others = table.rows.flatMap((r) => {
    const same = r === own ? undefined : r.scores.find((x) => x.question === score.question);
    return same === undefined ? [] : [{ method: r.method, score: same }];
  });
  return { score, others };
}

const panel = definePanel<ObedienceResult>({
  id: 'obedience',
  title: 'Do the pictures obey the report?',
  data: obedienceOf,
  draw: (table, { run }) => ({
    body: html`<p class="lead">${table.what.replace(/\.$/, '')}. Sides are the patient’s: the right lung is at the viewer’s left. Real films are the detectors’ ceiling, those through the autoencoder alone the model’s.</p>${tables(run, table)}`,
  }),
  headlines: (run) => {
    const first = firstScore(run);
    if (first === undefined) return [];
    const { score, others } = first;
    const rest = others.map((o) => `${o.method} ${percent(o.score.right / o.score.n)}`);
    return [
      {
        place: 20,
        label: `Obeys the report: ${score.question}`,
        value: `${integer(score.right)} of ${integer(score.n)}`,
        note: `${percent(score.right / score.n)}${rest.length > 0 ? `; ${rest.join(', ')}` : ''}`,
      },
    ];
  },
  sentences: (run) => {
    const first = firstScore(run);
    if (first === undefined || first.score.n === 0) return [];
    const { score, others } = first;
    const name = nameOfRun(run);
    return others
      .filter((o) => o.score.n > 0 && !CEILINGS.has(o.method))
      .map(({ method, score: other }) => {
        const shares = `${name} ${score.right} of ${score.n}, ${methodName(method)} ${other.right} of ${other.n}`;
        return `${sentenceCase(score.question)}: ${shares}. ${name} is ${judge(score, other)}.`;
      });
  },
});

export const obedience = defineMetric<ObedienceResult>({
  name: 'obedience',
  doc: 'findings that simple detectors read in the pictures, against what the reports say (built-in pairs only)',
  source: 'this repository; thresholds fitted on seeded phantoms apart from any run',
  needs: { findings: 1, real: 1, base: 1, adapted: 1 },
  result: obedienceSchema,
  compute,
  readings: (r) => r.readings,
  lines: (r) =>
    r.rows.map(
      ({ method, scores }) =>
        `  ${method.padEnd(16)} ${scores.map((s) => `${s.question} ${s.right}/${s.n}`).join(', ')}`,
    ),
  panel,
});
