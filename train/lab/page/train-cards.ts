/** What stands on the page of each run: where it is, what may be done with it, its films. */
import { toGrey } from '../../data/pictures/grey.ts';
import { h, set, short, slider } from './dom.ts';
import { film } from './pictures.ts';
import type { PageRun } from './train-run.ts';

/** λ that a fork is offered with */
const OTHER = 1.3;

export interface Cards {
  readonly element: HTMLElement;
  /** @param lit places of pixels that are tinted in films of `side` pixels */
  draw(runs: readonly PageRun[], side: number, lit: readonly number[]): void;
  /** the numbers of one alone, so that nobody loses the button under the pointer */
  tell(run: PageRun): void;
}

const said = (run: PageRun): string => {
  const row = run.last();
  return row
    ? `step ${row.step} of ${run.steps}, loss ${short(row.loss)}, total rank ${row.totalRank}, ${short(row.seconds / row.step)} s a step`
    : `${run.steps} steps to go`;
};

function filmsOf(run: PageRun, side: number, lit: readonly number[]): HTMLElement {
  const one = (f: PageRun['films'][number]): HTMLElement => {
    const words = `step ${f.step}${f.reading === undefined ? '' : `: ${f.reading}`}`;
    const verdict =
      f.right !== undefined &&
      h('span', { class: f.right ? 'right' : 'wrong' }, f.right ? ' ✓ as told' : ' ✗ not as told');
    return film(toGrey(f.picture), side, words, { lit, below: [words, verdict] });
  };
  return h(
    'div',
    { class: 'films filmrow', tabindex: 0, role: 'region', 'aria-label': `Films of ${run.name}` },
    run.films.map(one),
  );
}

/** @param act what the buttons do */
export function runCards(act: {
  readonly save: (run: PageRun) => void;
  readonly film: (run: PageRun) => void;
  readonly fork: (run: PageRun, lambda: number) => void;
  readonly drop: (run: PageRun) => void;
}): Cards {
  const element = h('div', {});
  const button = (text: string, onclick: () => void) => h('button', { type: 'button', onclick }, text);
  const card = (run: PageRun, side: number, lit: readonly number[]): HTMLElement => {
    let lambda = OTHER;
    const forking = run.record().lambda !== undefined && [
      slider(
        'other λ',
        { min: 1, max: 3, step: 0.05, value: lambda },
        (x) => x.toFixed(2),
        (x) => {
          lambda = x;
        },
      ),
      button('Fork', () => act.fork(run, lambda)),
    ];
    return h(
      'article',
      { class: 'card', 'data-name': run.name },
      h('h2', {}, run.name),
      h('p', { class: 'muted' }),
      h(
        'div',
        { class: 'bar' },
        button('Download the adapter', () => act.save(run)),
        button('Draw a film', () => act.film(run)),
        forking,
        button('Throw away', () => act.drop(run)),
      ),
      run.films.length > 0 && filmsOf(run, side, lit),
    );
  };
  const cards: Cards = {
    element,
    draw(runs, side, lit) {
      set(
        element,
        runs.map((run) => card(run, side, lit)),
      );
      for (const run of runs) cards.tell(run);
    },
    tell(run) {
      const own = [...element.children].find((c) => (c as HTMLElement).dataset.name === run.name) as
        | HTMLElement
        | undefined;
      if (!own) return;
      own.dataset.step = String(run.step());
      own.dataset.rank = String(run.last()?.totalRank ?? '');
      own.dataset.loss = String(run.last()?.loss ?? '');
      own.querySelector('p')!.textContent = said(run);
    },
  };
  return cards;
}
