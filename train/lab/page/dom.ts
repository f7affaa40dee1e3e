/** Elements in one call each: `h('p', { class: 'lead' }, 'text')`. Text is text: nothing is ever parsed as markup. */

/** What an element may hold. */
export type Child = Node | string | number | undefined | false | readonly Child[];
type Attributes = Readonly<Record<string, string | number | boolean | undefined | ((event: never) => void)>>;

const SVG = 'http://www.w3.org/2000/svg';

function fill(element: Element, attributes: Attributes, children: readonly Child[]): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name.replace(/^on/, ''), value as EventListener);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  add(element, children);
}
function add(element: Element, children: readonly Child[]): void {
  for (const child of children) {
    if (child === undefined || child === false) continue;
    if (Array.isArray(child)) add(element, child);
    else element.append(typeof child === 'number' ? String(child) : (child as Node | string));
  }
}

/** An HTML element; attributes that are functions are listeners (`onclick`). */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  fill(element, attributes, children);
  return element;
}
/** An SVG element. */
export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: readonly Child[]
): SVGElementTagNameMap[K] {
  const element = document.createElementNS(SVG, tag);
  fill(element, attributes, children);
  return element;
}
/** Puts other children in the place of an element's. */
export function set(element: Element, ...children: readonly Child[]): void {
  element.replaceChildren();
  add(element, children);
}

/** A choice from a list, with its label. */
export function choice<T extends string>(
  label: string,
  options: readonly (readonly [value: T, text: string])[],
  value: T,
  changed: (value: T) => void,
): HTMLElement {
  const select = h(
    'select',
    { onchange: () => changed(select.value as T) },
    options.map(([name, text]) => h('option', { value: name, selected: name === value }, text)),
  );
  return h('label', { class: 'field' }, h('span', {}, label), select);
}
/** A slider with its label and its value in words. */
export function slider(
  label: string,
  o: { readonly min: number; readonly max: number; readonly step: number; readonly value: number },
  words: (value: number) => string,
  changed: (value: number) => void,
): HTMLElement {
  const shown = h('output', {}, words(o.value));
  const input = h('input', {
    type: 'range',
    min: o.min,
    max: o.max,
    step: o.step,
    value: o.value,
    oninput: () => {
      const value = Number(input.value);
      shown.textContent = words(value);
      changed(value);
    },
  });
  return h('label', { class: 'field' }, h('span', {}, label), input, shown);
}
/** Text of a program in a frame that scrolls by itself. */
export const code = (text: string, label: string): HTMLElement =>
  h('pre', { class: 'code', tabindex: 0, role: 'region', 'aria-label': label }, text);

/** Text in which what stands between two `backticks` is code. */
export const prose = (text: string): readonly Child[] =>
  text.split('`').map((part, i) => (i % 2 === 1 ? h('code', {}, part) : part));

/** A place for the line of an error, and work whose error is shown there; whether it went well. */
export function errorPlace(): {
  readonly errorLine: HTMLElement;
  readonly guarded: (work: () => Promise<void>) => Promise<boolean>;
} {
  const errorLine = h('p', { class: 'error', role: 'alert', hidden: true });
  const guarded = async (work: () => Promise<void>): Promise<boolean> => {
    try {
      await work();
      errorLine.hidden = true;
    } catch (error) {
      errorLine.hidden = false;
      errorLine.textContent = (error as Error).message;
    }
    return errorLine.hidden;
  };
  return { errorLine, guarded };
}

/** Work done soon after it is asked for, with time between for everything else; never after `over`. */
export function nowAndThen(work: () => Promise<unknown>, least: number, over: () => boolean): () => void {
  let [waiting, last, cost] = [false, 0, 0];
  return () => {
    if (waiting) return;
    waiting = true;
    const pause = Math.max(0, Math.max(least, 10 * cost) - (performance.now() - last));
    setTimeout(async () => {
      waiting = false;
      if (over()) return;
      const began = performance.now();
      await work();
      last = performance.now();
      cost = last - began;
    }, pause);
  };
}

/** A number in few digits. */
export function short(x: number): string {
  if (!Number.isFinite(x)) return Number.isNaN(x) ? 'NaN' : x > 0 ? '∞' : '−∞';
  const size = Math.abs(x);
  if (Number.isInteger(x) && size < 1e6) return String(x).replace('-', '−');
  const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? x.toExponential(2) : String(Number(x.toPrecision(4)));
  return text.replaceAll('-', '−');
}
