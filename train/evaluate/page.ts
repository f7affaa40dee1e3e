/** The page of `evaluate`: numbers with intervals, the pictures they come from, what may not be concluded. */
import { printableDeep } from '../../models/io/error.ts';
import { pictureLibrary } from '../data/pictures/library.ts';
import type { Found, SetMetric } from '../metrics/sets/metric.ts';
import { framed } from '../report/frame.ts';
import { html, type Markup, trusted } from '../report/html.ts';
import { tableFrame } from '../report/panel.ts';
import { counted, number } from '../words/format.ts';
import type { Loaded } from './pictures.ts';

/** What the page shows. */
export interface Evaluated {
  readonly real: { readonly name: string; readonly pictures: readonly Loaded[] };
  readonly fake: { readonly name: string; readonly pictures: readonly Loaded[] };
  readonly extractor: { readonly name: string; readonly comparable: boolean };
  /** what CLIP score was computed with */
  readonly clip?: string;
  readonly results: readonly (Pick<SetMetric, 'title' | 'doc' | 'source'> & Found)[];
  readonly cautions: readonly string[];
}

/** pictures of each set on the page */
const SHOWN = 12;

async function embedded({ width, height, data }: Loaded, alt: string): Promise<Markup> {
  const sharp = await pictureLibrary();
  const image = sharp(data, { raw: { width, height, channels: 3 } });
  const png = await image.resize({ width: 256, height: 256, fit: 'inside', withoutEnlargement: true }).png().toBuffer();
  return html`<img src="${trusted(`data:image/png;base64,${png.toString('base64')}`)}" alt="${alt}">`;
}
const interval = (of: readonly [number, number] | undefined): string =>
  of ? `${number(of[0])} to ${number(of[1])}` : '–';

function numbers({ title, doc, source, readings }: Evaluated['results'][number]): Markup {
  const rows = readings.flatMap(({ label, value, interval: range, note, floors = [] }) => [
    html`<tr><td>${label}</td><td>${number(value, 4)}</td><td>${interval(range)}</td><td>${note}</td></tr>`,
    ...floors.map(
      (f) =>
        html`<tr><td class="muted">… ${f.label}</td><td class="muted">${number(f.value, 4)}</td><td></td><td></td></tr>`,
    ),
  ]);
  const head = html`<thead><tr><th>number</th><th>value</th><th>95% interval</th><th>of what</th></tr></thead>`;
  return html`<section><h2>${title}</h2><p class="muted">${doc}. ${source}.</p>${tableFrame(html`<table>${head}<tbody>${rows}</tbody></table>`, title)}</section>\n`;
}

/** The whole page; makes no file and reaches no network. Control characters in names are made visible. */
export async function evaluationPage(given: Evaluated): Promise<string> {
  const said = printableDeep({
    real: given.real.name,
    fake: given.fake.name,
    extractor: given.extractor.name,
    clip: given.clip ?? '',
    cautions: given.cautions,
  });
  const strip = async (pictures: readonly Loaded[], alt: string) =>
    html`<div class="strip">${await Promise.all(pictures.slice(0, SHOWN).map(async (p) => html`<figure>${await embedded(p, alt)}</figure>`))}</div>`;
  const pairs: Markup[] = [];
  for (const { fake, real, distance } of given.results.flatMap((r) => r.pairs ?? [])) {
    const [a, b] = [
      await embedded(given.fake.pictures[fake]!, 'fake'),
      await embedded(given.real.pictures[real]!, 'nearest real'),
    ];
    pairs.push(
      html`<article class="sample"><div class="strip"><figure>${a}<figcaption>fake</figcaption></figure><figure>${b}<figcaption>nearest real, distance ${number(distance)}</figcaption></figure></div></article>`,
    );
  }
  const content = html`<header><p class="eyebrow">two sets of pictures</p><h1>${said.fake} against ${said.real}</h1>
<p>${counted(given.fake.pictures.length, 'fake picture')}, ${counted(given.real.pictures.length, 'real picture')}. Features: ${said.extractor}${given.extractor.comparable ? '' : ', which no publication uses: its numbers compare with nothing but themselves'}.${said.clip === '' ? '' : ` Texts: ${said.clip}.`}</p></header>
<main>
<section><h2>What may not be concluded</h2><ul class="plain">${said.cautions.map((c) => html`<li>${c}</li>`)}</ul></section>
${given.results.filter((r) => r.readings.length > 0).map(numbers)}
<section><h2>Closest pairs</h2><div class="samples">${pairs}</div></section>
<section><h2>Fake pictures</h2>${await strip(given.fake.pictures, 'fake')}</section>
<section><h2>Real pictures</h2>${await strip(given.real.pictures, 'real')}</section>
</main>`;
  return framed(`${said.fake} against ${said.real}`, content);
}
