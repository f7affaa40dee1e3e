/** Heads of four numbers between rows, as memory has them, and panels [⌈n/8⌉][4][8] with keys in lanes. */
import { type Expr, type FunctionBuilder, f32x4, i32, type Local, v128 } from '../../assembler/assemble.ts';
import { multiplyAdd } from '../../assembler/vectorMath.ts';
import { type KernelCommand, kernel, type Word, words } from '../../kernel.ts';
import { combineAll, ZERO } from '../../loops/rows.ts';
import type { HeadShape } from '../panels.ts';
import { GROUP, HEAD, inPanel, PANEL_BYTES } from './lanes.ts';

type I32 = Local<'i32'>;
type Vector = Local<'v128'>;

/** four vectors as the columns of the other four */
const transpose = (f: FunctionBuilder, [a, b, c, d]: readonly Vector[]): readonly Vector[] =>
  (
    [
      [0, 4, 1, 5],
      [2, 6, 3, 7],
    ] as const
  ).flatMap((lanes) => {
    const [ab, cd] = [f.let(v128.shuffle32(a!, b!, lanes)), f.let(v128.shuffle32(c!, d!, lanes))];
    return [f.let(v128.shuffle32(ab, cd, [0, 1, 4, 5])), f.let(v128.shuffle32(ab, cd, [2, 3, 6, 7]))];
  });
const four = [0, 1, 2, 3] as const;

/** bytes of one head: its panels, and the largest length of a key, squared, in every lane */
export const headBytes = ({ n }: HeadShape): number => Math.ceil(n / GROUP) * PANEL_BYTES + 16;

const packWords = words(['x y n heads rowBytes headBytes']);
const pack = kernel('attention pack of 4', packWords, ({ f, start, end, locals }) => {
  const { x, y, n, heads, rowBytes, headBytes: bytes } = locals();
  const u = f.local('i32');
  f.for(u, start, end, 1, () => {
    const row = i32.mul(i32.mul(i32.div_u(u, heads), n), rowBytes);
    const from = f.let(i32.add(x, i32.add(row, i32.shl(i32.rem_u(u, heads), 4))));
    const to = f.let(i32.add(y, i32.mul(u, bytes)));
    const left = f.let(n);
    const longest = f.let(ZERO);
    const panel = (whole: boolean): void => {
      for (const i of [0, 1]) {
        const rows = four.map(() => {
          const value = f.let(whole ? v128.load(from) : ZERO);
          if (!whole) f.if(i32.gt_s(left, 0), () => f.set(value, v128.load(from)));
          f.inc(from, rowBytes);
          if (!whole) f.inc(left, -1);
          return value;
        });
        const length = f.let(ZERO);
        for (const [c, column] of transpose(f, rows).entries()) {
          f.emit(v128.store(to, column, GROUP * 4 * c + 16 * i));
          f.set(length, multiplyAdd(column, column, length));
        }
        f.set(longest, f32x4.max(longest, length));
      }
      f.inc(to, PANEL_BYTES);
    };
    f.while(i32.ge_u(left, GROUP), () => {
      panel(true);
      f.inc(left, -GROUP);
    });
    f.if(left, () => panel(false));
    f.emit(v128.store(to, combineAll(f, [longest], f32x4.max)));
  });
});
/** Command that packs all heads of x[b, n, h·4] one after the other. Cost: one read, one write. */
export const packNarrow = (shape: HeadShape, x: Word, y: Word): KernelCommand => {
  const { batch, heads, n } = shape;
  const values = { x, y, n, heads, rowBytes: heads * HEAD * 4, headBytes: headBytes(shape) };
  return pack.command(values, batch * heads, batch * heads * n < 4096);
};

/** panels → rows times `factor`, `rowBytes` apart */
export const unpackNarrow = (
  f: FunctionBuilder,
  panels: Expr<'i32'>,
  n: I32,
  factor: Expr<'v128'>,
  out: Expr<'i32'>,
  rowBytes: I32,
): void => {
  const [panel, to, left] = [f.let(panels), f.let(out), f.let(n)];
  f.while(i32.gt_s(left, 0), () => {
    for (const i of [0, 1]) {
      for (const row of transpose(
        f,
        four.map((c) => f.let(f32x4.mul(inPanel(panel, c, i), factor))),
      )) {
        f.if(i32.gt_s(left, 0), () => f.emit(v128.store(to, row)));
        f.inc(to, rowBytes);
        f.inc(left, -1);
      }
    }
    f.inc(panel, PANEL_BYTES);
  });
};
