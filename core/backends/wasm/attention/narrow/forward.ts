/**
 * Attention for heads of four numbers, keys in lanes: S of a block of rows to scratch, eight keys at a time in registers; then
 * each row, P = 2^(S − bound), its sum, and o = P·v with the lanes added at the end. The bound is |q|·max |k|, and only where
 * that is large the row's maximum.
 */

import type { AttentionAttrs } from '../../../../fused/attention.ts';
import { type Assembler, call, type Func, f32x4, i32, v128 } from '../../assembler/assemble.ts';
import { exp2ShortF32x4, logF32x4, multiplyAdd } from '../../assembler/vectorMath.ts';
import { kernel, plus, type WasmKernel, words } from '../../kernel.ts';
import { alongRow, combineAll, maxRow, ZERO } from '../../loops/rows.ts';
import { f32Bits } from '../../machine/machine.ts';
import { attentionShape, blockRows, checkScratch, SMALL, scoreStride } from '../blocks.ts';
import {
  addLanes,
  addTimesPanel,
  eachPanel,
  firstLanes,
  GROUP,
  HEAD,
  inLine,
  loadPanel,
  PAIR_BYTES,
  PANEL_BYTES,
  pairOf,
  repeat,
  storeLine,
  viaMemory,
  zeroSums,
} from './lanes.ts';
import { headBytes, packNarrow } from './panels.ts';

/** a row as it is worked on: q·scale·log₂e [4], what is added to its scores, and whether their maximum is still to be taken */
const ROW_BYTES = 32;
const START = 16;
const OPEN = 20;
/** scores in base 2 that cannot be further apart than twice this need no maximum: 2^(s − bound) keeps all digits */
const NEAR = 40;

/** (rows, count, kt, s, stride, bias): s[row, 8] = bias[8] + q[row]·kt, as the derivatives compute it, + start */
const scoreStrip = (m: Assembler): Func =>
  m.func('', ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'], 'void', (f, row, count, kt, s, stride, bias) => {
    const keys = loadPanel(f, kt);
    const seen = pairOf(f, (i) => v128.load(bias, 16 * i));
    repeat(
      f,
      count,
      [
        [row, ROW_BYTES],
        [s, stride],
      ],
      () => {
        const start = f.let(v128.load32_splat(row, START));
        const sums = pairOf(f, () => ZERO);
        for (let c = 0; c < HEAD; c++) {
          const x = f.let(v128.load32_splat(row, 4 * c));
          for (const i of [0, 1] as const) f.set(sums[i], multiplyAdd(x, keys[c]![i], c === 0 ? seen[i] : sums[i]));
        }
        for (const i of [0, 1] as const) f.emit(v128.store(s, f32x4.add(sums[i], start), 16 * i));
      },
    );
  });

/** (row, s, groups, vt, o, sum, room): o = P·v of a row of scores, the sum of P to its address */
const rowStrip = (m: Assembler): Func =>
  m.func('', ['i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32'], 'void', (f, row, s, groups, vt, o, sum, room) => {
    f.if(i32.load(row, OPEN), () => {
      // where all scores are −∞, so is the logarithm of their sum
      const top = f.let(f32x4.pmax(maxRow(f, m, i32.shl(groups, 3), s), -3e38));
      const at = f.let(s);
      eachPanel(f, groups, [], [at], () => {
        const lower = pairOf(f, (i) => f32x4.sub(inLine(at, i), top));
        storeLine(f, at, lower);
      });
      f.emit(v128.store32_lane(row, f32x4.neg(top), 0, START));
    });
    const total = pairOf(f, () => ZERO);
    const at = f.let(s);
    eachPanel(f, groups, [], [at], () => {
      const p = pairOf(f, (i) => exp2ShortF32x4(f, inLine(at, i)));
      for (const i of [0, 1] as const) f.set(total[i], f32x4.add(total[i], p[i]));
      storeLine(f, at, p);
    });
    const sums = zeroSums(f);
    eachPanel(f, groups, [vt], [s], () => {
      const p = pairOf(f, (i) => inLine(s, i));
      addTimesPanel(f, sums, p, vt);
    });
    const product = addLanes(f, sums, room);
    const all = combineAll(f, viaMemory(f, [total], room)[0]!, f32x4.add);
    f.emit(v128.store(o, f32x4.div(product, all)), v128.store32_lane(sum, all, 0));
  });

const narrowWords = words(['q o lse kt vt m n heads blocks rows scale rowBytes scoreStride headBytes']);

