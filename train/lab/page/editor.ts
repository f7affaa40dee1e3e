/** An editor for a function: examples, a text, a button that runs it and one that stops it. */
import { examples } from '../machine/examples.ts';
import { choice, errorPlace, h } from './dom.ts';
import type { Lab } from './page.ts';
import { type Route, remember } from './route.ts';

/** The editor, and where it shows what came of a run. */
export interface Editor {
  readonly element: HTMLElement;
  run(): Promise<void>;
  /** writes what was edited, and the page's own state, into the address */
  keep(): void;
}

/** @param run what is done with the source; its failures are shown below the text */
export function editor(
  page: string,
  route: Route,
  lab: Lab,
  button: string,
  run: (source: string) => Promise<void>,
  state: () => Readonly<Record<string, string | undefined>> = () => ({}),
): Editor {
  const given = examples.find(({ id }) => id === route.part) ?? examples[0]!;
  const text = h('textarea', { spellcheck: 'false', autocomplete: 'off', 'aria-label': 'Your function' });
  text.value = route.state.get('source') ?? given.source;
  text.rows = Math.min(26, text.value.split('\n').length + 1);
  const { errorLine, guarded } = errorPlace();
  const status = h('output', { class: 'muted' });
  const stop = h('button', { type: 'button', hidden: true, onclick: () => void lab.restart() }, 'Stop');
  const keep = (): void => {
    const own = text.value === given.source ? undefined : text.value;
    remember(page, given.id, { ...state(), source: own });
  };
  let running = false;
  const start = async (): Promise<void> => {
    if (running) return;
    running = true;
    stop.hidden = false;
    status.textContent = 'running …';
    keep();
    status.textContent = (await guarded(() => run(text.value))) ? 'done' : '';
    stop.hidden = true;
    running = false;
  };
  text.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    void start();
  });
  const element = h(
    'div',
    { class: 'editor' },
    h(
      'div',
      { class: 'bar' },
      choice(
        'Example',
        examples.map(({ id, title }) => [id, title] as const),
        given.id,
        (id) => {
          location.hash = `#/${page}/${id}`;
        },
      ),
      h('button', { type: 'button', class: 'primary', onclick: () => void start() }, button),
      stop,
      status,
    ),
    text,
    h(
      'p',
      { class: 'muted' },
      'Ctrl+Enter runs it. All functions of the core are there by name; it runs in the worker only.',
    ),
    errorLine,
  );
  return { element, run: start, keep };
}
