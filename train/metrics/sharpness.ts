/** Do the pictures look like films? Contrast of the ribs, fine structure, and likeness to the report's own film (built-in pairs). */
import { mean } from 'd3-array';
import { z } from 'zod';
import { toGrey } from '../data/pictures/grey.ts';
import { html } from '../report/html.ts';
import { definePanel, tableFrame } from '../report/panel.ts';
import { count, measured } from '../run/record.ts';
import { integer, number, percent } from '../words/format.ts';
import { correlation } from './films/detectors.ts';
import { bandEnergy, ribScore } from './films/sharpness.ts';
import { defineMetric, type Material, type Pictures } from './metric.ts';
import { DECODED, REAL } from './obedience.ts';

const resultSchema = z.object({
  n: count,
  rows: z.array(
    z.object({
      picture: z.string(),
      /** mean contrast of the ribs, 10⁻³ grey */
      ribs: measured,
      /** mean energy at 0.1 to 0.25 cycles a pixel, as a share of the real films' */
      fine: measured,
      /** mean correlation of pixels with the autoencoder's version of the report's film */
      likeness: measured,
    }),
  ),
});
export type Sharpness = z.output<typeof resultSchema>;

/** Means over the pictures of each kind. Cost: a Fourier transform of every picture, some ms each at 128 pixels. */
function compute(m: Material): Sharpness {
  const films = m.autoencoder.map((p) => toGrey(p));
  const energy = (p: Pictures) => mean(p, (x) => bandEnergy(toGrey(x), m.side, 0.1, 0.25))!;
  const whole = energy(m.real);
  const row = (picture: string, pictures: Pictures) => ({
    picture,
    ribs: mean(pictures, (x) => ribScore(toGrey(x), m.side))!,
    fine: energy(pictures) / whole,
    likeness: mean(pictures, (x, i) => correlation(toGrey(x), films[i]!))!,
  });
  return {
    n: m.adapted.length,
    rows: [row(REAL, m.real), row(DECODED, m.autoencoder), row('base', m.base), row(m.method, m.adapted)],
  };
}

export const sharpness = defineMetric<Sharpness>({
  name: 'sharpness',
  doc: "contrast of the ribs, energy of fine structure, correlation with the report's own film (built-in pairs only)",
  source: 'this repository',
  needs: { findings: 1, real: 1, autoencoder: 1, base: 1, adapted: 1 },
  result: resultSchema,
  compute,
  lines: ({ rows }) => {
    const [films] = rows;
    return rows.map(
      ({ picture, ribs, fine, likeness }) =>
        `  ${picture.padEnd(16)} ribs ${number(ribs)} (${percent(ribs / films!.ribs)} of the films'), fine structure ${percent(fine)}, correlation with the autoencoder's film ${number(likeness)}`,
    );
  },
  panel: definePanel<Sharpness>({
    id: 'sharpness',
    title: 'Do the pictures look like films?',
    data: (run) => resultSchema.safeParse(run.results.sharpness).data,
    draw: ({ n, rows }) => {
      const caption = `Means over ${integer(n)} held-out reports.`;
      const lines = rows.map(
        ({ picture, ribs, fine, likeness }) =>
          html`<tr><th scope="row">${picture}</th><td>${number(ribs)} <span class="muted">${percent(ribs / rows[0]!.ribs)}</span></td><td>${percent(fine)}</td><td>${number(likeness)}</td></tr>`,
      );
      return {
        body: html`<p class="lead">Ribs: contrast of the lungs' mean along the ribs' course, in 10⁻³ grey. Fine structure: energy at 0.1 to 0.25 cycles a pixel, of the real films'. Likeness: correlation of pixels with the autoencoder's version of the report's own film; two films of one report differ, too.</p>${tableFrame(
          html`<table><caption>${caption}</caption>
<thead><tr><th scope="col">pictures</th><th scope="col">ribs</th><th scope="col">fine structure</th><th scope="col">likeness</th></tr></thead><tbody>${lines}</tbody></table>`,
          caption,
        )}`,
      };
    },
  }),
});
