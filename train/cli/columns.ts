/** Plain text for the terminal: aligned columns, numbers with commas, small bars. */
import type { Io } from './command.ts';
import { print } from './command.ts';

/** `859520964` → `859,520,964`. */
export const commas = (n: number): string => String(n).replace(/\B(?=(\d{3})+(?!\d))/g, ',');

const lengthOf = (text: string): number => [...text].length;

/**
 * Rows as lines with aligned columns, two blanks between them. Columns in `right` are flushed right.
 * @example table([['a', '1'], ['bb', '10']], [1]) // ['a    1', 'bb  10']
 */
export function table(rows: readonly (readonly string[])[], right: readonly number[] = []): readonly string[] {
  const widths: number[] = [];
  for (const row of rows) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, lengthOf(cell));
  const pad = (cell: string, i: number) => {
    const blanks = ' '.repeat(widths[i] - lengthOf(cell));
    return right.includes(i) ? blanks + cell : cell + blanks;
  };
  return rows.map((row) => row.map(pad).join('  ').trimEnd());
}

/** A heading with facts below it, labels aligned. Facts without a value are left out. */
export function printFacts(io: Io, heading: string, facts: readonly (readonly [string, string | undefined])[]): void {
  print(io, heading);
  const rows = facts.flatMap(([label, value]) => (value === undefined ? [] : [[`  ${label}`, value]]));
  for (const line of table(rows)) print(io, line);
}

const BARS = '▁▂▃▄▅▆▇█';

/** A row of small bars, one per value, 0 at the bottom: `▁▃█`. */
export function bars(values: readonly number[]): string {
  const most = Math.max(...values, 0);
  return values.map((v) => (v <= 0 ? ' ' : BARS[Math.min(7, Math.floor((v / most) * 8))])).join('');
}

/** Sums of values in `columns` equal parts of [0, end). */
export function histogram(
  points: readonly (readonly [at: number, value: number])[],
  end: number,
  columns: number,
): readonly number[] {
  const out = new Array<number>(columns).fill(0);
  for (const [at, value] of points) out[Math.min(columns - 1, Math.floor((at / end) * columns))] += value;
  return out;
}
