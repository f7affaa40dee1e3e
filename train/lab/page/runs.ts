/** The folders of runs, live and side by side: what the report says of each, and where their settings differ. */
import { errorPlace, h, set } from './dom.ts';
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
  const { PARTS, partsOf, elementsOf, enliven } = await import('./panels.ts');
  const { differences } = await import('../../run/canonical.ts');
  const { errorLine, guarded } = errorPlace();
  let list = first;
  let shown: string[] = (asked?.split(',').map(decodeURIComponent) ?? [list[0]?.name ?? '']).filter(Boolean);
  const followed = new Map<string, Followed>();
  const lead = h('p', { class: 'lead', role: 'status' });
  const table = h('div', { class: 'tablewrap', tabindex: 0, role: 'region', 'aria-label': 'All runs' });
  const settings = h('div', {});
  const parts = h('div', {});
  /** what stands where, so that nothing is drawn twice */
  const drawn = new Map<string, string>();

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

  /** A part of one run: replaced where it says something else, unless somebody is in it. */
  const put = (cell: HTMLElement, key: string, markup: string, name?: string): void => {
    if (drawn.get(key) === markup || cell.contains(document.activeElement)) return;
    const open = [...cell.querySelectorAll('details')].map((d) => d.open);
    set(cell, elementsOf(markup, name));
    for (const [i, d] of cell.querySelectorAll('details').entries()) d.open = open[i] ?? false;
    drawn.set(key, markup);
  };
  const draw = async (): Promise<void> => {
    const all = [...followed.values()];
    const records = all.map((f) => f.run());
    const made = await Promise.all(
      records.map((run, i) => {
        // beside others, those are what it is compared with
        const others = records.flatMap((r, k) =>
          k === i
            ? []
            : [{ label: r.name, validations: r.validations, results: r.results, method: `${r.method} (${r.name})` }],
        );
        return partsOf({ ...run, compared: [...run.compared, ...others] }, (file) => pictureAt(run.name, file));
      }),
    );
    for (const id of PARTS) {
      const found = made.map((list) => list.find((p) => p.id === id));
      const title = found.find((p) => p)?.title;
      let section = parts.querySelector<HTMLElement>(`[data-part="${id}"]`);
      if (title === undefined) {
        section?.remove();
        continue;
      }
      if (!section) {
        section = h(
          'section',
          { 'data-part': id },
          title !== '' && h('h2', {}, title),
          h('div', { class: `beside${all.length > 1 ? ' many' : ''}` }),
        );
        const later = PARTS.slice(PARTS.indexOf(id) + 1);
        parts.insertBefore(
          section,
          [...parts.children].find((c) => later.includes((c as HTMLElement).dataset.part ?? '')) ?? null,
        );
      }
      const row = section.querySelector('.beside')!;
      for (const [i, { name }] of all.entries()) {
        let cell = row.children[i] as HTMLElement | undefined;
        if (!cell) {
          cell = h('div', {});
          row.append(cell);
          set(
            cell,
            all.length > 1 && id !== 'head' && h('p', { class: 'runname' }, name),
            h('div', { class: 'report' }),
          );
        }
        put(
          cell.querySelector<HTMLElement>('.report')!,
          `${id} ${name}`,
          found[i]?.markup ?? '<p class="muted">nothing of this</p>',
          all.length > 1 ? name : undefined,
        );
      }
    }
    parts.dataset.steps = records.map((r) => r.metrics.at(-1)?.step ?? 0).join(',');
    enliven();
  };

  // drawn when something came, with time between for everything else
  let [waiting, last, cost] = [false, 0, 0];
  const changed = (): void => {
    if (waiting) return;
    waiting = true;
    const pause = Math.max(0, Math.max(DRAW_MS, 10 * cost) - (performance.now() - last));
    setTimeout(async () => {
      waiting = false;
      if (left) return;
      const began = performance.now();
      await guarded(draw);
      last = performance.now();
      cost = last - began;
    }, pause);
  };
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
    drawn.clear();
    set(parts);
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
  into.append(lead, table, errorLine, settings, parts);
  await guarded(choose);
}
