/** A person's own function: its graph with values and derivatives, and every stage on the way to a program. */
import type { Ran } from '../machine/function.ts';
import { code, h, set, short, slider } from './dom.ts';
import { editor } from './editor.ts';
import { drawGraph, drawLives } from './graph.ts';
import type { Page } from './page.ts';

export const yours: Page = {
  id: 'function',
  title: 'Your function',
  about:
    'Write a function; see its graph forward and backward with values, and what becomes of it on the way to kernels.',
  async show(into, route, lab) {
    let ran: Ran | undefined;
    let stage = Math.max(0, Math.floor(Number(route.state.get('stage') ?? 0)) || 0);
    const result = h('div', {});
    const view = h('div', {});
    const draw = (): void => {
      if (!ran) return;
      const now = ran.stages[Math.min(stage, ran.stages.length - 1)]!;
      set(
        view,
        drawGraph(now) ?? '',
        now.name === 'planned' && ran.plan ? drawLives(ran.plan.kernels, ran.plan.lives) : '',
        h('details', { open: !now.graph }, h('summary', {}, 'As text'), code(now.text, `${now.name}, as text`)),
      );
      view.dataset.stage = now.name;
    };
    const run = async (source: string): Promise<void> => {
      ran = await lab.machine.runWritten(source);
      stage = Math.min(stage, ran.stages.length - 1);
      set(
        result,
        h('h2', {}, 'Value and gradient'),
        h('p', { 'data-value': ran.value }, `f = ${short(ran.value)}, on ${ran.device}`),
        h(
          'div',
          { class: 'tablewrap', tabindex: 0, role: 'region', 'aria-label': 'Gradient' },
          h(
            'table',
            {},
            h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'by'), h('th', { scope: 'col' }, 'gradient'))),
            h(
              'tbody',
              {},
              ran.gradients.map(({ path, shape, values }) =>
                h(
                  'tr',
                  {},
                  h('th', { scope: 'row' }, `${path || 'params'} [${shape.join(', ')}]`),
                  h('td', { class: 'mono' }, values.slice(0, 24).map(short).join('  '), values.length > 24 ? ' …' : ''),
                ),
              ),
            ),
          ),
        ),
        h('h2', {}, 'From text to kernels'),
        slider(
          'Stage',
          { min: 0, max: ran.stages.length - 1, step: 1, value: stage },
          (i) => `${i + 1} of ${ran!.stages.length}: ${ran!.stages[i]!.name}`,
          (i) => {
            stage = i;
            draw();
            keep();
          },
        ),
        view,
      );
      draw();
    };
    const {
      element,
      run: start,
      keep,
    } = editor('function', route, lab, 'Run', run, () => ({
      stage: stage > 0 ? String(stage) : undefined,
    }));
    into.append(
      h('h1', {}, 'Your function'),
      h(
        'p',
        { class: 'lead' },
        'A scalar function of parameters. In each box: what it is, its shape, what it holds, and ∂: the derivative of f by it.',
      ),
      element,
      result,
    );
    await start();
  },
};
