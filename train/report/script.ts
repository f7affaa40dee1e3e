/**
 * The page's one script (allowed by its hash): a cell of a rank map that is pointed at, or reached by Tab and the arrow
 * keys, shows its module's history. It reads the JSON block of its run (of the page, or of the `.report` around the cell)
 * and writes text nodes only. Without it the cells keep their native tooltips. A page that draws again says so by the
 * event `drawn`.
 */

import { group } from 'd3-array';
import type { ExpansionRow } from '../run/record.ts';
import { joinTests } from '../run/test-log.ts';
import { type ModuleHistory, testBins, testSteps } from './history.ts';

/** One test in the JSON block: step, ratio, expanded (0/1), FI before, FI with the candidate, rank after, expected ratio. */
export type PackedTest = readonly [
  step: number,
  ratio: number | null,
  expanded: 0 | 1,
  fiOriginal: number | null,
  fiExpanded: number | null,
  rankAfter: number,
  expectedRatio: number | null,
];

/** A module in the JSON block: path, rank before the first test, final rank, ‖ΔW‖/‖W‖, tests, how many they stand for, how often it grew. */
export type PackedModule = readonly [
  path: string,
  start: number,
  rank: number,
  change: number | null,
  tests: readonly PackedTest[],
  tested: number,
  grown: number,
];

const orNull = (v: number | undefined): number | null =>
  v !== undefined && Number.isFinite(v) ? Number(v.toPrecision(4)) : null;

/** Tests in the page at most: of many, neighbours are told as one. */
const MOST_TESTS = 16_000;

/** Histories for the page's script. */
export function packModules(histories: readonly ModuleHistory[]): readonly PackedModule[] {
  const { endOf } = testBins(testSteps(histories), Math.max(8, Math.floor(MOST_TESTS / Math.max(1, histories.length))));
  const thinned = ({ tests }: ModuleHistory): readonly ExpansionRow[] =>
    [...group(tests, (t) => endOf(t.step)).values()].flatMap(joinTests);
  return histories.map((h) => [
    h.path,
    h.start,
    h.rank,
    orNull(h.change),
    thinned(h).map((t) => [
      t.step,
      orNull(t.ratio),
      t.expanded ? 1 : 0,
      orNull(t.fiOriginal),
      orNull(t.fiExpanded),
      t.rankAfter,
      orNull(t.expectedRatio),
    ]),
    h.tested,
    h.grown,
  ]);
}

