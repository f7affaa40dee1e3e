/**
 * Charts as text: Observable Plot draws into linkedom's document, so no browser is needed. Every chart is made
 * twice from one string: as a part of the page (the page's own style sheet applies) and as a file of its own.
 */
import * as Plot from '@observablehq/plot';
import { parseHTML } from 'linkedom';
import { printable } from '../../../models/io/error.ts';
import { darkRules, ground, ramp, rampSteps } from './colors.ts';

const { document } = parseHTML('<!doctype html><html><body></body></html>');

/** The part of an SVG element that charts are edited through after Plot has drawn them. */
export interface SvgElement {
  readonly outerHTML: string;
  readonly firstChild: SvgElement | null;
  textContent: string | null;
  getAttribute(name: string): string | null;
  setAttribute(name: string, value: string): void;
  removeAttribute(name: string): void;
  appendChild(child: SvgElement): SvgElement;
  insertBefore(child: SvgElement, before: SvgElement | null): SvgElement;
  querySelectorAll(selector: string): Iterable<SvgElement>;
  querySelector(selector: string): SvgElement | null;
  remove(): void;
}

/** A new SVG element with attributes and text, for what Plot has no mark for. */
export function element(
  name: string,
  attributes: Readonly<Record<string, string | number>>,
  text?: string,
): SvgElement {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name) as unknown as SvgElement;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
  if (text !== undefined) node.textContent = printable(text, Number.POSITIVE_INFINITY);
  return node;
}

/** Title and longer description, read by screen readers and shown as the file's name in a browser tab. */
export interface ChartText {
  readonly title: string;
  readonly description: string;
}

/**
 * Draws a plot and returns its root element, with `role="img"`, title and description; Plot's own inline style is
 * removed (the page's content-security policy allows no unknown style).
 */
export function draw(options: Plot.PlotOptions, text: ChartText): SvgElement {
  const node = Plot.plot({
    ...options,
    document,
    figure: false,
  } as Plot.PlotOptions) as unknown as SvgElement;
  for (const style of node.querySelectorAll('style')) style.remove();
  for (const attribute of ['class', 'style']) node.removeAttribute(attribute);
  for (const styled of node.querySelectorAll('[style]')) styled.removeAttribute('style');
  // Plot draws with currentColor; a fixed ink lets a file on its own be themed like everything else.
  node.setAttribute('fill', ground.ink.light);
  for (const stroked of node.querySelectorAll('[stroke="currentColor"]')) {
    stroked.setAttribute('stroke', ground.muted.light);
  }
  // Plot names its groups for screen readers, which read the chart's description instead.
  for (const named of node.querySelectorAll('[aria-label]')) {
    named.setAttribute('data-mark', named.getAttribute('aria-label')!);
    named.removeAttribute('aria-label');
  }
  node.setAttribute('font-size', '12');
  node.setAttribute('role', 'img');
  node.insertBefore(element('desc', {}, text.description), node.firstChild);
  node.insertBefore(element('title', {}, text.title), node.firstChild);
  return node;
}

/** Writes the chart's heading and, in grey below it, a subtitle into the top left corner. */
export function appendHeading(node: SvgElement, title: string, subtitle?: string): void {
  node.appendChild(element('text', { x: 0, y: 14, 'text-anchor': 'start', 'font-weight': 600 }, title));
  if (subtitle === undefined) return;
  node.appendChild(element('text', { x: 0, y: 32, 'text-anchor': 'start', fill: ground.muted.light }, subtitle));
}

/**
 * Appends the colour scale with its two ends named, at (x, y).
 * `width` is the length of the bar in pixels.
 */
export function appendScale(
  node: SvgElement,
  at: { readonly x: number; readonly y: number; readonly width: number },
  low: string,
  high: string,
): void {
  const group = element('g', { transform: `translate(${at.x},${at.y})`, 'font-size': 11 });
  const step = at.width / rampSteps;
  ramp.forEach(({ light }, i) => {
    group.appendChild(element('rect', { x: round(i * step), y: 0, width: round(step + 0.3), height: 8, fill: light }));
  });
  group.appendChild(element('text', { x: -6, y: 8, 'text-anchor': 'end', fill: ground.muted.light }, low));
  group.appendChild(element('text', { x: at.width + 6, y: 8, 'text-anchor': 'start', fill: ground.muted.light }, high));
  node.appendChild(group);
}

/** One decimal: sub-pixel digits only make files longer. */
export const round = (v: number): number => Math.round(v * 10) / 10;

/** The chart as part of a page. */
export function inline(node: SvgElement): string {
  return shorten(node.outerHTML);
}

/** The chart as a file: namespace, white (or dark) ground, and the dark counterparts of its colours. */
export function standalone(inlineSvg: string): string {
  const dark = `@media screen and (prefers-color-scheme:dark){${darkRules()}}`;
  const [, width, height] = /viewBox="0 0 ([\d.]+) ([\d.]+)"/.exec(inlineSvg) ?? [];
  const paper = `<rect width="${width}" height="${height}" fill="${ground.paper.light}"/>`;
  return inlineSvg
    .replace('<svg', '<svg xmlns="http://www.w3.org/2000/svg"')
    .replace('>', `><style>text{white-space:pre}${dark}</style>${paper}`)
    .concat('\n');
}

/** Coordinates to two decimals: half the bytes, no visible difference. */
function shorten(svg: string): string {
  return svg.replace(/ (d|transform|x|y|width|height|x1|x2|y1|y2|cx|cy|r|points)="([^"]*)"/g, (_, name, value) => {
    const short = String(value).replace(/-?\d+\.\d{3,}(?![\d.e])/g, (n) => String(Number(Number(n).toFixed(2))));
    return ` ${name}="${short}"`;
  });
}
