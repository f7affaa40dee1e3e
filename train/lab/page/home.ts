/** The first page: what there is. */
import { h } from './dom.ts';
import type { Page } from './page.ts';
import { addressOf } from './route.ts';

export const home: Page = {
  id: '',
  title: 'Start',
  about: '',
  async show(into, _route, lab) {
    into.append(
      h('h1', {}, 'The core, alive in this tab'),
      h(
        'p',
        { class: 'lead' },
        'Every op, its derivative and its kernels, computed here with the same code that trains: nothing is installed, nothing is sent.',
      ),
      h(
        'ul',
        { class: 'pages' },
        lab.pages
          .filter((p) => p.id !== '')
          .map((p) => h('li', {}, h('a', { href: addressOf(p.id) }, p.title), h('p', {}, p.about))),
      ),
    );
  },
};
