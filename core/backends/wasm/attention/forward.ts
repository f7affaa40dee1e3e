/**
 * Attention without a matrix of scores in main memory (Dao et al. 2022): a unit is a block of rows of one head, whose
 * scores lie in the thread's scratch memory and stay in L2.
 *   pack kᵀ and v → S = scale·log₂e·q·kᵀ → row maximum, P = 2^(S − max), sum → o = P·v / sum,
 *   lse = ln 2·max + ln sum
 */
import type { AttentionAttrs } from '../../../fused/attention.ts';
import { call, f32, f32x4, i32, memoryFill, v128 } from '../assembler/assemble.ts';
import { kernel, plus, type WasmKernel, words } from '../kernel.ts';
import { alongRow } from '../loops/rows.ts';
import { f32Bits } from '../machine/machine.ts';
import {
  attentionName,
  attentionShape,
  blockRows,
  checkScratch,
  packRows,
  panelBytes,
  SMALL,
  scoreStride,
} from './blocks.ts';
import { narrowPlan } from './narrow/forward.ts';
import { HEAD } from './narrow/lanes.ts';
import { packHeads } from './panels.ts';
import { softmaxRow } from './rows.ts';
import { COLUMNS, one, PANEL, padded, strips, type Tile, tileOf, tilesIn } from './tiles.ts';

/** rows of a block at most, and bytes of scores it may have: the share of one thread in a cache */
const MOST_ROWS = 48;
const SCORE_BYTES = 48 * 1024;
const forwardWords = words(['q o lse kt v m n d heads blocks rows scale rowBytes scoreStride ktBytes vBytes']);

const forwardKernel = (tile: Tile, causal: boolean) =>
  kernel(attentionName('attention', tile, causal), forwardWords, ({ f, m, args, start, end, scratch, locals }) => {
    const strip = strips(m, tile);
    const word = locals();
    const { d, n, rowBytes, scoreStride: stride } = word;
    const scale = f.let(f32.load(args, forwardWords.at('scale')));
    const wide = f.let(i32.and(i32.add(d, COLUMNS - 1), -COLUMNS));
    // scratch: rows of q, rows of o, 1/sum of each row, scores
    const q = scratch;
    const o = f.let(i32.add(q, i32.shl(i32.mul(word.rows, wide), 2)));
    const sums = f.let(i32.add(o, i32.shl(i32.mul(word.rows, wide), 2)));
    const scores = f.let(i32.and(i32.add(i32.add(sums, i32.shl(word.rows, 2)), 63), -64));
    const [u, i, column] = f.locals('i32');
    f.for(u, start, end, 1, () => {
      const head = f.let(i32.div_u(u, word.blocks));
      const first = f.let(i32.mul(i32.rem_u(u, word.blocks), word.rows));
      const rows = f.let(i32.sub(word.m, first));
      f.if(i32.gt_u(rows, word.rows), () => f.set(rows, word.rows));
      const tiles = f.let(tilesIn(rows, tile));
      const batchRow = i32.add(i32.mul(i32.div_u(head, word.heads), word.m), first);
      const inRow = i32.mul(i32.rem_u(head, word.heads), i32.shl(d, 2));
      const offset = f.let(i32.add(i32.mul(batchRow, rowBytes), inRow));
      packRows(f, m, i32.add(word.q, offset), rowBytes, rows, d, q);

      // S = scale·log₂e·q·kᵀ for the keys any row of the block sees
      const keys = f.let(n);
      if (causal) f.if(i32.lt_u(i32.add(first, rows), n), () => f.set(keys, i32.add(first, rows)));
      const rowOf = f.let(i32.shl(d, 2));
      const panel = f.let(i32.add(word.kt, i32.mul(head, word.ktBytes)));
      const s = f.let(scores);
      f.for(column, 0, keys, PANEL, () => {
        f.emit(call(strip.scores, [q, rowOf, tiles, panel, d, s, stride, scale]));
        f.inc(panel, i32.shl(d, 5));
        f.inc(s, PANEL * 4);
      });

      // each row: P = 2^(S − max)
      const lse = f.let(i32.add(word.lse, i32.shl(i32.add(i32.mul(head, word.m), first), 2)));
      f.set(s, scores);
      f.for(i, 0, rows, 1, () => {
        const length = f.let(keys);
        if (causal)
          f.if(i32.lt_u(i32.add(first, i), i32.sub(n, 1)), () => f.set(length, i32.add(i32.add(first, i), 1)));
        softmaxRow(f, m, s, length, i32.add(sums, i32.shl(i, 2)), i32.add(lse, i32.shl(i, 2)));
        if (causal) f.emit(memoryFill(i32.add(s, i32.shl(length, 2)), 0, i32.shl(i32.sub(keys, length), 2)));
        f.inc(s, stride);
      });

      // o = P·v
      const values = f.let(i32.add(word.v, i32.mul(head, word.vBytes)));
      const out = f.let(o);
      f.emit(memoryFill(o, 0, i32.shl(i32.mul(word.rows, wide), 2)));
      f.for(column, 0, d, COLUMNS, () => {
        f.emit(call(strip.rows, [scores, stride, tiles, values, keys, out, i32.shl(wide, 2), one]));
        f.inc(values, i32.mul(n, COLUMNS * 4));
        f.inc(out, COLUMNS * 4);
      });
      const from = f.let(o);
      const to = f.let(i32.add(word.o, offset));
      f.for(i, 0, rows, 1, () => {
        const k = f.let(v128.load32_splat(i32.add(sums, i32.shl(i, 2))));
        const [x, y] = [f.let(from), f.let(to)];
        alongRow(f, m, 1, d, [x, y], (v) => f.emit(v.store(y, f32x4.mul(v.loadPadded(x), k))));
        f.inc(from, i32.shl(wide, 2));
        f.inc(to, rowBytes);
      });
    });
  });

const attention: WasmKernel<AttentionAttrs> = {
  strided: [],
  plan: (x) => {
    const {
      machine,
      inputs: [q, k, v],
      outputs: [o, lse],
      attrs,
      workspace,
    } = x;
    const shape = attentionShape(q!.view.shape, k!.view.shape, attrs.heads);
    const { batch, heads, m, n, d } = shape;
    if (d === HEAD && !attrs.causal) return narrowPlan(x);
    const tile = tileOf(machine);
    const pairs = batch * heads;
    const [ktBytes, vBytes] = [panelBytes(shape, true), panelBytes(shape, false)];
    const panels = plus(workspace, pairs * ktBytes);
    const rows = blockRows(m, Math.min(MOST_ROWS, SCORE_BYTES / scoreStride(n)), tile);
    checkScratch(machine, n, rows * (2 * padded(d) * 4 + 4 + scoreStride(n)) + 64);
    const blocks = Math.ceil(m / rows);
    const grid = pairs * blocks;
    const values = {
      q: q!.at,
      o: o!.at,
      lse: lse!.at,
      kt: workspace,
      v: panels,
      m,
      n,
      d,
      heads,
      blocks,
      rows,
      scale: f32Bits(attrs.scale * Math.LOG2E),
      rowBytes: heads * d * 4,
      scoreStride: scoreStride(n),
      ktBytes,
      vBytes,
    };
    return {
      bytes: pairs * (ktBytes + vBytes),
      commands: [
        packHeads(shape, k!.at, workspace, true),
        packHeads(shape, v!.at, panels, false),
        forwardKernel(tile, attrs.causal).command(values, grid, pairs * m * n * d < SMALL),
      ],
    };
  },
};
export const attentionKernels = { attention };
