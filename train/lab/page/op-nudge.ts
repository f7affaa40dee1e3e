/** One element nudged: the rule beside differences of several widths. */
import type { Nudged } from '../machine/op.ts';
import { h, short } from './dom.ts';
import { head } from './tables.ts';

/** @param by `da`: what is differentiated by */
export function nudgeTable(found: Nudged, by: string, element: number, ran: string): HTMLElement {
  const row = (name: string, value: number, how: string) =>
    h(
      'tr',
      {},
      h('th', { scope: 'row' }, name),
      h('td', { class: 'n' }, value.toPrecision(10)),
      h('td', { class: 'n' }, how),
    );
  const off = (x: number): string => `off by ${short(Math.abs(x - found.rule))}`;
  return h(
    'table',
    {},
    h('caption', {}, `d(Σ g·y) / ${by}, element ${element}`),
    head('how', 'value', 'against the rule'),
    h(
      'tbody',
      {},
      row('the rule, f64', found.rule, ''),
      found.onBackend === undefined ? '' : row(`the rule on ${ran}`, found.onBackend, off(found.onBackend)),
      found.byStep
        .toSorted((a, b) => b.h - a.h)
        .map(({ h: step, difference }) => row(`difference, h = ${short(step)}`, difference, off(difference))),
    ),
  );
}
