/** Whether a derivative is right: per leaf the worst element, the error against the step, backends side by side. */
import * as Plot from '@observablehq/plot';
import type { LeafReport } from '../machine/function.ts';
import type { Choice } from '../machine/machine.ts';
import { h, set, short } from './dom.ts';
import { editor } from './editor.ts';
import type { Page } from './page.ts';

/** The errors of all leaves against h, both logarithmic. */
function chart(leaves: readonly LeafReport[]): Element {
  const drawn = plot(leaves);
  // groups of marks are no pictures of their own
  for (const part of drawn.querySelectorAll('[aria-label]')) part.removeAttribute('aria-label');
  drawn.setAttribute('role', 'img');
  return drawn;
}
function plot(leaves: readonly LeafReport[]): Element {
  const points = leaves.flatMap(({ path, report }) =>
    report.byStep.map(({ h: step, error }) => ({ path, step, error: Math.max(error, 1e-16) })),
  );
  return Plot.plot({
    width: 560,
    height: 260,
    marginLeft: 70,
    ariaLabel: 'Largest error against the step of the differences; the table above has the numbers',
    style: { background: 'none', color: 'var(--ink)', fontSize: '12px', overflow: 'visible' },
    x: {
      type: 'log',
      label: 'step h',
      ticks: [...new Set(points.map((p) => p.step))],
      tickFormat: (x: number) => short(x),
    },
    y: { type: 'log', label: 'largest error', grid: true, ticks: 5, tickFormat: (x: number) => x.toExponential(0) },
    marks: [
      Plot.line(points, { x: 'step', y: 'error', z: 'path', stroke: 'var(--accent)' }),
      Plot.dot(points, {
        x: 'step',
        y: 'error',
        fill: 'var(--accent)',
        title: (p) => `${p.path}: ${short(p.error)} at h = ${p.step}`,
      }),
    ],
  });
}

export const check: Page = {
  id: 'check',
  title: 'Check gradients',
  about: 'Is a derivative right? Against differences, leaf by leaf and step by step, and backend against backend.',
  async show(into, route, lab) {
    const result = h('div', {});
    const run = async (source: string): Promise<void> => {
      const others: Choice[] = ['wasm'];
      if (lab.opened().name === 'webgpu') others.push('webgpu');
      const leaves = await lab.machine.checkWritten(source, others);
      const fine = leaves.every(({ report }) => report.ok);
      const row = ({ path, report }: LeafReport) =>
        h(
          'tr',
          { 'data-leaf': path, 'data-error': report.worst.error },
          h(
            'th',
            { scope: 'row' },
            path,
            h('span', { class: report.ok ? 'right' : 'wrong' }, report.ok ? ' right' : ' WRONG'),
          ),
          h('td', {}, `[${report.worst.index.join(', ')}]`),
          h('td', { class: 'n' }, report.worst.got.toPrecision(7)),
          h('td', { class: 'n' }, report.worst.want.toPrecision(7)),
          h('td', { class: 'n' }, `${short(report.worst.error)} (${report.dtype})`),
          report.backends.map((b) => h('td', { class: 'n' }, short(b.worst.error))),
        );
      const heads = ['leaf', 'worst at', 'the rule', 'difference', 'off by', ...others.map((name) => `${name} off by`)];
      set(
        result,
        h('h2', {}, fine ? 'Right' : 'Wrong'),
        h(
          'div',
          { class: 'tablewrap', tabindex: 0, role: 'region', 'aria-label': 'Leaf by leaf' },
          h(
            'table',
            {},
            h(
              'thead',
              {},
              h(
                'tr',
                {},
                heads.map((c) => h('th', { scope: 'col' }, c)),
              ),
            ),
            h('tbody', {}, leaves.map(row)),
          ),
        ),
        h('h2', {}, 'Error against the step'),
        h(
          'p',
          {},
          'Of a right derivative the error falls with h², until rounding takes over. One that stays flat is wrong.',
        ),
        h(
          'div',
          { class: 'graph', tabindex: 0, role: 'region', 'aria-label': 'Error against the step' },
          chart(leaves),
        ),
      );
      result.dataset.ok = String(fine);
    };
    const { element, run: start } = editor('check', route, lab, 'Check', run);
    into.append(
      h('h1', {}, 'Check gradients'),
      h(
        'p',
        { class: 'lead' },
        'The gradient of a scalar function, leaf by leaf, against central differences and on other backends.',
      ),
      element,
      result,
    );
    await start();
  },
};
