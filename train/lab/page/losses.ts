/** The losses of a batch, sample by sample. */
import { h, short } from './dom.ts';
import { bar } from './pictures.ts';
import { head, region } from './tables.ts';

export function lossesTable(
  samples: readonly { readonly report: string; readonly t: number; readonly loss: number | null }[],
): HTMLElement {
  const largest = Math.max(1e-30, ...samples.map((s) => s.loss ?? 0));
  const row = (s: (typeof samples)[number]) =>
    h(
      'tr',
      {},
      h('th', { scope: 'row' }, s.report),
      h('td', { class: 'n' }, s.t),
      h('td', {}, s.loss === null ? 'not finite' : bar(s.loss / largest, short(s.loss))),
    );
  return region('Loss of each sample', h('table', {}, head('report', 't', 'loss'), h('tbody', {}, samples.map(row))));
}