const narrowForward = kernel('attention of 4', narrowWords, ({ f, m, start, end, scratch, locals, splat }) => {
  const [scores, row] = [scoreStrip(m), rowStrip(m)];
  const word = locals();
  const { n, rowBytes, scoreStride: stride } = word;
  const scale = f.let(splat('scale'));
  // scratch: what the scores of a panel begin with, whole and last; room, sums, rows, scores
  const last = f.let(i32.add(scratch, 32));
  const room = f.let(i32.add(scratch, 64));
  const sums = f.let(i32.add(room, HEAD * PAIR_BYTES));
  const table = f.let(i32.add(sums, i32.and(i32.add(i32.shl(word.rows, 2), 15), -16)));
  const s = f.let(i32.and(i32.add(i32.add(table, i32.mul(word.rows, ROW_BYTES)), 63), -64));
  const seen = firstLanes(f, i32.and(n, 7));
  for (const i of [0, 1] as const) {
    f.emit(v128.store(scratch, ZERO, 16 * i));
    f.emit(v128.store(last, v128.andnot(f32x4.const(-Infinity, -Infinity, -Infinity, -Infinity), seen[i]), 16 * i));
  }
  const groups = f.let(i32.shr_u(i32.add(n, 7), 3));
  const panelBytes = f.let(i32.mul(groups, PANEL_BYTES));
  const [u, column] = f.locals('i32');
  f.for(u, start, end, 1, () => {
    const head = f.let(i32.div_u(u, word.blocks));
    const first = f.let(i32.mul(i32.rem_u(u, word.blocks), word.rows));
    const rows = f.let(i32.sub(word.m, first));
    f.if(i32.gt_u(rows, word.rows), () => f.set(rows, word.rows));
    const batchRow = i32.add(i32.mul(i32.div_u(head, word.heads), word.m), first);
    const offset = f.let(i32.add(i32.mul(batchRow, rowBytes), i32.shl(i32.rem_u(head, word.heads), 4)));
    const panels = f.let(i32.mul(head, word.headBytes));
    const longest = f.let(v128.load(i32.add(i32.add(word.kt, panels), panelBytes)));
    const [from, to] = [f.let(i32.add(word.q, offset)), f.let(table)];
    repeat(
      f,
      rows,
      [
        [from, rowBytes],
        [to, ROW_BYTES],
      ],
      () => {
        const q = f.let(f32x4.mul(v128.load(from), scale));
        const bound = f.let(f32x4.sqrt(f32x4.mul(combineAll(f, [f.let(f32x4.mul(q, q))], f32x4.add), longest)));
        const near = f.let(f32x4.le(bound, NEAR));
        f.emit(v128.store(to, q), v128.store32_lane(to, v128.and(f32x4.neg(bound), near), 0, START));
        f.emit(v128.store32_lane(to, v128.not(near), 0, OPEN));
      },
    );

    const [kt, out, bias] = [f.let(i32.add(word.kt, panels)), f.let(s), f.let(scratch)];
    f.for(column, 0, n, GROUP, () => {
      f.if(i32.gt_u(i32.add(column, GROUP), n), () => f.set(bias, last));
      f.emit(call(scores, [table, rows, kt, out, stride, bias]));
      f.inc(kt, PANEL_BYTES);
      f.inc(out, GROUP * 4);
    });

    const [o, line, vt] = [f.let(i32.add(word.o, offset)), f.let(s), f.let(i32.add(word.vt, panels))];
    const sum = f.let(sums);
    f.set(to, table);
    repeat(
      f,
      rows,
      [
        [o, rowBytes],
        [line, stride],
        [to, ROW_BYTES],
        [sum, 4],
      ],
      () => f.emit(call(row, [to, line, groups, vt, o, sum, room])),
    );

    // lse = ln Σ P − ln 2·start, of four rows at once
    const lse = f.let(i32.add(word.lse, i32.shl(i32.add(i32.mul(head, word.m), first), 2)));
    f.set(sum, sums);
    f.set(to, table);
    const starts = f.local('v128');
    alongRow(f, m, 1, rows, [sum, lse], (v) => {
      for (let r = 0; r < 4; r++) f.set(starts, v128.load32_lane(to, starts, r, START + r * ROW_BYTES));
      f.inc(to, 4 * ROW_BYTES);
      const all = f.let(logF32x4(f, v.load(sum)));
      f.emit(v.store(lse, f32x4.sub(all, f32x4.mul(starts, Math.LN2))));
    });
  });
});

/** rows of a block at most, and bytes of scores it may have */
const MOST_ROWS = 48;
const SCORE_BYTES = 48 * 1024;

/** the plan of `attention` for heads of four numbers */
export const narrowPlan: WasmKernel<AttentionAttrs>['plan'] = ({ machine, inputs, outputs, attrs, workspace }) => {
  const [q, k, v] = inputs;
  const [o, lse] = outputs;
  const shape = attentionShape(q!.view.shape, k!.view.shape, attrs.heads);
  const { batch, heads, m, n } = shape;
  const pairs = batch * heads;
  const bytes = headBytes(shape);
  const values = plus(workspace, pairs * bytes);
  const rows = blockRows(m, Math.min(MOST_ROWS, SCORE_BYTES / scoreStride(n)), 1);
  checkScratch(machine, n, 64 + HEAD * PAIR_BYTES + rows * (4 + ROW_BYTES + scoreStride(n)) + 80);
  const blocks = Math.ceil(m / rows);
  return {
    bytes: 2 * pairs * bytes,
    commands: [
      packNarrow(shape, k!.at, workspace),
      packNarrow(shape, v!.at, values),
      narrowForward.command(
        {
          q: q!.at,
          o: o!.at,
          lse: lse!.at,
          kt: workspace,
          vt: values,
          m,
          n,
          heads,
          blocks,
          rows,
          scale: f32Bits(attrs.scale * Math.LOG2E),
          rowBytes: heads * HEAD * 4,
          scoreStride: scoreStride(n),
          headBytes: bytes,
        },
        pairs * blocks,
        pairs * m * n * HEAD < SMALL,
      ),
    ],
  };
};
