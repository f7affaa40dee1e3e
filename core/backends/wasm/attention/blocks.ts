/** What the forward and the backward kernel of attention share: shapes, blocks of rows, rows of one head side by side. */
import { type Assembler, type Expr, type FunctionBuilder, i32, type Local } from '../assembler/assemble.ts';
import { alongRow } from '../loops/rows.ts';
import type { Machine } from '../machine/machine.ts';
import { type HeadShape, panelSize } from './panels.ts';
import { padded, type Tile } from './tiles.ts';

type I32 = Local<'i32'>;

/** floats between rows of scores beyond their length, so that rows do not fall on one cache set */
const GAP = 16;

/** Rows of a block: as equal as whole tiles allow. */
export const blockRows = (m: number, mostRows: number, tileRows: number): number => {
  const most = Math.max(tileRows, Math.floor(mostRows / tileRows) * tileRows);
  const blocks = Math.ceil(m / most);
  return Math.ceil(m / blocks / tileRows) * tileRows;
};
/** bytes from row to row of the scores */
export const scoreStride = (n: number): number => (padded(n) + GAP) * 4;

/**
 * Copies `rows` rows of x (rowBytes apart) side by side to y. What follows up to a whole tile may hold anything: nobody
 * reads its results.
 */
export const packRows = (
  f: FunctionBuilder,
  m: Assembler,
  x: Expr<'i32'>,
  rowBytes: Expr<'i32'>,
  rows: Expr<'i32'>,
  d: I32,
  y: Expr<'i32'>,
): void => {
  const [from, to] = [f.let(x), f.let(y)];
  const left = f.let(rows);
  f.while(left, () => {
    const [p, q] = [f.let(from), f.let(to)];
    alongRow(f, m, 1, d, [p, q], (v) => f.emit(v.store(q, v.load(p))));
    f.inc(from, rowBytes);
    f.inc(to, i32.shl(d, 2));
    f.inc(left, -1);
  });
};

/** the name of a kernel says all its code depends on */
export const attentionName = (name: string, tile: Tile, causal: boolean): string =>
  `${name} ${tile}x8${causal ? ' causal' : ''}`;
/** shapes of an attention call from its operands q[b,m,c] and k[b,n,c] */
export const attentionShape = (
  q: readonly number[],
  k: readonly number[],
  heads: number,
): HeadShape & { m: number } => {
  const [batch, m, c] = q as [number, number, number];
  return { batch, heads, m, n: k[1]!, d: c / heads };
};
/** bytes of one head's panels */
export const panelBytes = (shape: HeadShape, transposed: boolean): number => panelSize(shape, transposed) * 4;
/** @throws RangeError when a block of rows does not fit the scratch memory of a thread */
export const checkScratch = ({ scratchBytes }: Machine, n: number, bytes: number): void => {
  if (bytes > scratchBytes)
    throw new RangeError(`attention over ${n} keys needs ${bytes} bytes of scratch, a thread has ${scratchBytes}`);
};
/** below this many multiplications a call stays on the main thread */
export const SMALL = 100_000;
