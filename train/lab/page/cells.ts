/**
 * A tensor as cells: a grid for its last two axes, one below the other for those before. One stop of the Tab key a tensor;
 * the arrow keys go from cell to cell, and cells that can be edited are edited by typing.
 */
import { h, short } from './dom.ts';

export interface CellsOptions {
  readonly name: string;
  readonly shape: readonly number[];
  readonly values: readonly number[];
  /** what stands above beside the name */
  readonly note?: string;
  /** a person typed another number */
  readonly edited?: (element: number, value: number) => void;
  /** a cell has the pointer or the focus; undefined when none has */
  readonly pointed?: (element: number | undefined) => void;
  /** a cell was clicked, or Enter pressed on it */
  readonly picked?: (element: number) => void;
}
export interface Cells {
  readonly element: HTMLElement;
  update(values: readonly number[]): void;
  /** lights cells up */
  mark(elements: ReadonlySet<number>, how: 'fed' | 'picked'): void;
}

export function cells(o: CellsOptions): Cells {
  const { shape, name } = o;
  const columns = shape.at(-1) ?? 1;
  const rows = shape.length > 1 ? shape.at(-2)! : 1;
  const count = shape.reduce((n, side) => n * side, 1);
  const outer = shape.slice(0, -2);
  const list: HTMLElement[] = [];
  const at = (element: number): string => {
    const index: number[] = [];
    let rest = element;
    for (const side of [...shape].reverse()) {
      index.unshift(rest % side);
      rest = Math.floor(rest / side);
    }
    return index.length > 0 ? `${name}[${index.join(', ')}]` : name;
  };
  const go = (element: number): void => {
    for (const [i, cell] of list.entries()) cell.tabIndex = i === element ? 0 : -1;
    list[element]?.focus();
    const cell = list[element];
    if (cell instanceof HTMLInputElement) cell.select();
  };
  const keys = (element: number) => (event: KeyboardEvent) => {
    const input = event.target instanceof HTMLInputElement ? event.target : undefined;
    // inside a number being typed left and right move in the text
    const inText = input && !(input.selectionStart === 0 && input.selectionEnd === input.value.length);
    const steps: Readonly<Record<string, number>> = {
      ArrowUp: -columns,
      ArrowDown: columns,
      ...(inText ? {} : { ArrowLeft: -1, ArrowRight: 1 }),
    };
    const by = steps[event.key];
    if (event.key === 'Enter') o.picked?.(element);
    if (by === undefined || element + by < 0 || element + by >= count) return;
    event.preventDefault();
    go(element + by);
  };
  const cell = (element: number): HTMLElement => {
    const shared = {
      tabindex: element === 0 ? 0 : -1,
      'aria-label': at(element),
      'data-element': element,
      onkeydown: keys(element),
      onfocus: () => o.pointed?.(element),
      onblur: () => o.pointed?.(undefined),
      onmouseenter: () => o.pointed?.(element),
      onmouseleave: () => o.pointed?.(undefined),
      onclick: () => o.picked?.(element),
    };
    const value = o.values[element]!;
    if (!o.edited) {
      const label = `${at(element)} = ${short(value)}`;
      return h(
        'span',
        { ...shared, 'aria-label': label, class: 'cell', role: 'gridcell', title: String(value) },
        short(value),
      );
    }
    const input = h('input', {
      ...shared,
      class: 'cell',
      value: String(Number(value.toPrecision(5))),
      title: String(value),
      inputmode: 'decimal',
      autocomplete: 'off',
      spellcheck: 'false',
      onchange: () => {
        const typed = Number(input.value.replace('−', '-'));
        const fine = input.value.trim() !== '' && Number.isFinite(typed);
        input.setAttribute('aria-invalid', String(!fine));
        if (fine) o.edited!(element, typed);
      },
    });
    return input;
  };
  for (let i = 0; i < count; i++) list.push(cell(i));
  const row = (from: number): HTMLElement =>
    h(
      'div',
      { class: 'row', role: 'row' },
      list.slice(from, from + columns).map((c) => (o.edited ? h('span', { role: 'gridcell' }, c) : c)),
    );
  const blocks = Array.from({ length: columns === 0 || rows === 0 ? 0 : count / (rows * columns) }, (_, block) => {
    const from = block * rows * columns;
    return h(
      'div',
      { class: 'block', role: 'rowgroup' },
      Array.from({ length: rows }, (_, r) => row(from + r * columns)),
    );
  });
  const element = h(
    'figure',
    { class: 'tensor' },
    h(
      'figcaption',
      {},
      h('b', {}, name),
      ` [${shape.join(', ')}]`,
      o.note ? h('span', { class: 'muted' }, ` ${o.note}`) : '',
    ),
    h(
      'div',
      { class: 'cells', role: 'grid', 'aria-label': `${name}, ${shape.join(' × ') || 'one number'}` },
      outer.length > 0 ? blocks : blocks[0],
    ),
  );
  return {
    element,
    update(values) {
      for (const [i, c] of list.entries()) {
        const value = values[i]!;
        c.title = String(value);
        if (c instanceof HTMLInputElement) {
          if (c !== document.activeElement) c.value = String(Number(value.toPrecision(5)));
        } else {
          c.textContent = short(value);
          c.ariaLabel = `${at(i)} = ${short(value)}`;
        }
      }
    },
    mark(elements, how) {
      for (const [i, c] of list.entries()) c.classList.toggle(how, elements.has(i));
    },
  };
}
