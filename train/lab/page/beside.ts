/** What the report says of several runs, part by part beside each other; only what says something else is drawn anew. */
import type { AnyPanel } from '../../report/panel.ts';
import type { RunRecord } from '../../run/record.ts';
import { h, set } from './dom.ts';
import { elementsOf, enliven, PARTS, partsOf } from './panels.ts';

/** A run with its name on the page. */
export interface Named {
  readonly name: string;
  readonly run: RunRecord;
}

export interface Besides {
  readonly element: HTMLElement;
  /** @param picture the address of a picture of a run */
  draw(runs: readonly Named[], picture?: (name: string, file: string) => string): Promise<void>;
  clear(): void;
}

/** What a run is compared with where others stand beside it. */
const asCompared = ({ name, run }: Named): RunRecord['compared'][number] => ({
  label: name,
  validations: run.validations,
  results: run.results,
  method: `${run.method} (${name})`,
});

/** @param panels those that are shown (default: a run's head and all of the report's) */
export function besides(panels?: readonly AnyPanel[]): Besides {
  const element = h('div', {});
  const ids = panels?.map((p) => p.id) ?? PARTS;
  /** what stands where */
  const drawn = new Map<string, string>();

  /** A part of one run: replaced where it says something else, unless somebody is in it. */
  const put = (cell: HTMLElement, key: string, markup: string, name?: string): void => {
    if (drawn.get(key) === markup || cell.contains(document.activeElement)) return;
    const open = [...cell.querySelectorAll('details')].map((d) => d.open);
    set(cell, elementsOf(markup, name));
    for (const [i, d] of cell.querySelectorAll('details').entries()) d.open = open[i] ?? false;
    drawn.set(key, markup);
  };
  const sectionOf = (id: string, title: string, many: boolean): HTMLElement => {
    const there = element.querySelector<HTMLElement>(`[data-part="${id}"]`);
    if (there) return there;
    const section = h(
      'section',
      { 'data-part': id },
      title !== '' && h('h2', {}, title),
      h('div', { class: `beside${many ? ' many' : ''}` }),
    );
    const later = ids.slice(ids.indexOf(id) + 1);
    const next = [...element.children].find((c) => later.includes((c as HTMLElement).dataset.part ?? ''));
    element.insertBefore(section, next ?? null);
    return section;
  };

  return {
    element,
    async draw(runs, picture = (_, file) => file) {
      const many = runs.length > 1;
      const made = await Promise.all(
        runs.map((own) => {
          const others = runs.filter((r) => r !== own).map(asCompared);
          const run = { ...own.run, compared: [...own.run.compared, ...others] };
          return partsOf(run, (file) => picture(own.name, file), panels);
        }),
      );
      for (const id of ids) {
        const found = made.map((list) => list.find((p) => p.id === id));
        const title = found.find((p) => p)?.title;
        if (title === undefined) {
          element.querySelector(`[data-part="${id}"]`)?.remove();
          continue;
        }
        const row = sectionOf(id, title, many).querySelector('.beside')!;
        for (const [i, { name }] of runs.entries()) {
          let cell = row.children[i] as HTMLElement | undefined;
          if (!cell) {
            const named = many && id !== 'head' && h('p', { class: 'runname' }, name);
            cell = h('div', {}, named, h('div', { class: 'report' }));
            row.append(cell);
          }
          const markup = found[i]?.markup ?? '<p class="muted">nothing of this</p>';
          put(cell.querySelector<HTMLElement>('.report')!, `${id} ${name}`, markup, many ? name : undefined);
        }
      }
      enliven();
    },
    clear() {
      drawn.clear();
      set(element);
    },
  };
}