export const script = `
'use strict';
(() => {
  const known = new WeakMap();
  const moduleOf = (cell) => {
    const block = (cell.closest('.report') || document).querySelector('script[type="application/json"]');
    if (!block) return undefined;
    if (!known.has(block)) known.set(block, new Map(JSON.parse(block.textContent).modules.map((m) => [m[0], m])));
    return known.get(block).get(cell.getAttribute('data-module'));
  };
  const tip = document.getElementById('tip');
  const svgNs = 'http://www.w3.org/2000/svg';
  const add = (parent, name, text, attributes = {}, ns) => {
    const node = ns ? document.createElementNS(ns, name) : document.createElement(name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  };
  const short = (v) => (v === null ? '–' : v !== 0 && (Math.abs(v) < 1e-3 || Math.abs(v) >= 1e5) ? v.toExponential(2) : String(Number(v.toPrecision(3))));

  // Rank after each test as a staircase: 240 x 46 pixels, discs where the module grew.
  const sparkline = (start, tests) => {
    const last = tests[tests.length - 1][0] || 1;
    const top = Math.max(start, ...tests.map((t) => t[5]), 1);
    const x = (step) => 2 + (step / last) * 216;
    const y = (rank) => 44 - (rank / top) * 38;
    const svg = add(tip, 'svg', undefined, { width: 240, height: 48, 'aria-hidden': 'true' }, svgNs);
    let path = 'M' + x(0) + ',' + y(start);
    for (const t of tests) path += 'H' + x(t[0]) + 'V' + y(t[5]);
    add(svg, 'path', undefined, { d: path, class: 'line' }, svgNs);
    for (const t of tests) if (t[2]) add(svg, 'circle', undefined, { cx: x(t[0]), cy: y(t[5]), r: 2.2, class: 'dot' }, svgNs);
    add(svg, 'text', String(tests[tests.length - 1][5]), { x: 224, y: y(tests[tests.length - 1][5]) + 4, class: 'axis' }, svgNs);
  };

  const table = (tests, tested) => {
    const shown = tests.slice(-8);
    const expected = shown.some((t) => t[6] !== null);
    const body = add(tip, 'table');
    const head = add(body, 'tr');
    for (const name of ['step', 'FI', 'FI with K', 'ratio', ...(expected ? ['expected'] : []), 'rank']) add(head, 'th', name, { class: 'n' });
    for (const t of shown) {
      const row = add(body, 'tr');
      const rank = t[2] ? '→ ' + t[5] : String(t[5]);
      for (const text of [String(t[0]), short(t[3]), short(t[4]), short(t[1]), ...(expected ? [short(t[6])] : []), rank]) add(row, 'td', text, { class: 'n' });
    }
    if (tests.length > shown.length) add(tip, 'div', (tests.length < tested ? 'each row of several tests; the last ' : 'the last ') + shown.length + ' of ' + tests.length, { class: 'muted' });
  };

  // At the pointer, or at the cell that the keyboard is on.
  const show = (module, at) => {
    tip.textContent = '';
    const [path, start, rank, change, tests, tested, grown] = module;
    const name = add(tip, 'div', undefined, { class: 'path' });
    // Long paths may break after their dots.
    for (const part of path.split(/(?<=[.])/)) {
      name.append(part);
      add(name, 'wbr');
    }
    const ratio = change === null ? '' : ', ‖ΔW‖/‖W‖ ' + short(change);
    add(tip, 'div', 'rank ' + rank + (tests.length > 0 ? ' (from ' + start + '; grew in ' + grown + ' of ' + tested + ' tests)' : '') + ratio, { class: 'muted' });
    if (tests.length > 0) {
      sparkline(start, tests);
      table(tests, tested);
    }
    tip.hidden = false;
    const gap = 14;
    const left = at.x + gap + tip.offsetWidth > innerWidth ? at.x - gap - tip.offsetWidth : at.x + gap;
    const top = at.y + gap + tip.offsetHeight > innerHeight ? at.y - gap - tip.offsetHeight : at.y + gap;
    tip.style.left = Math.max(4, left) + 'px';
    tip.style.top = Math.max(4, top) + 'px';
  };

  const name = () => {
    for (const cell of document.querySelectorAll('[data-module]')) {
      const title = cell.querySelector('title');
      if (!title || !moduleOf(cell)) continue;
      cell.setAttribute('aria-label', title.textContent);
      title.remove();
    }
  };
  const over = (event) => {
    const cell = event.target.closest ? event.target.closest('[data-module]') : null;
    const module = cell && moduleOf(cell);
    if (module) show(module, { x: event.clientX, y: event.clientY });
    else tip.hidden = true;
  };
  document.addEventListener('pointermove', over);
  document.addEventListener('pointerdown', over);

  // A map is one stop of the Tab key; the arrow keys move to the nearest cell on that side, Escape closes.
  const middle = (cell) => {
    const r = cell.getBoundingClientRect();
    return { x: (r.left + r.right) / 2, y: (r.top + r.bottom) / 2 };
  };
  const sides = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  const neighbour = (cell, [dx, dy]) => {
    const from = middle(cell);
    let best = null;
    let least = Infinity;
    for (const other of cell.ownerSVGElement.querySelectorAll('[data-module]')) {
      const to = middle(other);
      const along = (to.x - from.x) * dx + (to.y - from.y) * dy;
      const across = Math.abs((to.x - from.x) * dy) + Math.abs((to.y - from.y) * dx);
      if (along > 1 && along + 8 * across < least) {
        least = along + 8 * across;
        best = other;
      }
    }
    return best;
  };
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') tip.hidden = true;
    const cell = document.activeElement;
    if (!cell || !cell.hasAttribute('data-module') || !sides[event.key]) return;
    event.preventDefault();
    const next = neighbour(cell, sides[event.key]);
    if (!next) return;
    cell.setAttribute('tabindex', '-1');
    next.setAttribute('tabindex', '0');
    next.focus();
  });
  const showFocused = () => {
    const cell = document.activeElement;
    const module = cell && cell.hasAttribute('data-module') && moduleOf(cell);
    if (module) show(module, middle(cell));
    else tip.hidden = true;
  };
  document.addEventListener('focusin', showFocused);
  // The cell that has the focus takes its tooltip along; the pointer leaves its cell behind.
  document.addEventListener('scroll', () => { if (!tip.hidden) showFocused(); }, true);

  // Frames that scroll sideways can be reached and scrolled by keys.
  const reach = () => {
    for (const frame of document.querySelectorAll('.chart')) {
      const title = frame.querySelector('title');
      if (frame.scrollWidth > frame.clientWidth + 1) {
        frame.tabIndex = 0;
        frame.setAttribute('role', 'group');
        if (title) frame.setAttribute('aria-label', title.textContent);
      } else for (const name of ['tabindex', 'role', 'aria-label']) frame.removeAttribute(name);
    }
  };
  const ready = () => {
    name();
    reach();
  };
  ready();
  addEventListener('resize', reach);
  document.addEventListener('drawn', ready);
})();
`;
