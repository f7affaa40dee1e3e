/** Numbers as pictures: films in grey, values around zero in two colours, bars. */
import type { Numbers } from '../machine/numbers.ts';
import { type Child, h, short, svg } from './dom.ts';

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
export function heat(values: ArrayLike<number>, rows: number, columns: number, label: string, most = 260): HTMLElement {
  let largest = 1e-30;
  for (let i = 0; i < values.length; i++) largest = Math.max(largest, Math.abs(values[i]!));
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
/** channels of a picture that are shown at most */
const MOST_CHANNELS = 64;
/** A value [h, w, c]: its channels as tiles, all with the same colours. */
function tiles({ shape, values }: { readonly shape: readonly number[]; readonly values: Float32Array }, label: string) {
  const [rows, columns, count] = shape as [number, number, number];
  const shown = Math.min(count, MOST_CHANNELS);
  const across = Math.ceil(Math.sqrt(shown));
  const down = Math.ceil(shown / across);
  const largest = values.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-30);
  const [width, height] = [across * (columns + 1) - 1, down * (rows + 1) - 1];
  const scale = Math.max(0.25, Math.min(8, 270 / Math.max(width, height)));
  const words = `${label}, ${rows} × ${columns}, ${shown < count ? `${shown} of ` : ''}${count} channels`;
  const picture = canvas(width, height, `${words}, from −${short(largest)} to ${short(largest)}`, scale, (data) => {
    for (let c = 0; c < shown; c++)
      for (let y = 0; y < rows; y++)
        for (let x = 0; x < columns; x++) {
          const [top, left] = [Math.floor(c / across) * (rows + 1) + y, (c % across) * (columns + 1) + x];
          data.set([...signed(values[(y * columns + x) * count + c]! / largest), 255], 4 * (top * width + left));
        }
  });
  const range = h('span', { class: 'muted' }, `±${short(largest)}`);
  return h('figure', { class: 'film' }, picture, h('figcaption', {}, words, h('br', {}), range));
}
/** A tensor by its shape: channels of a picture as tiles, rows of numbers as a matrix. */
export function tensorPicture(
  tensor: { readonly shape: readonly number[]; readonly values: Float32Array },
  label: string,
): HTMLElement {
  if (tensor.shape.length === 3 && tensor.shape[0]! > 1) return tiles(tensor, label);
  const columns = tensor.shape.at(-1) ?? 1;
  const rows = tensor.values.length / columns;
  return heat(tensor.values, rows, columns, `${label}, ${rows} × ${columns}`, 270);
}

const BINS = 40;
/** How often numbers of each size occur. */
export function histogram(values: Float32Array, label: string): HTMLElement {
  let [least, most, sum, squares] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0, 0];
  for (const x of values) {
    if (!Number.isFinite(x)) continue;
    least = Math.min(least, x);
    most = Math.max(most, x);
    sum += x;
    squares += x * x;
  }
  const counts = new Array<number>(BINS).fill(0);
  const size = (most - least) / BINS || 1;
  for (const x of values) if (Number.isFinite(x)) counts[Math.min(BINS - 1, Math.floor((x - least) / size))]!++;
  const highest = Math.max(1, ...counts);
  const [width, height] = [240, 90];
  const bars = counts.map((n, i) => {
    const tall = (n / highest) * height;
    return svg('rect', { x: (i * width) / BINS, y: height - tall, width: width / BINS - 1, height: tall });
  });
  const mean = sum / values.length;
  const deviation = Math.sqrt(Math.max(0, squares / values.length - mean * mean));
  const words = `mean ${short(mean)}, deviation ${short(deviation)}`;
  const drawn = svg(
    'svg',
    {
      class: 'histogram',
      viewBox: `0 0 ${width} ${height}`,
      width,
      height,
      role: 'img',
      'aria-label': `${label}: ${words}`,
    },
    bars,
  );
  const ends = h('span', { class: 'ends' }, h('span', {}, short(least)), h('span', {}, short(most)));
  return h(
    'figure',
    { class: 'film' },
    drawn,
    ends,
    h('figcaption', {}, label, h('br', {}), h('span', { class: 'muted' }, words)),
  );
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
