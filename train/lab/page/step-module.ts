/** The test of a step: all modules as a table, and one of them in its parts, the squares of its samples filling in one by one. */
import type { Module } from '../machine/module-test.ts';
import type { Stepped } from '../machine/step.ts';
import { type Child, h, set, short } from './dom.ts';
import { bar, heat } from './pictures.ts';
import { head, region } from './tables.ts';

/** Every module with its ratio, the largest first. */
export function modulesTable(
  decisions: Stepped['decisions'],
  lambda: number,
  picked: string,
  pick: (name: string) => void,
): readonly Child[] {
  const largest = Math.max(...decisions.map((d) => Math.sqrt(d.fiOriginal)), 1e-30);
  const grown = decisions.filter((d) => d.ratio > lambda).length;
  const row = (d: Stepped['decisions'][number]) =>
    h(
      'tr',
      { class: d.module === picked ? 'picked' : '' },
      h(
        'th',
        { scope: 'row' },
        h('button', { type: 'button', class: 'link', onclick: () => pick(d.module) }, d.module),
      ),
      h('td', {}, bar(Math.sqrt(d.fiOriginal) / largest, short(Math.sqrt(d.fiOriginal)))),
      h('td', { class: 'n' }, short(d.ratio)),
      h('td', { class: d.ratio > lambda ? 'right' : 'muted' }, d.ratio > lambda ? 'yes' : 'no'),
    );
  return [
    h('h2', {}, 'The test of every module'),
    h(
      'p',
      { 'data-grown': grown },
      `At λ = ${lambda}, ${grown} of ${decisions.length} modules would grow. The bars are the size of each module’s gradient, √FI. Pick one to see its test in parts.`,
    ),
    region(
      'All modules',
      h(
        'table',
        { class: 'modules' },
        head('module', '√FI', 'ratio', 'grows'),
        h('tbody', {}, [...decisions].sort((a, b) => b.ratio - a.ratio).map(row)),
      ),
    ),
  ];
}

/** between two samples, where motion is wanted */
const PAUSE_MS = 350;
const still = (): boolean => matchMedia('(prefers-reduced-motion: reduce)').matches;

/** Draws the test of one module into an element; the squares of each sample are added to the sums one after the other. */
export async function moduleTest(into: HTMLElement, m: Module, stepped: Stepped, lambda: number): Promise<void> {
  const decision = stepped.decisions.find(({ module }) => module === m.name)!;
  const most = Math.max(...m.samples.map((s) => s.candidate), 1e-30);
  const cells = m.samples.map(() => ({ own: h('td', { class: 'n' }), candidate: h('td', {}) }));
  const sums = { own: h('td', { class: 'n' }), candidate: h('td', {}) };
  const verdict = h('p', { class: 'large' });
  const expectation = h('p', {});
  const rows = m.samples.map((_, i) => {
    const { report, t, loss } = stepped.samples[i]!;
    return h(
      'tr',
      {},
      h('th', { scope: 'row' }, report),
      h('td', { class: 'n' }, t),
      h('td', { class: 'n' }, short(loss)),
      cells[i]!.own,
      cells[i]!.candidate,
    );
  });
  const picture = (x: Module['activation'], what: string) =>
    heat(x.values, x.shape[0]!, x.shape[1]!, `${what}, ${x.shape.join(' × ')}`);
  set(
    into,
    h('h2', {}, `Test of ${m.name}`),
    h(
      'p',
      {},
      'A column K is drawn and put beside A, with a row of zeros in B. Nothing changes in the model; only the gradient of that row tells whether it would have something to do.',
    ),
    h(
      'div',
      { class: 'films' },
      heat(m.column.values, 1, m.column.values.length, `K, ${m.column.values.length} numbers`),
      picture(m.activation, 'value of the module, first sample'),
      picture(m.cotangent, 'derivative of the loss by it'),
    ),
    h('h3', {}, 'Which report asked for this rank'),
    region(
      'Squares of each sample',
      h(
        'table',
        {},
        head('report', 't', 'loss', 'squares of A and B', 'squares of the new row'),
        h(
          'tbody',
          {},
          rows,
          h(
            'tr',
            { class: 'sum' },
            h('th', { scope: 'row' }, 'mean'),
            h('td', {}),
            h('td', {}),
            sums.own,
            sums.candidate,
          ),
        ),
      ),
    ),
    verdict,
    expectation,
  );

  const tell = (count: number): void => {
    const some = m.samples.slice(0, count);
    const mean = (of: (s: Module['samples'][number]) => number): number => some.reduce((n, s) => n + of(s), 0) / count;
    const [original, candidate] = [mean((s) => s.original), mean((s) => s.candidate)];
    const ratio = original > 0 ? 1 + candidate / original : candidate > 0 ? Number.POSITIVE_INFINITY : 1;
    sums.own.textContent = short(original);
    sums.candidate.textContent = short(candidate);
    const meets = `${ratio > lambda ? '>' : '≤'} λ = ${lambda}`;
    const all = count === m.samples.length;
    verdict.textContent = `ratio = 1 + ${short(candidate)} / ${short(original)} = ${short(ratio)} ${meets}${all ? `: it ${ratio > lambda ? 'grows' : 'stays'}.` : ` after ${count} of ${m.samples.length} samples`}`;
    if (!all) return;
    const data = { original, candidate, expected: m.expected, ratio, stepRatio: decision.ratio };
    for (const [name, value] of Object.entries(data)) verdict.dataset[name] = String(value);
    const expected = original > 0 ? 1 + m.expected / original : Number.POSITIVE_INFINITY;
    set(
      expectation,
      `Over all columns that could have been drawn the ratio is ${short(expected)} on average: Var K · mean ‖G‖² has the place of the drawn squares, G being a sample’s gradient by the whole product A·B. `,
      h('span', { class: 'muted' }, `This draw was ${short(candidate / m.expected)} times that.`),
    );
  };
  for (const [i, s] of m.samples.entries()) {
    if (!still()) await new Promise((done) => setTimeout(done, PAUSE_MS));
    // another module was picked meanwhile
    if (!verdict.isConnected && i > 0) return;
    cells[i]!.own.textContent = short(s.original);
    set(cells[i]!.candidate, bar(s.candidate / most, short(s.candidate)));
    tell(i + 1);
  }
}
