/**
 * Rank maps like the paper's figures 3 and 4: rows = kinds of layer, columns = places in the network in the order of
 * the forward pass, each cell its number and colour. Also used for ‖ΔW‖/‖W‖ and for an adapter file alone.
 */
import * as Plot from '@observablehq/plot';
import { quantile } from 'd3-array';
import { printable, printableLines } from '../../../models/io/error.ts';
import { number } from '../../words/format.ts';
import { finiteExtent } from '../../words/statistics.ts';
import { ground, rampIndex, rampStep } from './colors.ts';
import { decades } from './line-chart.ts';
import { type Grid, type Layout, layout, type Network } from './modules.ts';
import { appendHeading, appendScale, draw, inline, type SvgElement, standalone } from './svg.ts';

/** What a map shows and says. */
export interface MapOptions {
  readonly title: string;
  /** Counts and means, in grey below the title. */
  readonly subtitle: string;
  readonly description: string;
  /** Text in a cell. */
  readonly format: (value: number) => string;
  /** Text of a row's mean; default: as in a cell. */
  readonly formatMean?: (value: number) => string;
  /** What hovering a cell says. */
  readonly tooltip: (path: string, value: number) => string;
  /** Fixed ends of the colour scale, so that two maps can be compared; default: the grid's own. */
  readonly domain?: readonly [low: number, high: number];
  /** Colours by the logarithm. */
  readonly log?: boolean;
}

const cellWidth = 31;
const cellHeight = 25;
const left = 78;
const top = 62;

/** A cell ready to be drawn. */
interface Drawn {
  readonly x: string;
  readonly y: string;
  readonly fill: string;
  readonly ink: string;
  readonly text: string;
  readonly tip: string;
  readonly path: string;
}

/** Name of the last column, which averages each row. */
const meanColumn = 'mean';

function rowMean(grid: Grid<number>, row: string): number {
  const values = grid.cells.filter((c) => c.row === row && Number.isFinite(c.value)).map((c) => c.value);
  return values.length === 0 ? Number.NaN : values.reduce((a, b) => a + b, 0) / values.length;
}

/** One grid as an SVG element. Cells carry `data-module` with their path, for the page's tooltips. */
export function drawMap(grid: Grid<number>, options: MapOptions): SvgElement {
  const [low, high] = options.domain ?? finiteExtent(grid.cells.map((c) => c.value));
  const [from, to] = options.log ? [Math.log(low), Math.log(high)] : [low, high];
  const cells = grid.cells.map((c): Drawn => {
    const style = Number.isFinite(c.value)
      ? rampStep(rampIndex(options.log ? Math.log(c.value) : c.value, from, to))
      : { fill: ground.faint.light, text: ground.muted.light };
    const tip = printableLines(options.tooltip(c.path, c.value));
    return {
      x: c.column,
      y: c.row,
      fill: style.fill,
      ink: style.text,
      text: options.format(c.value),
      tip,
      path: c.path,
    };
  });
  const means = grid.rows.map((row) => ({
    x: meanColumn,
    y: row,
    text: (options.formatMean ?? options.format)(rowMean(grid, row)),
  }));
  const height = top + grid.rows.length * cellHeight + 40;
  // Wide enough for the title, about 7 pixels a letter at this size, and for the scale with its last number.
  const width = Math.max(left + 260, left + (grid.columns.length + 2) * cellWidth + 6, options.title.length * 7.2, 300);
  const marginRight = width - left - (grid.columns.length + 2) * cellWidth;
  const node = draw(
    {
      width,
      height,
      marginLeft: left,
      marginRight,
      marginTop: top,
      marginBottom: 40,
      x: { domain: [...grid.columns, '', meanColumn], axis: 'top', tickSize: 0, padding: 0.06, label: null },
      y: { domain: [...grid.rows], tickSize: 0, padding: 0.08, label: null },
      marks: [
        Plot.cell(cells, { x: 'x', y: 'y', fill: { value: 'fill', scale: null }, rx: 2, title: 'tip' }),
        Plot.text(cells, { x: 'x', y: 'y', text: 'text', fill: { value: 'ink', scale: null } }),
        Plot.text(means, { x: 'x', y: 'y', text: 'text', fill: ground.muted.light }),
      ],
    } as Plot.PlotOptions,
    options,
  );
  finishCells(node, cells);
  appendHeading(node, options.title, options.subtitle);
  appendScale(node, { x: left + 40, y: height - 22, width: 160 }, options.format(low), options.format(high));
  return node;
}

/**
 * Marks the rectangles with their module, lets the keyboard reach them (one stop a map, the page's script moves between
 * the cells) and keeps the numbers from swallowing the pointer.
 */
function finishCells(node: SvgElement, cells: readonly Drawn[]): void {
  node.setAttribute('role', 'group');
  let i = 0;
  for (const rect of node.querySelectorAll('[data-mark="cell"] rect')) {
    rect.setAttribute('data-module', printable(cells[i]!.path));
    rect.setAttribute('role', 'img');
    rect.setAttribute('tabindex', i === 0 ? '0' : '-1');
    i++;
  }
  for (const text of node.querySelectorAll('[data-mark="text"]')) text.setAttribute('pointer-events', 'none');
}

