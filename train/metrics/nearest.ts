/** Has the model copied? The nearest training picture of every sample, against the distance real held-out pictures keep. */
import { z } from 'zod';
import { html } from '../report/html.ts';
import { definePanel } from '../report/panel.ts';
import { count, measured, pictureFile } from '../run/record.ts';
import { counted, integer, number, percent } from '../words/format.ts';
import { wilson } from '../words/statistics.ts';
import { defineMetric, type Material } from './metric.ts';

/** training pictures looked through at most */
const MOST = 2000;
/** A picture shrunk to 32×32 grey, mean 0 and deviation 1. */
function thumbnail(pixels: Float32Array, side: number): Float32Array {
  const n = 32;
  const out = new Float32Array(n * n);
  const cell = side / n;
  for (let y = 0; y < side; y++)
    for (let x = 0; x < side; x++) out[Math.floor(y / cell) * n + Math.floor(x / cell)]! += pixels[(y * side + x) * 3]!;
  const mean = out.reduce((a, b) => a + b, 0) / out.length;
  const sd = Math.sqrt(out.reduce((a, b) => a + (b - mean) ** 2, 0) / out.length) || 1;
  return out.map((v) => (v - mean) / sd);
}
const distance = (a: Float32Array, b: Float32Array): number =>
  Math.sqrt(a.reduce((s, v, i) => s + (v - b[i]!) ** 2, 0) / a.length);

const resultSchema = z.object({
  measure: z.string(),
  threshold: measured,
  /** samples closer to a training picture than the threshold */
  below: count,
  n: count,
  pairs: z
    .array(z.object({ sample: pictureFile, nearest: pictureFile, distance: measured, label: z.string().optional() }))
    .default([]),
});
export type Nearest = z.output<typeof resultSchema>;

/** Distances of samples and of real held-out pictures to their nearest training picture. Cost: all pairs of thumbnails. */
async function compute({ training, real, adapted, side, keep }: Material): Promise<Nearest> {
  const looked = training.slice(0, MOST);
  const thumbs: Float32Array[] = [];
  // one after the other: pictures of thousands of files at once would fill the memory
  for (const p of looked) thumbs.push(thumbnail(await p.pixels(), side));
  const nearest = (p: Float32Array) =>
    thumbs.reduce(
      (best, t, i) => {
        const d = distance(p, t);
        return d < best.d ? { d, i } : best;
      },
      { d: Number.POSITIVE_INFINITY, i: -1 },
    );
  const realDistances = real.map((p) => nearest(thumbnail(p, side)).d).sort((a, b) => a - b);
  const threshold = realDistances[Math.floor(realDistances.length * 0.01)]!;
  const ours = adapted.map((p, sample) => ({ sample, ...nearest(thumbnail(p, side)) })).sort((a, b) => a.d - b.d);
  const pairs: Nearest['pairs'] = [];
  for (const [k, o] of ours.slice(0, 3).entries())
    pairs.push({
      sample: await keep(`nearest-${k + 1}-sample`, adapted[o.sample]!),
      nearest: await keep(`nearest-${k + 1}-training`, await looked[o.i]!.pixels()),
      distance: o.d,
    });
  return {
    measure:
      '32×32 grey, standardised, root mean square difference; threshold: the closest 1% of real held-out pictures',
    threshold,
    below: ours.filter((o) => o.d < threshold).length,
    n: ours.length,
    pairs,
  };
}

/** What a run's folder has of it. */
export const nearestOf = (results: Readonly<Record<string, unknown>>): Nearest | undefined =>
  resultSchema.safeParse(results.nearest).data;

const panel = definePanel<Nearest>({
  id: 'memorisation',
  title: 'Is anything copied?',
  data: (run) => nearestOf(run.results),
  async draw(m, page) {
    const [low, high] = wilson(m.below, m.n);
    const pairs = [];
    for (const p of m.pairs)
      pairs.push(
        html`<article class="sample"><div class="strip"><figure>${await page.picture(p.sample, 'sample')}<figcaption><span class="label">sample</span></figcaption></figure><figure>${await page.picture(p.nearest, 'nearest training picture')}<figcaption><span class="label">nearest training picture</span></figcaption></figure></div><p class="muted">distance ${number(p.distance)}${p.label && ` · ${p.label}`}</p></article>`,
      );
    return {
      body: html`<p>${integer(m.below)} of ${counted(m.n, 'sample')} lie below the threshold of ${number(m.threshold)} (95% interval ${percent(low)} to ${percent(high)}). Measure: ${m.measure}.</p>${pairs.length > 0 && html`<div class="samples">${pairs}</div>`}`,
    };
  },
  warnings: (run) => {
    const m = nearestOf(run.results);
    return m !== undefined && m.below > 0
      ? [`${m.below} of ${counted(m.n, 'sample')} lie closer to a training picture than held-out films do.`]
      : [];
  },
});

export const nearest = defineMetric<Nearest>({
  name: 'nearest',
  doc: 'distance of every sample to its nearest training picture, against real held-out pictures',
  source: 'this repository',
  needs: { real: 4, adapted: 4, training: 1 },
  result: resultSchema,
  compute,
  panel,
});
