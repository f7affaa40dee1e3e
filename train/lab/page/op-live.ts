/** The living part of an op's page: cells to edit, what feeds what, an element nudged, inputs mapped. */
import type { Ask, Tried } from '../machine/op.ts';
import type { OpText } from '../texts.ts';
import { type Cells, cells } from './cells.ts';
import { code, errorPlace, h, set, short, slider } from './dom.ts';
import { nudgeTable } from './op-nudge.ts';
import type { Lab } from './page.ts';
import { type Route, remember } from './route.ts';

const LETTERS = 'abcdefghijklmnop';
const numbered = (letter: string, count: number, i: number): string => (count > 1 ? `${letter}${i}` : letter);
const listOf = (text: string | null): number[] | undefined => {
  const values = text?.split(',').map(Number);
  return values && values.length > 0 && values.every(Number.isFinite) ? values : undefined;
};
/** widths of the differences that are compared: 10⁻¹ … 10⁻⁵ */
const STEPS = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5];

/** Draws it and computes it for the first time. */
export async function liveOp(text: OpText, route: Route, lab: Lab): Promise<HTMLElement> {
  const { state } = route;
  let seed = Math.max(0, Math.floor(Number(state.get('seed') ?? 1))) || 1;
  const operands: (readonly number[] | undefined)[] = [];
  const cotangents: (readonly number[] | undefined)[] = [];
  const ask = (): Ask => ({ op: text.name, seed, operands, cotangents });
  const letters = (i: number) => LETTERS[i] ?? `x${i}`;
  for (const [name, value] of state) {
    const at = name.startsWith('g.') ? Number(name.slice(2)) : name.length === 1 ? LETTERS.indexOf(name) : -1;
    if (name.startsWith('g.')) cotangents[at] = listOf(value);
    else if (at >= 0) operands[at] = listOf(value);
  }
  let picked = { operand: 0, element: 0 };
  const at = /^([a-p])\.(\d+)$/.exec(state.get('nudge') ?? '');
  if (at) picked = { operand: LETTERS.indexOf(at[1]!), element: Number(at[2]) };
  let width = Math.min(-1, Math.max(-5, Number(state.get('width') ?? -3)));
  let which: boolean[] = [];

  const { errorLine, guarded } = errorPlace();
  const keep = (): void => {
    const own = (list: readonly (readonly number[] | undefined)[], name: (i: number) => string) =>
      Object.fromEntries(list.flatMap((values, i) => (values ? [[name(i), values.join(',')]] : [])));
    remember('op', text.name, {
      ...(seed === 1 ? {} : { seed: String(seed) }),
      ...own(operands, letters),
      ...own(cotangents, (i) => `g.${i}`),
      ...(picked.operand + picked.element > 0 ? { nudge: `${letters(picked.operand)}.${picked.element}` } : {}),
      ...(width === -3 ? {} : { width: String(width) }),
      ...(which.length > 0 && !which.every(Boolean) ? { map: which.map(Number).join('') } : {}),
    });
  };

  let tried: Tried = await lab.machine.tryOp(ask());
  which = [...(state.get('map') ?? '')].map((c) => c === '1');
  if (which.length !== tried.operands.length || !which.some(Boolean)) which = tried.operands.map(() => true);
  if (!tried.operands[picked.operand]?.values.some((_, i) => i === picked.element)) picked = { operand: 0, element: 0 };

  let given: Cells[] = [];
  let made: Cells[] = [];
  let slopes: (Cells | undefined)[] = [];
  const drawing = h('div', { class: 'tensors' });
  const cost = h('p', { class: 'muted', 'data-ran': '' });

  // what feeds what is only worked out once somebody points at a cell
  let feeding: Promise<Awaited<ReturnType<Lab['machine']['feeds']>>> | undefined;
  const light = async (kind: 'operand' | 'result', index: number, element: number | undefined): Promise<void> => {
    for (const c of [...given, ...made]) c.mark(new Set(), 'fed');
    if (element === undefined) return;
    feeding ??= lab.machine.feeds(ask());
    const table = await feeding;
    if (kind === 'operand') {
      for (const [k, c] of made.entries()) c.mark(new Set(table[index]?.[element]?.[k]), 'fed');
    } else
      for (const [i, c] of given.entries())
        c.mark(new Set(table[i]!.flatMap((each, e) => (each[index]!.includes(element) ? [e] : []))), 'fed');
  };
  const pick = (operand: number, element: number): void => {
    picked = { operand, element };
    for (const [i, c] of given.entries()) c.mark(new Set(i === operand ? [element] : []), 'picked');
    keep();
    void guarded(nudged);
  };
  const redraw = (): void => {
    given = tried.operands.map((x, i) =>
      cells({
        ...x,
        name: letters(i),
        note: x.dtype === 'f32' ? '' : x.dtype,
        edited: (element, value) => {
          operands[i] = (operands[i] ?? tried.operands[i]!.values).with(element, value);
          void guarded(again);
        },
        pointed: (element) => void light('operand', i, element),
        picked: (element) => pick(i, element),
      }),
    );
    made = tried.results.map((y, i) =>
      cells({
        ...y,
        name: numbered('y', tried.results.length, i),
        note: y.dtype === 'f32' ? '' : y.dtype,
        pointed: (element) => void light('result', i, element),
      }),
    );
    const weights = tried.cotangents.map(
      (g, i) =>
        g &&
        cells({
          ...g,
          name: numbered('g', tried.results.length, i),
          note: 'cotangent',
          edited: (element, value) => {
            cotangents[i] = (cotangents[i] ?? tried.cotangents[i]!.values).with(element, value);
            void guarded(again);
          },
        }),
    );
    slopes = tried.gradients.map((d, i) => d && cells({ ...d, name: `d${letters(i)}`, note: 'by the rule' }));
    set(
      drawing,
      h(
        'div',
        {},
        h('h3', {}, 'Operands'),
        given.length > 0 ? given.map((c) => c.element) : h('p', { class: 'muted' }, 'none'),
      ),
      h(
        'div',
        {},
        h('h3', {}, made.length > 1 ? 'Results' : 'Result'),
        made.map((c) => c.element),
      ),
      weights.some(Boolean) &&
        h(
          'div',
          {},
          h('h3', {}, 'Cotangent g'),
          weights.map((c) => c?.element),
        ),
      slopes.some(Boolean) &&
        h(
          'div',
          {},
          h('h3', {}, 'Gradient of Σ g·y'),
          slopes.map((c) => c?.element),
        ),
    );
  };
  const tell = (): void => {
    const attrs = Object.entries(tried.attrs).map(([k, v]) => `${k}: ${JSON.stringify(v)}`);
    cost.textContent = [
      `${text.name}(${tried.operands.map((x, i) => `${letters(i)} ${x.dtype}[${x.shape.join(', ')}]`).join(', ')})${attrs.length > 0 ? ` {${attrs.join(', ')}}` : ''}`,
      `ran on ${tried.ran}`,
      `${short(tried.flops)} flop, ${short(tried.bytes)} bytes`,
    ].join(' · ');
    cost.dataset.ran = tried.ran;
  };
  const again = async (): Promise<void> => {
    keep();
    tried = await lab.machine.tryOp(ask());
    feeding = undefined;
    for (const [i, c] of given.entries()) c.update(tried.operands[i]!.values);
    for (const [i, c] of made.entries()) c.update(tried.results[i]!.values);
    for (const [i, c] of slopes.entries()) c?.update(tried.gradients[i]!.values);
    tell();
    await nudged();
  };

  const nudgeBox = h('div', {});
  const table = h('div', { class: 'tablewrap', tabindex: 0, role: 'region', 'aria-label': 'Rule and differences' });
  const nudged = async (): Promise<void> => {
    const operand = tried.gradients[picked.operand] ? picked.operand : tried.gradients.findIndex(Boolean);
    if (operand < 0) return;
    const element = operand === picked.operand ? picked.element : 0;
    const steps = [10 ** width, ...STEPS.filter((step) => step !== 10 ** width)];
    const found = await lab.machine.nudge(ask(), operand, element, steps);
    set(table, nudgeTable(found, `d${letters(operand)}`, element, tried.ran));
    table.dataset.rule = String(found.rule);
    table.dataset.difference = String(found.byStep[0]!.difference);
  };

  const graph = h('div', {});
  const mapBox = h('fieldset', { class: 'checks' });
  const map = async (): Promise<void> => {
    if (!which.some(Boolean)) return set(graph, h('p', { class: 'muted' }, 'nothing is mapped: the op as it is'));
    const { graph: lines, check } = await lab.machine.mapped(ask(), which);
    set(
      graph,
      code(lines.join('\n'), 'The graph that vmap writes'),
      h(
        'p',
        { class: check.error <= check.tolerance ? 'right' : 'wrong' },
        `${check.what}: off by ${short(check.error)}, allowed ${short(check.tolerance)}`,
      ),
    );
    graph.dataset.error = String(check.error);
  };

  redraw();
  tell();
  const parts: HTMLElement[] = [
    h('p', {}, 'Edit a cell; point at one to see what it follows; pick an operand’s cell (click, Enter) to nudge it.'),
    h(
      'div',
      { class: 'bar' },
      h(
        'button',
        {
          type: 'button',
          onclick: () =>
            guarded(async () => {
              seed++;
              operands.length = 0;
              cotangents.length = 0;
              tried = await lab.machine.tryOp(ask());
              feeding = undefined;
              redraw();
              tell();
              keep();
              await nudged();
            }),
        },
        'Other numbers',
      ),
    ),
    errorLine,
    drawing,
    cost,
  ];
  if (tried.gradients.some(Boolean)) {
    set(
      nudgeBox,
      h('h3', {}, 'Nudge one element'),
      h(
        'p',
        {},
        'The picked element is moved by ±h; the difference of Σ g·y over 2h stands beside what the rule says.',
      ),
      slider(
        'h',
        { min: -5, max: -1, step: 0.5, value: width },
        (x) => short(10 ** x),
        (x) => {
          width = x;
          keep();
          void guarded(nudged);
        },
      ),
      table,
    );
    parts.push(nudgeBox);
    await nudged();
    for (const [i, c] of given.entries()) c.mark(new Set(i === picked.operand ? [picked.element] : []), 'picked');
  }
  if (tried.operands.length > 0) {
    set(
      mapBox,
      h('legend', {}, 'Mapped operands'),
      tried.operands.map((_, i) => {
        const box = h('input', {
          type: 'checkbox',
          checked: which[i],
          onchange: () => {
            which[i] = box.checked;
            keep();
            void guarded(map);
          },
        });
        return h('label', {}, box, ` ${letters(i)}`);
      }),
    );
    parts.push(
      h(
        'div',
        {},
        h('h3', {}, 'Map over operands'),
        h(
          'p',
          {},
          'Those that are mapped carry three samples; this is the graph the batching rule writes, and whether it is the loop.',
        ),
        mapBox,
        graph,
      ),
    );
    await guarded(map);
  }
  return h('section', { class: 'live' }, h('h2', {}, 'Try it'), parts);
}
