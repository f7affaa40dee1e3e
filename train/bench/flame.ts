/** A flame-like chart: every box as wide as its time, its parts below it. */
import { element, inline, type SvgElement, standalone } from '../report/charts/svg.ts';

export type Flame = { readonly name: string; readonly ms: number; readonly children: readonly Flame[] };

const WIDTH = 1200;
const ROW = 20;
const TOP = 44;
/** narrower boxes are left out */
const NARROWEST = 0.8;
const CHARACTER = 6.6;

/** The tree of `parts` joined along their names. Children are sorted, longest first. */
export function flameOf(
  name: string,
  items: readonly { readonly path: readonly string[]; readonly ms: number }[],
): Flame {
  const groups = new Map<string, { path: readonly string[]; ms: number }[]>();
  for (const { path, ms } of items)
    if (path.length > 0) {
      const [first, ...rest] = path as [string, ...string[]];
      const group = groups.get(first) ?? [];
      groups.set(first, group);
      group.push({ path: rest, ms });
    }
  const children = [...groups].map(([n, list]) => flameOf(n, list)).sort((a, b) => b.ms - a.ms);
  return { name, ms: items.reduce((sum, { ms }) => sum + ms, 0), children };
}

const depth = (f: Flame): number => 1 + Math.max(0, ...f.children.map(depth));
/** the same name has the same colour everywhere */
const hue = (name: string): number => [...name].reduce((h, c) => (h * 31 + c.charCodeAt(0)) % 360, 7);

/** The chart as an SVG file: text and values on hover, colours that work on light and dark ground. */
export function flameSvg(root: Flame, title: string): string {
  const height = TOP + depth(root) * ROW + 8;
  const svg = element('svg', {
    viewBox: `0 0 ${WIDTH} ${height}`,
    width: WIDTH,
    height,
    role: 'img',
    'font-family': 'system-ui, sans-serif',
    'font-size': 12,
  });
  svg.appendChild(element('title', {}, title));
  svg.appendChild(element('text', { x: 4, y: 24, 'font-size': 16, fill: 'gray' }, title));
  const place = (f: Flame, x: number, level: number): void => {
    const width = (f.ms / root.ms) * WIDTH;
    if (width < NARROWEST) return;
    svg.appendChild(box(f, root, x, TOP + level * ROW, width));
    let at = x;
    for (const child of f.children) {
      place(child, at, level + 1);
      at += (child.ms / root.ms) * WIDTH;
    }
  };
  place(root, 0, 0);
  return standalone(inline(svg));
}

function box(f: Flame, root: Flame, x: number, y: number, width: number): SvgElement {
  const g = element('g', {});
  g.appendChild(element('title', {}, `${f.name}: ${f.ms.toFixed(2)} ms, ${((100 * f.ms) / root.ms).toFixed(1)} %`));
  g.appendChild(
    element('rect', {
      x: x + 0.5,
      y,
      width: Math.max(width - 1, 0.3),
      height: ROW - 1,
      rx: 2,
      fill: `hsl(${hue(f.name)} 55% 72%)`,
    }),
  );
  const fits = Math.floor((width - 8) / CHARACTER);
  if (fits >= 3) {
    const text = f.name.length > fits ? `${f.name.slice(0, fits - 1)}…` : f.name;
    g.appendChild(element('text', { x: x + 4, y: y + 14, fill: '#101418' }, text));
  }
  return g;
}
