/**
 * Products over few k: C[m, n] = A[m, k]·B[k, n] with k ≤ 6, the second half of low-rank adapters (x·A)·B and their
 * derivatives. A register tile would be called for a handful of steps; here a panel of B stays in registers and the rows of
 * A run past it. Every sum has the order, and so the bits, that the tile gives it.
 */
import { type Expr, f32x4, i32, v128 } from '../assembler/assemble.ts';
import { type KernelCommand, kernel, words } from '../kernel.ts';
import { digit } from '../loops/digits.ts';
import { type GatherStrides, gather } from '../loops/tails.ts';
import type { GemmDescription } from './description.ts';
import { SERIAL_WORK } from './units.ts';

/** vectors of a panel of B; fewer would read A more often for each number of C than it pays */
const VECTORS = 2;
const WIDTH = VECTORS * 4;
/** k·VECTORS registers of 16 hold a panel; the others a row's sums, a number of A, zero */
const MOST_K = 6;
/** numbers of C in a unit: with its rows of A they stay in the first-level cache from panel to panel */
const UNIT = 4096;

const shallowWords = words(['a aRow aGroup b bK bColumn bGroup c cRow cGroup m n rowsPerUnit rowBlocks']);

const shallowKernel = (k: number, fma: boolean) =>
  kernel(`shallow${k}x${WIDTH}${fma ? 'f' : ''}`, shallowWords, ({ f, start, end, locals }) => {
    const w = locals();
    const [u, column, row] = f.locals('i32');
    const zero = f.local('v128');
    const b = Array.from({ length: k }, () => Array.from({ length: VECTORS }, () => f.local('v128')));
    const sums = Array.from({ length: VECTORS }, () => f.local('v128'));
    const x = f.local('v128');
    const step = w.bColumn;
    const times = (n: number) => f.let(i32.mul(step, n));
    const steps: GatherStrides = [step, times(2), times(3), times(4)];
    const add = (y: Expr<'v128'>, sum: Expr<'v128'>): Expr<'v128'> =>
      fma ? f32x4.relaxed_madd(x, y, sum) : f32x4.add(sum, f32x4.mul(x, y));
    f.for(u, start, end, 1, () => {
      const group = f.let(u);
      const first = f.let(i32.mul(digit(f, group, w.rowBlocks), w.rowsPerUnit));
      const rows = f.let(i32.sub(w.m, first));
      f.if(i32.gt_u(rows, w.rowsPerUnit), () => f.set(rows, w.rowsPerUnit));
      const a = f.let(i32.add(i32.add(w.a, i32.mul(group, w.aGroup)), i32.mul(first, w.aRow)));
      const panels = f.let(i32.add(w.b, i32.mul(group, w.bGroup)));
      const c = f.let(i32.add(i32.add(w.c, i32.mul(group, w.cGroup)), i32.mul(first, w.cRow)));
      f.for(column, 0, w.n, WIDTH, () => {
        // the last panel ends with the columns: some are computed twice
        const left = f.let(i32.sub(w.n, WIDTH));
        f.if(i32.lt_u(column, left), () => f.set(left, column));
        const at = f.let(i32.add(panels, i32.mul(left, w.bColumn)));
        for (const line of b) {
          const from = f.let(at);
          for (const part of line) {
            f.set(part, gather(from, steps));
            f.inc(from, steps[3]);
          }
          f.set(at, i32.add(at, w.bK));
        }
        const from = f.let(a);
        const to = f.let(i32.add(c, i32.shl(left, 2)));
        f.for(row, 0, rows, 1, () => {
          for (const [l, line] of b.entries()) {
            f.set(x, v128.load32_splat(from, l * 4));
            for (const [v, y] of line.entries()) f.set(sums[v]!, add(y, l === 0 ? zero : sums[v]!));
          }
          for (const [v, sum] of sums.entries()) f.emit(v128.store(to, sum, v * 16));
          f.set(from, i32.add(from, w.aRow));
          f.set(to, i32.add(to, w.cRow));
        });
      });
    });
  });

/** The command of a product that is one: few k side by side in A, and a panel's columns at least; else undefined. */
export function shallow(d: GemmDescription, fma: boolean): KernelCommand | undefined {
  const { m, n, k, groups = 1, a, b, c, fromB, packedB } = d;
  if (k === 0 || k > MOST_K || a.column !== 1 || n < WIDTH || packedB !== undefined) return undefined;
  if (fromB && fromB.type !== 'f32') return undefined;
  const rowsPerUnit = Math.min(m, Math.ceil(UNIT / n));
  const rowBlocks = Math.ceil(m / rowsPerUnit);
  const values = {
    a: a.address,
    aRow: a.row * 4,
    aGroup: (a.group ?? 0) * 4,
    b: b.address,
    bK: b.row * 4,
    bColumn: b.column * 4,
    bGroup: (b.group ?? 0) * 4,
    c: c.address,
    cRow: c.row * 4,
    cGroup: (c.group ?? 0) * 4,
    m,
    n,
    rowsPerUnit,
    rowBlocks,
  };
  return shallowKernel(k, fma).command(values, groups * rowBlocks, groups * m * n * k < SERIAL_WORK);
}