const networkNames: Readonly<Record<Network, string>> = { unet: 'U-Net', text: 'Text encoder' };

/** A rank; the mean of several runs' with one decimal. */
const rankText = (rank: number): string => (Number.isInteger(rank) ? String(rank) : rank.toFixed(1));

/** The rank maps of a layout, as page parts. */
export function drawRankMaps(
  placed: Layout<number>,
  tooltip: MapOptions['tooltip'] = (path, rank) => `${path}: rank ${rankText(rank)}`,
): { readonly unet?: string; readonly text?: string } {
  const domain = finiteExtent([placed.unet, placed.text].flatMap((g) => g?.cells.map((c) => c.value) ?? []));
  const one = (network: Network): string | undefined => {
    const grid = placed[network];
    if (grid === undefined) return undefined;
    const sum = grid.cells.reduce((all, c) => all + c.value, 0);
    const [total, mean] = [rankText(sum), (sum / grid.cells.length).toFixed(2)];
    const description = `Rank of ${grid.cells.length} adapters; total ${total}, mean ${mean}, from ${rankText(domain[0])} to ${rankText(domain[1])}.`;
    const title = `${networkNames[network]}: rank per layer`;
    const subtitle = `n = ${grid.cells.length}, total ${total}, mean ${mean}`;
    const formatMean = (v: number): string => v.toFixed(1);
    return inline(drawMap(grid, { title, subtitle, description, format: rankText, formatMean, tooltip, domain }));
  };
  const unet = one('unet');
  const text = one('text');
  return { ...(unet ? { unet } : {}), ...(text ? { text } : {}) };
}

/** Numbers of a map's cells, all in one unit, two digits each: shares in percent, others in a power of ten. */
function cellNumbers(
  values: readonly number[],
  share: boolean,
): { readonly unit: string; readonly format: (v: number) => string } {
  const [, high] = finiteExtent(values);
  const power = high > 0 ? Math.floor(Math.log10(high)) : 0;
  const percents = share && power >= -3;
  const factor = percents ? 100 : power < 0 || power > 1 ? 10 ** -power : 1;
  const digits = String(power)
    .replace('-', '⁻')
    .replace(/\d/g, (d) => '⁰¹²³⁴⁵⁶⁷⁸⁹'[Number(d)]!);
  return {
    unit: percents ? ' in %' : factor === 1 ? '' : ` in 10${digits}`,
    format: (value) => {
      const v = value * factor;
      if (!Number.isFinite(v)) return '–';
      if (v === 0 || v >= 9.95) return String(Math.round(v));
      if (v >= 0.995) return v.toFixed(1);
      return v < 0.005 ? '<.01' : v.toFixed(2).replace(/^0/, '');
    },
  };
}

/**
 * Maps of how much each layer was changed, on one scale of colours for both networks, logarithmic where the values ask
 * for it. `what`: `‖ΔW‖/‖W‖` (a share) or `‖ΔW‖`.
 */
export function drawChangeMaps(
  placed: Layout<number>,
  what: '‖ΔW‖/‖W‖' | '‖ΔW‖',
): { readonly unet?: string; readonly text?: string } {
  const values = [placed.unet, placed.text].flatMap((g) => g?.cells.map((c) => c.value) ?? []);
  const { unit, format } = cellNumbers(values, what === '‖ΔW‖/‖W‖');
  const log = decades(values.filter((v) => v > 0));
  const domain = finiteExtent(log ? values.filter((v) => v > 0) : values);
  const one = (network: Network): string | undefined => {
    const grid = placed[network];
    if (grid === undefined) return undefined;
    const median = quantile(grid.cells, 0.5, (c) => c.value);
    return inline(
      drawMap(grid, {
        title: `${networkNames[network]}: ${what} per layer${unit}`,
        subtitle: `n = ${grid.cells.length}, median ${number(median)}`,
        description:
          what === '‖ΔW‖'
            ? 'Frobenius norm of the learned change.'
            : 'Frobenius norm of the learned change relative to that of the frozen weight.',
        format,
        tooltip: (path, v) => `${path}: ${what} ${number(v)}`,
        domain,
        log,
      }),
    );
  };
  const [unet, text] = [one('unet'), one('text')];
  return { ...(unet ? { unet } : {}), ...(text ? { text } : {}) };
}

/**
 * Rank maps from ranks alone, as SVG files: what `npm run inspect` draws for an adapter.
 * A map is missing where no module belongs to that network.
 * @example rankHeatMaps(new Map([['text_model.encoder.layers.0.self_attn.q_proj', 4]])).text // '<svg …'
 */
export function rankHeatMaps(ranks: ReadonlyMap<string, number>): { readonly unet?: string; readonly text?: string } {
  const { unet, text } = drawRankMaps(layout(ranks));
  return { ...(unet ? { unet: standalone(unet) } : {}), ...(text ? { text: standalone(text) } : {}) };
}
