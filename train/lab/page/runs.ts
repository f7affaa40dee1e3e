/** The folders of runs, live and side by side: what the report says of each, and where their settings differ. */
import { errorPlace, h, nowAndThen, set } from './dom.ts';
import type { Lab, Page } from './page.ts';
import { remember } from './route.ts';
import type { Entry, Followed } from './run-source.ts';

/** How often the list is asked for, and how often a run that goes on is drawn at most. */
const LIST_MS = 3000;
const DRAW_MS = 1000;
/** More do not fit beside each other. */
const MOST = 4;

const when = (ms: number): string => new Date(ms).toISOString().slice(0, 16).replace('T', ' ');

export const runs: Page = {
  id: 'runs',
  title: 'Runs',
  about: 'The folders under runs/, live and side by side: losses, ranks, expansions, pictures, settings that differ.',
  async show(into, route, lab) {
    const { listRuns } = await import('./run-source.ts');
    into.append(h('h1', {}, 'Runs'));
    const first = await listRuns().catch(() => undefined);
    if (first === undefined) {
      into.append(
        h(
          'p',
          {},
          'This page shows the run folders of the machine it is served from. Start it there: ',
          h('code', {}, 'npm run lab'),
          ' beside the folder runs/, or ',
          h('code', {}, 'npm run train -- --watch'),
          '.',
        ),
      );
      return;
    }
    await showRuns(into, route.state.get('show'), first, lab);
  },
};

async function showRuns(into: HTMLElement, asked: string | null, first: readonly Entry[], lab: Lab): Promise<void> {
  const { listRuns, followRun, pictureAt } = await import('./run-source.ts');
  const { besides } = await import('./beside.ts');
  const { differences } = await import('../../run/canonical.ts');
  const { errorLine, guarded } = errorPlace();
  let list = first;
  let shown: string[] = (asked?.split(',').map(decodeURIComponent) ?? [list[0]?.name ?? '']).filter(Boolean);
  const followed = new Map<string, Followed>();
  const lead = h('p', { class: 'lead', role: 'status' });
  const table = h('div', { class: 'tablewrap', tabindex: 0, role: 'region', 'aria-label': 'All runs' });
  const settings = h('div', {});
  const side = besides();

  const drawList = (): void => {
    lead.textContent =
      list.length === 0
        ? 'There is no run yet. One that begins appears here.'
        : 'What the report says of each, while it goes on: rows appear as they are written. Choose up to four.';
    const box = ({ name }: Entry) =>
      h('input', {
        type: 'checkbox',
        checked: shown.includes(name),
        'aria-label': `show ${name}`,
        'data-run': name,
        onchange: (event: Event) => {
          const on = (event.target as HTMLInputElement).checked;
          shown = on ? [...shown, name].slice(-MOST) : shown.filter((x) => x !== name);
          remember('runs', '', { show: shown.map(encodeURIComponent).join(',') });
          void guarded(choose);
        },
      });
    const focused = (document.activeElement as HTMLElement | null)?.dataset.run;
    set(
      table,
      list.length > 0 &&
        h(
          'table',
          {},
          h(
            'thead',
            {},
            h(
              'tr',
              {},
              ['show', 'run', 'method', 'step', 'last row (UTC)'].map((c) => h('th', { scope: 'col' }, c)),
            ),
          ),
          h(
            'tbody',
            {},
            list.map((entry) =>
              h(
                'tr',
                {},
                h('td', {}, box(entry)),
                h('th', { scope: 'row' }, entry.name),
                h('td', {}, entry.method),
                h('td', { class: 'n' }, entry.step),
                h('td', { class: 'n' }, when(entry.changed)),
              ),
            ),
          ),
        ),
    );
    if (focused !== undefined) table.querySelector<HTMLElement>(`[data-run="${CSS.escape(focused)}"]`)?.focus();
  };

  const drawSettings = (): void => {
    const all = [...followed.values()].map((f) => ({ name: f.name, settings: f.run().settings }));
    const [one, ...others] = all;
    const keys = [...new Set(others.flatMap((x) => differences(one!.settings, x.settings).map(([key]) => key)))].sort();
    const at = (from: unknown, key: string): string => {
      const value = key.split('.').reduce<unknown>((x, k) => (x as Record<string, unknown> | undefined)?.[k], from);
      return value === undefined ? 'not set' : typeof value === 'string' ? value : JSON.stringify(value);
    };
    set(
      settings,
      others.length > 0 &&
        h(
          'section',
          { 'data-differences': keys.length },
          h('h2', {}, 'Where their settings differ'),
          keys.length === 0
            ? h('p', {}, 'Nowhere: all settings are the same.')
            : h(
                'div',
                { class: 'tablewrap', tabindex: 0, role: 'region', 'aria-label': 'Settings that differ' },
                h(
                  'table',
                  {},
                  h(
                    'thead',
                    {},
                    h(
                      'tr',
                      {},
                      ['setting', ...all.map((x) => x.name)].map((c) => h('th', { scope: 'col' }, c)),
                    ),
                  ),
                  h(
                    'tbody',
                    {},
                    keys.map((key) =>
                      h(
                        'tr',
                        {},
                        h('th', { scope: 'row' }, key),
                        all.map((x) => h('td', {}, at(x.settings, key))),
                      ),
                    ),
                  ),
                ),
              ),
        ),
    );
  };

  const draw = async (): Promise<void> => {
    const all = [...followed.values()].map((f) => ({ name: f.name, run: f.run() }));
    await side.draw(all, (name, file) => pictureAt(name, file));
    side.element.dataset.steps = all.map(({ run }) => run.metrics.at(-1)?.step ?? 0).join(',');
  };

  const changed = nowAndThen(
    () => guarded(draw),
    DRAW_MS,
    () => left,
  );
  const choose = async (): Promise<void> => {
    for (const [name, f] of followed)
      if (!shown.includes(name)) {
        f.stop();
        followed.delete(name);
      }
    for (const name of shown) if (!followed.has(name)) followed.set(name, await followRun(name, changed));
    // the order in which they were chosen
    const order = shown.map((name) => [name, followed.get(name)!] as const);
    followed.clear();
    for (const [name, f] of order) followed.set(name, f);
    side.clear();
    drawSettings();
    await draw();
  };

  let left = false;
  const again = setInterval(async () => {
    list = (await listRuns().catch(() => undefined)) ?? list;
    if (left) return;
    drawList();
    // one that was asked for may only have begun now
    const late = shown.some((name) => !followed.has(name) && list.some((entry) => entry.name === name));
    if (late || (shown.length === 0 && list[0])) {
      if (!late) shown = [list[0]!.name];
      await guarded(choose);
      drawList();
    }
  }, LIST_MS);
  lab.leaving(() => {
    left = true;
    clearInterval(again);
    for (const f of followed.values()) f.stop();
  });
  drawList();
  into.append(lead, table, errorLine, settings, side.element);
  await guarded(choose);
}
