/** What all contractions share: the choice of the tile, the division into units, sizes of panels. */

import type { Machine } from '../machine/machine.ts';
import { columns, type Stretches, type Tile } from './tile.ts';
import { tileFor } from './tune.ts';

/** rows of a unit at most, in tiles: with KC they fill a part of the second-level cache */
const TILES_PER_BLOCK = 32;
/** k of a block: a panel of B (KC × 32 bytes) stays in the first-level cache */
export const KC = 256;

/** multiplications below which a command stays on the main thread: about 5 µs */
export const SERIAL_WORK = 150_000;
/** multiplications worth a unit of its own */
const UNIT_WORK = 50_000;
/** wanted number of units: enough for 8 threads; fixed, so that results do not depend on the machine */
const WANTED_UNITS = 16;
const MAX_SPLITS = 32;
/** columns of a unit at least, where there are so many */
const MIN_COLUMNS = 128;

export const roundUp = (x: number, to: number): number => Math.ceil(x / to) * to;

/**
 * Tiles by their columns, and what a column costs in each beside the widest: narrow panels read more for each multiplication,
 * and where vectors are joined 4 columns have nothing to join. Of `half` the probe's rates say so (tune.ts; 87 to 98 GFLOP/s
 * beside 106), of `narrow` there the products of a step: up to 4 columns take some 5% less by it than by `half`.
 */
const WIDTHS = {
  apart: [
    { width: 'wide', columns: 8, cost: 1 },
    { width: 'narrow', columns: 4, cost: 1.1 },
  ],
  joined: [
    { width: 'wide', columns: 16, cost: 1 },
    { width: 'half', columns: 8, cost: 1.15 },
    { width: 'narrow', columns: 4, cost: 2.2 },
  ],
} as const;

/** the tile whose panels cost least on n columns */
export const chooseTile = (machine: Machine, stretches: Stretches, n: number): Tile => {
  const widths = machine.joins ? WIDTHS.joined : WIDTHS.apart;
  const costs = widths.map(({ columns, cost }) => roundUp(n, columns) * cost);
  return tileFor(machine, stretches, widths[costs.indexOf(Math.min(...costs))]!.width);
};

export interface Blocks {
  readonly rowsPerUnit: number;
  readonly rowBlocks: number;
  readonly panelsPerUnit: number;
  readonly columnBlocks: number;
}

/** how many units a contraction is worth */
export const wantedUnits = (groups: number, work: number): number =>
  Math.max(1, Math.min(WANTED_UNITS / groups, work / UNIT_WORK));

/**
 * Splits of k worth their second pass. Counted in blocks of 4 × 32 whatever tile is used: the order of a sum, and with it
 * the bits of a result, depends on the shape alone.
 */
export const splitsOf = (groups: number, m: number, n: number, k: number): number => {
  const blocks = Math.ceil(m / 4) * Math.ceil(n / 32);
  return Math.max(1, Math.min(MAX_SPLITS, Math.floor(wantedUnits(groups, m * n * k) / blocks), Math.floor(k / 64)));
};

/** Divides the rows and columns of a contraction into units. */
export const divide = (tile: Tile, groups: number, m: number, n: number, k: number, splits = 1): Blocks => {
  const width = columns(tile);
  const panels = Math.ceil(n / width);
  const area = (m * n * splits) / wantedUnits(groups, m * n * k);
  // A unit reads its rows of A and its columns of B: least for a square. Narrow ones would read A too often.
  const blockColumns = Math.max(Math.sqrt(area), Math.min(area / tile.rows, MIN_COLUMNS));
  const panelsPerUnit = Math.ceil(panels / Math.max(1, Math.round(n / blockColumns)));
  const wantedRows = area / Math.min(n, panelsPerUnit * width);
  const tilesPerUnit = Math.max(1, Math.min(TILES_PER_BLOCK, Math.round(wantedRows / tile.rows)));
  return {
    rowsPerUnit: tilesPerUnit * tile.rows,
    rowBlocks: Math.ceil(m / (tilesPerUnit * tile.rows)),
    panelsPerUnit,
    columnBlocks: Math.ceil(panels / panelsPerUnit),
  };
};

/** bytes of `lanes` × `k` in panels of `width` lanes */
export const panelBytes = (lanes: number, k: number, width: number): number => roundUp(lanes, width) * k * 4;

/** channels of a block of a long tap, and taps of a block of short ones: about KC steps of k */
export const tapBlocks = (channels: number, taps: number): { channelBlock: number; tapsPerBlock: number } =>
  channels > KC
    ? { channelBlock: roundUp(channels / Math.ceil(channels / KC), 4), tapsPerBlock: 1 }
    : { channelBlock: channels, tapsPerBlock: Math.min(taps, Math.max(1, Math.floor(KC / channels))) };
