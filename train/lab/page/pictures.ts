/** Numbers as pictures: films in grey, values around zero in two colours, bars. */
import type { Numbers } from '../machine/numbers.ts';
import { type Child, h, short } from './dom.ts';

/** A canvas of so many pixels, scaled up without smoothing. */
function canvas(width: number, height: number, label: string, scale: number, paint: (data: Uint8ClampedArray) => void) {
  const element = h('canvas', { width, height, role: 'img', 'aria-label': label });
  const context = element.getContext('2d')!;
  const image = context.createImageData(width, height);
  paint(image.data);
  context.putImageData(image, 0, 0);
  element.style.width = `${Math.round(width * scale)}px`;
  return element;
}

/**
 * A grey picture, values 0 to 1.
 * @param lit places of pixels that are tinted
 */
export const film = (
  values: ArrayLike<number>,
  side: number,
  label: string,
  { lit = [], below = label }: { readonly lit?: readonly number[]; readonly below?: Child } = {},
): HTMLElement =>
  h(
    'figure',
    { class: 'film' },
    canvas(side, side, label, 1, (data) => {
      for (let i = 0; i < values.length; i++) data.set([1, 1, 1].map((x) => x * 255 * values[i]!).concat(255), 4 * i);
      for (const i of lit) data.set([90 + 0.6 * data[4 * i]!, 70 + 0.4 * data[4 * i + 1]!], 4 * i);
    }),
    h('figcaption', {}, below),
  );

/** Below zero to one side of grey, above to the other; the ends told apart with every colour vision. */
function signed(x: number): readonly [number, number, number] {
  const t = Math.max(-1, Math.min(1, x));
  const [end, size] = [t < 0 ? [0, 90, 181] : [213, 94, 0], Math.sqrt(Math.abs(t))];
  return [0, 1, 2].map((i) => 240 + (end[i]! - 240) * size) as [number, number, number];
}
/** A matrix with colours from −largest to largest. */
export function heat(values: readonly number[], rows: number, columns: number, label: string, most = 260): HTMLElement {
  const largest = values.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-30);
  const scale = Math.max(0.25, Math.min(8, most / Math.max(rows, columns)));
  return h(
    'figure',
    { class: 'film' },
    canvas(columns, rows, `${label}, from −${short(largest)} to ${short(largest)}`, scale, (data) => {
      for (let i = 0; i < rows * columns; i++) data.set([...signed(values[i]! / largest), 255], 4 * i);
    }),
    h('figcaption', {}, label, h('br', {}), h('span', { class: 'muted' }, `±${short(largest)}`)),
  );
}
/** A latent [h, w, c]: its channels one beside the other. */
export function channels({ values, shape }: Numbers, label: string): HTMLElement {
  const [rows, columns, count] = shape as [number, number, number];
  const wide: number[] = [];
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < count; c++) for (let x = 0; x < columns; x++) wide.push(values[(r * columns + x) * count + c]!);
  return heat(wide, rows, columns * count, label, 256);
}
/** A bar of a share between 0 and 1, with its number beside it. */
export const bar = (share: number, text: string): HTMLElement => {
  const fill = h('span', {});
  fill.style.width = `${Math.round(100 * Math.max(0, Math.min(1, share)))}%`;
  return h(
    'span',
    { class: 'barcell' },
    h('span', { class: 'bargraph', 'aria-hidden': 'true' }, fill),
    h('span', {}, text),
  );
};
