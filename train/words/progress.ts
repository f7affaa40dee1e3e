/**
 * The trainer's one progress line, and rank maps in plain characters.
 *
 * On a terminal the line is redrawn in place; elsewhere (a log file, CI) a plain line is written now and then.
 */

import { printable } from '../../models/io/error.ts';
import { type Grid, layout } from '../report/charts/modules.ts';
import { bytes, number } from './format.ts';

/** Where a run stands. */
export interface Progress {
  readonly step: number;
  readonly steps: number;
  readonly loss?: number;
  readonly stepsPerSecond?: number;
  readonly totalRank?: number;
  readonly memory?: number;
}

/** What is written to: `process.stderr`, or anything of its form in tests. */
export type TerminalStream = NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };

/** `1:02:03`, `4:05`, `0:09`. */
export function clock(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return '–:––';
  const s = Math.round(seconds);
  const two = (n: number): string => String(n).padStart(2, '0');
  const [h, m] = [Math.floor(s / 3600), Math.floor((s % 3600) / 60)];
  return h > 0 ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
}

/**
 * The line's fields: step, loss, steps/s, total rank, memory, time left. Fields without a value are left out; from
 * the right, fields that do not fit into `width` columns too.
 * @example progressLine({ step: 120, steps: 1200, loss: 0.213, stepsPerSecond: 4.2, totalRank: 310, memory: 2.2e8 })
 * // 'step  120/1200  loss 0.213  4.2 steps/s  rank 310  210 MiB  4:17 left'
 */
export function progressLine(p: Progress, width = 120): string {
  const left = p.stepsPerSecond && p.stepsPerSecond > 0 ? (p.steps - p.step) / p.stepsPerSecond : Number.NaN;
  const fields = [
    `step ${String(p.step).padStart(String(p.steps).length)}/${p.steps}`,
    p.loss !== undefined && `loss ${Number.isNaN(p.loss) ? 'NaN' : number(p.loss)}`,
    p.stepsPerSecond !== undefined && `${number(p.stepsPerSecond, 2)} steps/s`,
    p.totalRank !== undefined && `rank ${p.totalRank}`,
    p.memory !== undefined && bytes(p.memory),
    p.stepsPerSecond !== undefined && `${clock(left)} left`,
  ].filter((f) => f !== false);
  return fields.reduce((line, field) => (line.length + 2 + field.length <= width ? `${line}  ${field}` : line));
}

/** A running progress display; the object lives as long as the loop it shows. */
export interface ProgressDisplay {
  /** Shows where the run stands. */
  update(progress: Progress): void;
  /** Writes a line of its own above the progress line; control bytes in it are made visible. */
  log(text: string): void;
  /** Leaves the last state on the screen and gives the terminal back. */
  stop(): void;
}

/** ANSI "erase in line": what an older, longer text left behind. */
const clearToEnd = '\x1b[K';

/** On a terminal the line is redrawn at most once per this many milliseconds. */
const liveMs = 200;

/** Without a terminal: a line at the first and last step and at most one per this many milliseconds. */
const sparseMs = 15_000;

/**
 * Starts the display on `stream`. Installs no signal handler, hides no cursor and keeps no timer, so the trainer's
 * own Ctrl-C handling and the end of the process are not disturbed.
 * @example const show = startProgress(process.stderr, 1200); show.update({ step: 1, steps: 1200, loss: 0.4 });
 */
export function startProgress(stream: TerminalStream, steps: number, now = () => performance.now()): ProgressDisplay {
  return stream.isTTY ? liveDisplay(stream, steps, now) : plainDisplay(stream, now);
}

function liveDisplay(stream: TerminalStream, steps: number, now: () => number): ProgressDisplay {
  let state: Progress = { step: 0, steps };
  let drawn = Number.NEGATIVE_INFINITY;
  const draw = (): void => {
    // One column is left free: a full last column makes some terminals wrap.
    stream.write(`\r${progressLine(state, (stream.columns ?? 80) - 1)}${clearToEnd}`);
    drawn = now();
  };
  return {
    update: (progress) => {
      state = progress;
      if (now() - drawn >= liveMs) draw();
    },
    log: (text) => {
      stream.write(`\r${printable(text, Number.POSITIVE_INFINITY)}${clearToEnd}\n`);
      draw();
    },
    stop: () => {
      draw();
      stream.write('\n');
    },
  };
}

function plainDisplay(stream: TerminalStream, now: () => number): ProgressDisplay {
  let shown = Number.NEGATIVE_INFINITY;
  let pending: Progress | undefined;
  const write = (progress: Progress): void => {
    stream.write(`${progressLine(progress)}\n`);
    shown = now();
    pending = undefined;
  };
  return {
    update: (progress) => {
      if (now() - shown >= sparseMs || progress.step >= progress.steps) write(progress);
      else pending = progress;
    },
    log: (text) => void stream.write(`${printable(text, Number.POSITIVE_INFINITY)}\n`),
    stop: () => {
      if (pending !== undefined) write(pending);
    },
  };
}

/**
 * Rank maps in plain characters, one block of lines per network, cut into parts where `width` columns do not hold
 * them. Modules without a place are listed below.
 * @example process.stdout.write(`${textRankMaps(ranks, process.stdout.columns ?? 80)}\n`)
 */
export function textRankMaps(ranks: ReadonlyMap<string, number>, width = 80): string {
  const placed = layout(ranks);
  const blocks = [
    placed.unet && textMap('U-Net', placed.unet, width),
    placed.text && textMap('text encoder', placed.text, width),
    placed.other.length > 0 && otherLines(placed.other),
  ];
  return blocks.filter((b) => b !== undefined && b !== false).join('\n\n');
}

function textMap(name: string, grid: Grid<number>, width: number): string {
  const values = new Map(grid.cells.map((c) => [`${c.row}/${c.column}`, String(c.value)]));
  const label = grid.rows.reduce((w, r) => Math.max(w, r.length), 0);
  const column = [...grid.columns, ...values.values()].reduce((w, c) => Math.max(w, c.length), 0) + 1;
  const perPart = Math.max(1, Math.floor((width - label) / column));
  const total = grid.cells.reduce((sum, c) => sum + c.value, 0);
  const head = `${name}: ${grid.cells.length} modules, total rank ${total}, mean ${(total / grid.cells.length).toFixed(2)}`;
  const parts = Array.from({ length: Math.ceil(grid.columns.length / perPart) }, (_, i) => {
    const columns = grid.columns.slice(i * perPart, (i + 1) * perPart);
    const line = (first: string, cell: (c: string) => string): string =>
      `${first.padEnd(label)}${columns.map((c) => cell(c).padStart(column)).join('')}`.trimEnd();
    return [line('', (c) => c), ...grid.rows.map((r) => line(r, (c) => values.get(`${r}/${c}`) ?? '·'))].join('\n');
  });
  return [head, ...parts].join('\n');
}

function otherLines(other: ReadonlyArray<{ readonly path: string; readonly value: number }>): string {
  const shown = other.slice(0, 40).map((m) => `  ${printable(m.path)}: ${m.value}`);
  const more = other.length > 40 ? [`  and ${other.length - 40} more`] : [];
  return [`other modules: ${other.length}`, ...shown, ...more].join('\n');
}
