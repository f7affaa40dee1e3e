/** Lessons: one idea each, as a program that runs here and holds itself to what it says. */
import type { Found } from '../machine/lesson.ts';
import { lessons } from '../machine/lessons.ts';
import { errorPlace, h, set, short } from './dom.ts';
import type { Page } from './page.ts';
import { addressOf, remember } from './route.ts';

function told(found: Found): HTMLElement {
  if (found.kind === 'checked')
    return h(
      'li',
      { class: found.ok ? 'right' : 'wrong', 'data-ok': found.ok },
      `${found.ok ? '✓' : '✗'} ${found.name}`,
      h(
        'span',
        { class: 'muted' },
        found.off === 0 ? ' exactly' : ` off by ${short(found.off)}, allowed ${short(found.allowed)}`,
      ),
    );
  const { shape, values } = found.value;
  const numbers = `${values.slice(0, 16).map(short).join('  ')}${values.length > 16 ? ' …' : ''}`;
  return h(
    'li',
    {},
    found.name,
    h('span', { class: 'muted' }, shape.length > 0 ? ` [${shape.join(', ')}]` : ''),
    h('br', {}),
    h('span', { class: 'mono' }, numbers),
  );
}

export const lesson: Page = {
  id: 'lesson',
  title: 'Lessons',
  about:
    'Seven ideas that SeLoRA stands on, each a page that runs and checks itself: from a product’s vjp to what λ means.',
  async show(into, route, lab) {
    const at = lessons.findIndex(({ id }) => id === route.part);
    if (route.part === '') {
      into.append(
        h('h1', {}, 'Lessons'),
        h('p', { class: 'lead' }, 'One idea a page, in this order.'),
        h(
          'ol',
          { class: 'pages' },
          lessons.map(({ id, title, text }) =>
            h('li', {}, h('a', { href: addressOf('lesson', id) }, title), h('p', {}, `${text.split('. ', 1)[0]}.`)),
          ),
        ),
      );
      return;
    }
    const now = lessons[at];
    if (!now) throw new Error(`there is no lesson "${route.part}"; the list is at #/lesson`);
    const text = h('textarea', { spellcheck: 'false', autocomplete: 'off', 'aria-label': 'The lesson’s program' });
    text.value = route.state.get('source') ?? now.source;
    text.rows = Math.min(34, text.value.split('\n').length);
    const { errorLine, guarded } = errorPlace();
    const result = h('ul', { class: 'found', 'aria-label': 'What it found' });
    const stop = h('button', { type: 'button', hidden: true, onclick: () => void lab.restart() }, 'Stop');
    const run = async (): Promise<void> => {
      remember('lesson', now.id, { source: text.value === now.source ? undefined : text.value });
      stop.hidden = false;
      await guarded(async () => {
        const found = await lab.machine.runLesson(text.value);
        set(result, found.map(told));
        result.dataset.lesson = String(found.every((f) => f.kind === 'shown' || f.ok));
      });
      stop.hidden = true;
    };
    const [before, after] = [lessons[at - 1], lessons[at + 1]];
    into.append(
      h(
        'div',
        { class: 'bar' },
        h('a', { href: addressOf('lesson') }, 'all lessons'),
        before ? h('a', { href: addressOf('lesson', before.id) }, `← ${before.title}`) : '',
        after ? h('a', { href: addressOf('lesson', after.id) }, `${after.title} →`) : '',
      ),
      h('h1', {}, `${at + 1}. ${now.title}`),
      h('p', {}, now.text),
      h(
        'div',
        { class: 'bar' },
        h('button', { type: 'button', class: 'primary', onclick: () => void run() }, 'Run'),
        stop,
        h('span', { class: 'muted' }, 'Change something and run it again.'),
      ),
      h('div', { class: 'lesson' }, text, result),
      errorLine,
    );
    await run();
  },
};
