/** Held-out reports with their pictures: real | autoencoder only | base | adapted, and what the detectors read. */
import { METRICS } from '../../metrics/index.ts';
import type { Reading } from '../../metrics/metric.ts';
import { type RunRecord, type Sample, SHOWN } from '../../run/record.ts';
import { counted } from '../../words/format.ts';
import { html, type Markup } from '../html.ts';
import { definePanel } from '../panel.ts';

/** A picture's verdict: what the samples' file says, else what a metric read off it. */
type Shown = Sample & { readonly pictures: readonly Sample['pictures'][number][] };

/** The readings of all metrics, by report and picture. */
function readingsOf(results: RunRecord['results']): ReadonlyMap<string, Reading> {
  const all = METRICS.flatMap((metric) => metric.readings(results[metric.name]));
  return new Map(all.map((r) => [`${r.report} ${r.picture}`, r]));
}

function samplesOf(run: RunRecord): readonly Shown[] | undefined {
  if (run.samples.length === 0) return undefined;
  const readings = readingsOf(run.results);
  return run.samples.map((sample, i) => ({
    ...sample,
    pictures: sample.pictures.map((p, k) => {
      // metrics read the first picture of a kind; those from other noise stand beside it unread
      const first = sample.pictures.findIndex(({ label }) => label === p.label) === k;
      const read = readings.get(`${i} ${p.label}`);
      if (!first || read === undefined) return p;
      const verdict = p.verdict ?? `read: ${read.text}`;
      const right = p.right ?? read.right;
      return { ...p, verdict, ...(right === undefined ? {} : { right }) };
    }),
  }));
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

/** How the pictures were drawn, by the settings. */
function note({ settings, samples }: RunRecord): string {
  const { sampler, sampleSteps, guidance } = settings;
  if ([sampler, sampleSteps, guidance].includes(undefined as never)) return '';
  const few = samples.length > SHOWN ? ` of ${samples.length}, the others are in samples/` : '';
  return `The first ${Math.min(SHOWN, samples.length)} held-out reports${few}, not chosen; base and the first adapted picture start from the same noise; with its seed and these settings npm run generate draws a picture again: ${sampler}, ${sampleSteps} steps, guidance ${guidance}.`;
}

export const pictures = definePanel<readonly Shown[]>({
  id: 'pictures',
  title: 'Pictures',
  data: samplesOf,
  async draw(all, page) {
    const samples = all.slice(0, SHOWN);
    const splits = [...new Set(samples.map((x) => x.split))].join(', ');
    const held = samples.every((x) => x.split !== 'train') ? ', none of them trained on' : '';
    const cards: Markup[] = [];
    for (const x of samples) {
      const strip: Markup[] = [];
      for (const p of x.pictures)
        strip.push(
          html`<figure>${await page.picture(p.file, `${p.label}: ${x.report}`)}<figcaption><span class="label">${p.label}${p.seed !== undefined && `, seed ${p.seed}`}</span>${verdict(p)}</figcaption></figure>`,
        );
      cards.push(
        html`<article class="sample"><blockquote>${x.report}</blockquote>
<div class="strip">${strip}</div>
${x.note && html`<p class="muted">${x.note}</p>`}</article>`,
      );
    }
    return {
      body: html`<p class="lead">${counted(samples.length, 'report')} from the split “${splits}”${held}. ${note(page.run)}</p><div class="samples">${cards}</div>`,
    };
  },
});
