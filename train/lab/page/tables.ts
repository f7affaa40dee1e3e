/** Tables that scroll in their own frame. */
import { h } from './dom.ts';

/** A frame that can be reached and scrolled by keys. */
export const region = (label: string, ...children: readonly (HTMLElement | string)[]): HTMLElement =>
  h('div', { class: 'tablewrap', tabindex: 0, role: 'region', 'aria-label': label }, ...children);
/** The first row, column by column. */
export const head = (...names: readonly string[]): HTMLElement =>
  h(
    'thead',
    {},
    h(
      'tr',
      {},
      names.map((n) => h('th', { scope: 'col' }, n)),
    ),
  );
