/** What the run was trained on: source, parts, captions that were cut. */
import type { RunRecord } from '../../run/record.ts';
import { counted, integer } from '../../words/format.ts';
import { FEWEST_PICTURES } from '../answer.ts';
import { html } from '../html.ts';
import { definePanel, factList, tableFrame } from '../panel.ts';

export const data = definePanel<NonNullable<RunRecord['data']>>({
  id: 'data',
  title: 'Data and splits',
  data: (run) => run.data,
  draw: (d) => {
    const rows = d.splits.map(
      (x) =>
        html`<tr><th scope="row">${x.name}</th><td class="n">${integer(x.images)}</td><td class="n">${x.patients === undefined ? '–' : integer(x.patients)}</td><td class="n">${x.cut === undefined ? '–' : integer(x.cut)}</td><td><code>${x.hash ?? '–'}</code></td></tr>`,
    );
    const splits =
      rows.length > 0 &&
      tableFrame(
        html`<table><thead><tr><th scope="col">split</th><th scope="col" class="n">pictures</th><th scope="col" class="n">patients</th><th scope="col" class="n">captions cut at ${d.limit} ids</th><th scope="col">hash</th></tr></thead><tbody>${rows}</tbody></table>`,
        'Parts of the data',
      );
    const duplicates =
      d.duplicates === undefined ? [] : [{ label: 'duplicate pictures', value: integer(d.duplicates) }];
    return { body: html`<p>${d.source}</p>${splits}${factList([...duplicates, ...d.facts])}` };
  },
  warnings: ({ data: d }) => {
    if (d === undefined) return [];
    const cut = d.splits.reduce((sum, x) => sum + (x.cut ?? 0), 0);
    const images = d.splits.reduce((sum, x) => sum + x.images, 0);
    const held = d.splits.find((x) => x.name === 'validation');
    const few = held !== undefined && held.images < FEWEST_PICTURES;
    return [
      ...(few
        ? [
            `The data are small for the split: ${counted(held.images, 'validation picture')}, at least ${FEWEST_PICTURES} are needed to tell learning from chance. Give more pictures, or a larger part to --split.`,
          ]
        : []),
      ...(cut > 0
        ? [
            `${integer(cut)} of ${counted(images, 'caption')} ${cut === 1 ? 'is' : 'are'} longer than ${d.limit} ids and ${cut === 1 ? 'was' : 'were'} cut: the model never saw the end.`,
          ]
        : []),
      ...(d.duplicates !== undefined && d.duplicates > 0
        ? [`${counted(d.duplicates, 'duplicate picture')} in the data.`]
        : []),
    ];
  },
});
