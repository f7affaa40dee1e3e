/** The page of every op: its record as text, its sample alive. */
import type { OpEntry, OpText } from '../texts.ts';
import { type Child, choice, code, h, prose } from './dom.ts';
import { liveOp } from './op-live.ts';
import type { Page } from './page.ts';
import { addressOf } from './route.ts';

async function load<T>(file: string): Promise<T> {
  const answer = await fetch(file);
  if (!answer.ok) throw new Error(`${file}: the server answers ${answer.status}`);
  return (await answer.json()) as T;
}
let entries: Promise<readonly OpEntry[]> | undefined;
const allEntries = (): Promise<readonly OpEntry[]> => {
  entries ??= load('ops/index.json');
  return entries;
};

/** The list of all ops, with a field that filters it. */
function list(all: readonly OpEntry[]): readonly Child[] {
  const rows = all.map((o) =>
    h(
      'li',
      { 'data-search': [o.name, ...o.aliases, o.doc].join(' ').toLowerCase() },
      h('a', { href: addressOf('op', o.name) }, o.name),
      h('span', { class: 'formula' }, o.formula),
      h('span', { class: 'muted' }, o.doc),
    ),
  );
  const count = h('output', { class: 'muted' }, `${all.length} in all`);
  const search = h('input', {
    type: 'search',
    autocomplete: 'off',
    oninput: () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const found = rows.filter((row) => {
        row.hidden = !words.every((word) => row.dataset.search!.includes(word));
        return !row.hidden;
      });
      count.textContent = words.length > 0 ? `${found.length} of ${all.length}` : `${all.length} in all`;
    },
  });
  return [
    h('h1', {}, 'Ops'),
    h(
      'p',
      { class: 'lead' },
      'Each with its formula, its rules as they are written, its kernels, and its sample to play with.',
    ),
    h('p', {}, h('label', { class: 'field' }, h('span', {}, 'Find'), search), ' ', count),
    h('ul', { class: 'ops' }, rows),
  ];
}

const section = (title: string, ...children: readonly Child[]): HTMLElement =>
  h('section', {}, h('h2', {}, title), children);
const kernels = (backend: string, list: OpText['kernels']['wasm'], none: string): HTMLElement =>
  h(
    'details',
    {},
    h('summary', {}, backend),
    list.length === 0 ? h('p', { class: 'muted' }, none) : '',
    list.map(({ name, text }) => [h('p', { class: 'muted' }, name), text ? code(text, `${backend}: ${name}`) : '']),
  );

export const op: Page = {
  id: 'op',
  title: 'Op',
  about: 'Every op of the registry: its rules as written, its kernels, and small matrices to edit, nudge and map over.',
  async show(into, route, lab) {
    const all = await allEntries();
    if (route.part === '') return void into.append(...(list(all) as Node[]));
    const entry = all.find((o) => o.name === route.part || o.aliases.includes(route.part));
    if (!entry) throw new Error(`unknown op "${route.part}"; the list of ops is at #/op`);
    const text = await load<OpText>(`ops/${entry.name}.json`);
    const at = all.indexOf(entry);
    const neighbour = (o: OpEntry | undefined, words: (name: string) => string): Child =>
      o ? h('a', { href: addressOf('op', o.name) }, words(o.name)) : '';
    into.append(
      h(
        'div',
        { class: 'bar' },
        choice(
          'Op',
          all.map((o) => [o.name, o.name] as const),
          entry.name,
          (name) => {
            location.hash = addressOf('op', name);
          },
        ),
        h('a', { href: addressOf('op') }, 'list of all'),
        neighbour(all[at - 1], (name) => `← ${name}`),
        neighbour(all[at + 1], (name) => `${name} →`),
      ),
      h('h1', {}, text.name),
      h('p', { class: 'lead' }, text.doc, text.aliases.length > 0 ? ` (also ${text.aliases.join(', ')})` : ''),
      h('p', { class: 'formula large' }, text.formula),
      h('p', { class: 'muted' }, `${text.form}; ${text.place}`),
      ...text.signatures
        .slice(0, 6)
        .map((line) =>
          line.startsWith(' ') ? h('p', { class: 'muted' }, prose(line)) : h('p', { class: 'mono' }, line),
        ),
      await liveOp(text, route, lab),
      text.notes ? section('Notes', h('p', { class: 'lines' }, prose(text.notes))) : '',
      section(
        'Rules, as they are written',
        text.rules.map(({ title, text: body }) => [h('h3', {}, title), code(body, title)]),
      ),
      section(
        'Kernels',
        h('p', { class: 'muted' }, `On wasm: ${text.wasmPlace}`),
        kernels('WASM', text.kernels.wasm, 'no kernel needed: a view, a constant or an identity'),
        kernels('WebGPU', text.kernels.webgpu, 'no kernel needed: a view, a constant or an identity'),
        kernels('gpu.js', text.kernels.gpujs, 'no kernel needed: a view, a constant or an identity'),
      ),
      section(
        'Used by',
        text.usedBy.length > 0
          ? h(
              'ul',
              { class: 'plain' },
              text.usedBy.map((line) => h('li', { class: 'mono' }, line)),
            )
          : h('p', { class: 'muted' }, 'not used by the models'),
      ),
    );
  },
};
