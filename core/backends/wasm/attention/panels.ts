/** Panels of k and v for attention, made once per head: [b, n, h·d] → workspace. */
import {
  type Assembler,
  type Expr,
  type FunctionBuilder,
  f32x4,
  i32,
  type Local,
  v128,
} from '../assembler/assemble.ts';
import { type KernelCommand, kernel, type Word, words } from '../kernel.ts';
import { loadTail } from '../loops/tails.ts';
import { cutUnits, readAll, unitNames, walkNames, walkUnits, walkWords } from '../loops/walk.ts';
import { COLUMNS, PANEL, padded } from './tiles.ts';

type I32 = Local<'i32'>;
const POINTERS = ['x', 'y'] as const;
const packWords = words([...unitNames, ...POINTERS, 'n', 'd', 'rowBytes', ...walkNames('w', 2, POINTERS)]);

/** 8 numbers from `from`, of which `count` > 0 are there; the others are 0 */
export const copyEight = (f: FunctionBuilder, m: Assembler, to: I32, from: I32, count: Expr<'i32'>): void => {
  const left = f.let(count);
  f.if(
    i32.ge_u(left, 8),
    () => f.emit(v128.store(to, v128.load(from)), v128.store(to, v128.load(from, 16), 16)),
    () => {
      const zero = f32x4.const(0, 0, 0, 0);
      f.if(
        i32.ge_u(left, 4),
        () => {
          f.emit(v128.store(to, v128.load(from)), v128.store(to, zero, 16));
          f.inc(left, -4);
          f.if(left, () => f.emit(v128.store(to, loadTail(m, i32.add(from, 16), left), 16)));
        },
        () => f.emit(v128.store(to, loadTail(m, from, left)), v128.store(to, zero, 16)),
      );
    },
  );
};

/**
 * Rows of 8 neighbouring numbers: x[rows, width] → [⌈width/8⌉][rows][8], 0 beyond the width. `panelBytes` is the distance of
 * the panels.
 */
export const packPanels = (
  f: FunctionBuilder,
  m: Assembler,
  x: Expr<'i32'>,
  rowBytes: Expr<'i32'>,
  rows: Expr<'i32'>,
  width: Expr<'i32'>,
  y: Expr<'i32'>,
  panelBytes: Expr<'i32'>,
): void => {
  const [column, i] = f.locals('i32');
  const panel = f.let(y);
  f.for(column, 0, width, COLUMNS, () => {
    const from = f.let(i32.add(x, i32.shl(column, 2)));
    const to = f.let(panel);
    f.for(i, 0, rows, 1, () => {
      copyEight(f, m, to, from, i32.sub(width, column));
      f.inc(from, rowBytes);
      f.inc(to, COLUMNS * 4);
    });
    f.inc(panel, panelBytes);
  });
};

/** columns of 8 neighbouring rows: x[n, d] → [⌈n/8⌉][d][8], 0 beyond n */
const packTransposed = (
  f: FunctionBuilder,
  x: I32,
  rowBytes: Expr<'i32'>,
  n: Expr<'i32'>,
  d: Expr<'i32'>,
  y: I32,
): void => {
  const [row, k] = f.locals('i32');
  const to = f.let(y);
  const at = Array.from({ length: PANEL }, () => f.local('i32'));
  f.for(row, 0, n, PANEL, () => {
    f.set(at[0]!, i32.add(x, i32.mul(row, rowBytes)));
    for (let r = 1; r < PANEL; r++) f.set(at[r]!, i32.add(at[r - 1]!, rowBytes));
    f.for(k, 0, d, 1, () => {
      for (const half of [0, 4]) {
        const value = f.let(f32x4.const(0, 0, 0, 0));
        for (let r = half; r < half + 4; r++) {
          const load = (): void => f.set(value, v128.load32_lane(at[r]!, value, r - half));
          f.if(i32.lt_u(i32.add(row, r), n), load);
        }
        f.emit(v128.store(to, value, half * 4));
      }
      for (const p of at) f.inc(p, 4);
      f.inc(to, PANEL * 4);
    });
  });
};

const packKernel = (transposed: boolean) =>
  kernel(transposed ? 'attention pack transposed' : 'attention pack', packWords, (code) => {
    const { f, m } = code;
    const { x, y, n, d, rowBytes } = readAll(code, ['x', 'y', 'n', 'd', 'rowBytes']);
    walkUnits(code, 'w', 2, { x, y }, () => {
      if (transposed) packTransposed(f, x, rowBytes, n, d, y);
      else packPanels(f, m, x, rowBytes, n, d, y, i32.mul(n, COLUMNS * 4));
    });
  });

/** shape of one side of attention */
export interface HeadShape {
  readonly batch: number;
  readonly heads: number;
  /** rows of k and v */
  readonly n: number;
  /** numbers in a row of one head */
  readonly d: number;
}
/** numbers in the panels of one head */
export const panelSize = ({ n, d }: HeadShape, transposed: boolean): number =>
  transposed ? padded(n) * d : n * padded(d);

/** Command that packs all heads of x[b, n, h·d] one after the other. Cost: one read, one write. */
export const packHeads = (shape: HeadShape, x: Word, y: Word, transposed: boolean): KernelCommand => {
  const { batch, heads, n, d } = shape;
  const rowBytes = heads * d * 4;
  const bytes = panelSize(shape, transposed) * 4;
  const axes = [
    { size: batch, strides: { x: n * rowBytes, y: heads * bytes } },
    { size: heads, strides: { x: d * 4, y: bytes } },
  ];
  const { grid, ...unit } = cutUnits(batch * heads, (transposed ? 2 : 0.5) * n * d);
  const values = { ...unit, x, y, n, d, rowBytes, ...walkWords('w', axes, POINTERS) };
  return packKernel(transposed).command(values, grid);
};
