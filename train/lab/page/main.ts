/** The page's entry: the frame with its navigation, the worker, the choice of backend and theme, and the page that is open. */
import type { Choice, Machine, Opened } from '../machine/machine.ts';
import { type Port, remote } from '../machine/protocol.ts';
import { choice, h, set } from './dom.ts';
import type { Lab, Page } from './page.ts';
import { pages as all } from './pages.ts';
import { addressOf, routeOf } from './route.ts';

// the policy allows the page no code out of text, and zod shall not try
Object.assign(globalThis, { __zod_globalConfig: { jitless: true } });

/** A lab that was built for some pages has no other. */
const { only } = document.body.dataset;
const pages = only === undefined ? all : all.filter((p) => only.split(' ').includes(p.id));

const CHOICES: readonly (readonly [Choice, string])[] = [
  ['auto', 'automatic'],
  ['webgpu', 'WebGPU'],
  ['wasm', 'WASM'],
  ['cpu', 'reference'],
];
const THEMES = [
  ['', 'as the system'],
  ['light', 'light'],
  ['dark', 'dark'],
] as const;
type Theme = (typeof THEMES)[number][0];

/** What the browser keeps of a choice; some browsers refuse to keep anything. */
const kept = {
  get(name: string): string {
    try {
      return localStorage.getItem(`lab ${name}`) ?? '';
    } catch {
      return '';
    }
  },
  put(name: string, value: string): void {
    try {
      localStorage.setItem(`lab ${name}`, value);
    } catch {
      // then it is chosen anew next time
    }
  },
};

let listener: (news: unknown) => void = () => undefined;
function start() {
  const worker = new Worker('machine.js', { type: 'module', name: 'machine' });
  const { calls, fail } = remote<Machine>(worker as unknown as Port, (news) => listener(news));
  worker.onerror = (event) => fail(event.message || 'the worker did not start');
  return { worker, calls, fail };
}
let running = start();
let opened: Opened = { name: 'cpu', device: '', notes: [] };
let leaving: (() => void)[] = [];
const lab: Lab = {
  pages,
  get machine() {
    return running.calls;
  },
  async restart() {
    running.worker.terminate();
    running.fail('stopped');
    running = start();
    await open(chosen);
  },
  opened: () => opened,
  hear: (next) => {
    listener = next;
  },
  leaving: (work) => void leaving.push(work),
};

const main = h('main', { id: 'main', tabindex: -1 });
const device = h('p', { class: 'device', role: 'status' });
const nav = h('nav', { 'aria-label': 'Pages' });

/** Counts what was shown: a page that was left while it was still being drawn is thrown away. */
let shown = 0;
async function show(moved: boolean): Promise<void> {
  const mine = ++shown;
  const { hash } = location;
  const route = routeOf(hash);
  const page: Page = pages.find((p) => p.id === route.page) ?? pages[0]!;
  set(
    nav,
    pages.map((p) => h('a', { href: addressOf(p.id), 'aria-current': p === page && 'page' }, p.title)),
  );
  document.title = [route.part, page.title, 'The lab'].filter(Boolean).join(' · ');
  lab.hear(() => undefined);
  for (const work of leaving) work();
  leaving = [];
  const into = h('div', { class: 'page' });
  let error: HTMLElement | undefined;
  try {
    await page.show(into, route, lab);
  } catch (e) {
    error = h('p', { class: 'error', role: 'alert' }, (e as Error).message);
  }
  if (mine !== shown) return;
  set(main, error ? [h('h1', {}, page.title), error] : into);
  document.body.dataset.ready = hash;
  if (moved) {
    main.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

let chosen: Choice = 'auto';
async function open(name: Choice): Promise<void> {
  chosen = name;
  set(device, 'opening …');
  try {
    opened = await running.calls.open(name);
    set(
      device,
      h('b', {}, opened.device),
      opened.notes.map((note) => ` · ${note}`),
    );
  } catch (error) {
    set(device, h('span', { class: 'wrong' }, (error as Error).message));
    if (name !== 'wasm') opened = await running.calls.open('wasm');
  }
  device.dataset.backend = opened.name;
}
function theme(name: Theme): void {
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
  kept.put('theme', name);
}

const first = (CHOICES.find(([name]) => name === kept.get('backend')) ?? CHOICES[0]!)[0];
const look = (THEMES.find(([name]) => name === kept.get('theme')) ?? THEMES[0])[0];
theme(look);
document.body.append(
  h(
    'a',
    {
      class: 'skip',
      href: '#main',
      // the part behind # is the place
      onclick: (event: Event) => {
        event.preventDefault();
        main.focus();
      },
    },
    'Skip to the page',
  ),
  h(
    'header',
    {},
    h('p', { class: 'name' }, h('a', { href: '#/' }, 'The lab'), h('span', { class: 'muted' }, ' of selora-ts')),
    nav,
    h(
      'div',
      { class: 'settings' },
      choice('Backend', CHOICES, first, async (name) => {
        kept.put('backend', name);
        await open(name);
        await show(false);
      }),
      choice('Colours', THEMES, look, theme),
      device,
    ),
  ),
  main,
  h('footer', {}, 'Everything here is computed in this tab. Nothing is sent anywhere.'),
);
addEventListener('hashchange', () => void show(true));
await open(first);
await show(false);
