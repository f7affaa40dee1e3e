/**
 * Rank maps like the paper's figures 3 and 4: rows = kinds of layer, columns = places in the network in the order of
 * the forward pass, each cell its number and colour. Also used for ‖ΔW‖/‖W‖ and for an adapter file alone.
 */
import * as Plot from '@observablehq/plot';
import { printable, printableLines } from '../../../models/io/error.ts';
import { finiteExtent } from '../../words/statistics.ts';
import { ground, rampIndex, rampStep } from './colors.ts';
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
  const cells = grid.cells.map((c): Drawn => {
    const style = Number.isFinite(c.value)
      ? rampStep(rampIndex(c.value, low, high))
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
  // Wide enough for the title: about 7 pixels a letter at this size.
  const width = Math.max(300, left + (grid.columns.length + 2) * cellWidth + 6, options.title.length * 7.2);
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

/** Marks the rectangles with their module and keeps the numbers from swallowing the pointer. */
function finishCells(node: SvgElement, cells: readonly Drawn[]): void {
  let i = 0;
  for (const rect of node.querySelectorAll('[aria-label="cell"] rect')) {
    rect.setAttribute('data-module', printable(cells[i]!.path));
    i++;
  }
  for (const text of node.querySelectorAll('[aria-label="text"]')) text.setAttribute('pointer-events', 'none');
}

/** Titles of the two maps. */
const names: Readonly<Record<Network, string>> = {
  unet: 'U-Net: rank per layer',
  text: 'Text encoder: rank per layer',
};

/** The rank maps of a layout, as page parts. */
export function drawRankMaps(
  placed: Layout<number>,
  tooltip: MapOptions['tooltip'] = (path, rank) => `${path}: rank ${rank}`,
): { readonly unet?: string; readonly text?: string } {
  const domain = finiteExtent([placed.unet, placed.text].flatMap((g) => g?.cells.map((c) => c.value) ?? []));
  const one = (network: Network): string | undefined => {
    const grid = placed[network];
    if (grid === undefined) return undefined;
    const total = grid.cells.reduce((sum, c) => sum + c.value, 0);
    const mean = (total / grid.cells.length).toFixed(2);
    const description = `Rank of ${grid.cells.length} adapters; total ${total}, mean ${mean}, from ${domain[0]} to ${domain[1]}.`;
    const title = names[network];
    const subtitle = `n = ${grid.cells.length}, total ${total}, mean ${mean}`;
    const formatMean = (v: number): string => v.toFixed(1);
    return inline(drawMap(grid, { title, subtitle, description, format: String, formatMean, tooltip, domain }));
  };
  const unet = one('unet');
  const text = one('text');
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
