/**
 * Derivatives of attention; scores are computed anew from q, k and the log-sum-exp. A unit is one head: it walks over
 * blocks of rows and, in them, of keys, whose P and dS stay in a cache, and adds up dq, dk and dv in fixed order.
 *   P = 2^(scale·log₂e·q·kᵀ − log₂e·lse), dP = g·vᵀ, dS = scale·P·(dP − Σ g·o);  dq = dS·k, dk = dSᵀ·q, dv = Pᵀ·g
 */
import type { AttentionAttrs } from '../../../fused/attention.ts';
import { call, type Expr, f32, i32, type Local, memoryFill, v128 } from '../assembler/assemble.ts';
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
import { narrowGradPlan } from './narrow/backward.ts';
import { HEAD } from './narrow/lanes.ts';
import { type HeadShape, packHeads, packPanels } from './panels.ts';
import { rowProduct, scoreRow, unpack } from './rows.ts';
import { COLUMNS, one, PANEL, padded, strips, type Tile, tileOf, tilesIn } from './tiles.ts';

type I32 = Local<'i32'>;

/** rows and keys of a block at most */
const MOST_ROWS = 64;
const MOST_KEYS = 64;

const gradWords = words([
  'g q o lse dq dk dv kt vt k dkPanels dvPanels m n d heads rows keys',
  'scale scoreScale rowBytes scoreStride transposedBytes panelBytes sumBytes',
]);

const gradKernel = (tile: Tile, causal: boolean) =>
  kernel(attentionName('attentionGrad', tile, causal), gradWords, ({ f, m, args, start, end, scratch, locals }) => {
    const strip = strips(m, tile);
    const word = locals();
    const { d, n, rowBytes, scoreStride: stride } = word;
    const scale = f.let(f32.load(args, gradWords.at('scale')));
    const scoreScale = f.let(f32.load(args, gradWords.at('scoreScale')));
    const wide = f.let(i32.and(i32.add(d, COLUMNS - 1), -COLUMNS));
    const blockBytes = f.let(i32.shl(i32.mul(word.rows, wide), 2));
    // scratch: q and g as rows and as panels, dq, P, dS, Σ g·o of each row
    const parts = [scratch];
    for (let i = 0; i < 5; i++) parts.push(f.let(i32.add(parts[i]!, blockBytes)));
    const [q, g, qPanels, gPanels, dq] = parts as [I32, I32, I32, I32, I32];
    const p = f.let(i32.and(i32.add(parts[5]!, 63), -64));
    const ds = f.let(i32.add(p, i32.mul(word.rows, stride)));
    const products = f.let(i32.add(ds, i32.mul(word.rows, stride)));
    const groups = f.let(i32.shr_u(i32.add(n, PANEL - 1), 3));
    const [u, i, column, first, key] = f.locals('i32');

    /** `visit` for every panel of columns of d, with pointers that move by the given bytes */
    const eachPanel = (moving: readonly (readonly [Expr<'i32'>, Expr<'i32'>])[], visit: (at: I32[]) => void): void => {
      const pointers = moving.map(([from]) => f.let(from));
      f.for(column, 0, d, COLUMNS, () => {
        visit(pointers);
        for (const [k, [, bytes]] of moving.entries()) f.inc(pointers[k]!, bytes);
      });
    };
    const nPanelBytes = f.let(i32.mul(n, COLUMNS * 4));
    const sumPanelBytes = f.let(i32.mul(groups, PANEL * COLUMNS * 4));

    f.for(u, start, end, 1, () => {
      const inRow = f.let(i32.mul(i32.rem_u(u, word.heads), i32.shl(d, 2)));
      const batch = f.let(i32.div_u(u, word.heads));
      const qHead = f.let(i32.add(i32.mul(i32.mul(batch, word.m), rowBytes), inRow));
      const kHead = f.let(i32.add(i32.mul(i32.mul(batch, n), rowBytes), inRow));
      const dk = f.let(i32.add(word.dkPanels, i32.mul(u, word.sumBytes)));
      const dv = f.let(i32.add(word.dvPanels, i32.mul(u, word.sumBytes)));
      f.emit(memoryFill(dk, 0, word.sumBytes), memoryFill(dv, 0, word.sumBytes));
      const transposed = f.let(i32.mul(u, word.transposedBytes));
      const kPanels = f.let(i32.add(word.k, i32.mul(u, word.panelBytes)));
      f.for(first, 0, word.m, word.rows, () => {
        const rows = f.let(i32.sub(word.m, first));
        f.if(i32.gt_u(rows, word.rows), () => f.set(rows, word.rows));
        const tiles = f.let(tilesIn(rows, tile));
        const offset = f.let(i32.add(qHead, i32.mul(first, rowBytes)));
        const rowPanels = i32.mul(word.rows, COLUMNS * 4);
        for (const [from, asRows, asPanels] of [
          [word.q, q, qPanels],
          [word.g, g, gPanels],
        ] as const) {
          packRows(f, m, i32.add(from, offset), rowBytes, rows, d, asRows);
          packPanels(f, m, asRows, i32.shl(d, 2), rows, d, asPanels, rowPanels);
        }
        const keys = f.let(n);
        if (causal) f.if(i32.lt_u(i32.add(first, rows), n), () => f.set(keys, i32.add(first, rows)));
        const wideBytes = f.let(i32.shl(wide, 2));
        f.emit(memoryFill(dq, 0, blockBytes));
        const [gRow, oRow, out] = [f.let(i32.add(word.g, offset)), f.let(i32.add(word.o, offset)), f.let(products)];
        f.for(i, 0, rows, 1, () => {
          f.emit(v128.store32_lane(out, rowProduct(f, m, gRow, oRow, d), 0));
          for (const x of [gRow, oRow]) f.inc(x, rowBytes);
          f.inc(out, 4);
        });

        f.for(key, 0, keys, word.keys, () => {
          const count = f.let(i32.sub(keys, key));
          f.if(i32.gt_u(count, word.keys), () => f.set(count, word.keys));
          const whole = f.let(i32.and(i32.add(count, PANEL - 1), -PANEL));
          const keyOffset = f.let(i32.add(transposed, i32.shl(i32.mul(key, d), 2)));
          const [kt, vt] = [f.let(i32.add(word.kt, keyOffset)), f.let(i32.add(word.vt, keyOffset))];
          const [s, t] = [f.let(p), f.let(ds)];
          const rowOf = f.let(i32.shl(d, 2));
          f.for(column, 0, count, PANEL, () => {
            f.emit(call(strip.scores, [q, rowOf, tiles, kt, d, s, stride, scoreScale]));
            f.emit(call(strip.scores, [g, rowOf, tiles, vt, d, t, stride, one]));
            for (const x of [kt, vt]) f.inc(x, i32.shl(d, 5));
            for (const x of [s, t]) f.inc(x, PANEL * 4);
          });

          f.set(s, p);
          f.set(t, ds);
          const lse = f.let(i32.add(word.lse, i32.shl(i32.add(i32.mul(u, word.m), first), 2)));
          const product = f.let(products);
          f.for(i, 0, rows, 1, () => {
            const length = f.let(count);
            if (causal) {
              const seen = f.let(i32.sub(i32.add(i32.add(first, i), 1), key));
              f.if(i32.lt_s(seen, count), () => f.set(length, seen));
              f.if(i32.lt_s(seen, 0), () => f.set(length, 0));
            }
            scoreRow(f, m, s, t, length, f.let(v128.load32_splat(product)), lse, scale);
            // the strips below read whole panels
            const rest = f.let(i32.sub(whole, length));
            f.if(rest, () => {
              for (const x of [s, t]) f.emit(memoryFill(i32.add(x, i32.shl(length, 2)), 0, i32.shl(rest, 2)));
            });
            for (const x of [s, t]) f.inc(x, stride);
            for (const x of [product, lse]) f.inc(x, 4);
          });

          const keyBytes = f.let(i32.mul(key, COLUMNS * 4));
          eachPanel(
            [
              [i32.add(kPanels, keyBytes), nPanelBytes],
              [dq, i32.const(COLUMNS * 4)],
            ],
            ([b, c]) => f.emit(call(strip.rows, [ds, stride, tiles, b!, count, c!, wideBytes, one])),
          );
          const keyTiles = f.let(i32.div_u(whole, tile));
          for (const [a, b, c] of [
            [ds, qPanels, dk],
            [p, gPanels, dv],
          ] as const)
            eachPanel(
              [
                [b, rowPanels],
                [i32.add(c, keyBytes), sumPanelBytes],
              ],
              ([panel, sum]) => f.emit(call(strip.columns, [a, stride, keyTiles, panel!, rows, sum!])),
            );
        });
        const [from, to] = [f.let(dq), f.let(i32.add(word.dq, offset))];
        f.for(i, 0, rows, 1, () => {
          const [x, y] = [f.let(from), f.let(to)];
          alongRow(f, m, 1, d, [x, y], (v) => f.emit(v.store(y, v.loadPadded(x))));
          f.inc(from, wideBytes);
          f.inc(to, rowBytes);
        });
      });
      for (const [panels, out] of [
        [dk, word.dk],
        [dv, word.dv],
      ] as const)
        unpack(f, m, panels, sumPanelBytes, n, d, i32.add(out, kHead), rowBytes);
    });
  });

/** bytes of dk or dv of one head while they add up: whole panels both ways */
const sumBytes = ({ n, d }: HeadShape): number => padded(n) * padded(d) * 4;

const attentionGrad: WasmKernel<AttentionAttrs> = {
  strided: [],
  plan: (x) => {
    const {
      machine,
      inputs: [g, q, k, v, o, lse],
      outputs: [dq, dk, dv],
      attrs,
      workspace,
    } = x;
    const shape = attentionShape(q!.view.shape, k!.view.shape, attrs.heads);
    const { batch, heads, m, n, d } = shape;
    if (d === HEAD && !attrs.causal) return narrowGradPlan(x);
    const tile = tileOf(machine);
    const pairs = batch * heads;
    const [transposedBytes, straightBytes] = [panelBytes(shape, true), panelBytes(shape, false)];
    const kt = workspace;
    const vt = plus(kt, pairs * transposedBytes);
    const kPanels = plus(vt, pairs * transposedBytes);
    const dkPanels = plus(kPanels, pairs * straightBytes);
    const keys = Math.min(MOST_KEYS, padded(n));
    const rows = blockRows(m, MOST_ROWS, tile);
    checkScratch(machine, n, rows * (5 * padded(d) * 4 + 2 * scoreStride(keys) + 4) + 64);
    const values = {
      g: g!.at,
      q: q!.at,
      o: o!.at,
      lse: lse!.at,
      dq: dq!.at,
      dk: dk!.at,
      dv: dv!.at,
      kt,
      vt,
      k: kPanels,
      dkPanels,
      dvPanels: plus(dkPanels, pairs * sumBytes(shape)),
      m,
      n,
      d,
      heads,
      rows,
      keys,
      scale: f32Bits(attrs.scale),
      scoreScale: f32Bits(attrs.scale * Math.LOG2E),
      rowBytes: heads * d * 4,
      scoreStride: scoreStride(keys),
      transposedBytes,
      panelBytes: straightBytes,
      sumBytes: sumBytes(shape),
    };
    return {
      bytes: pairs * (2 * transposedBytes + straightBytes + 2 * sumBytes(shape)),
      commands: [
        packHeads(shape, k!.at, kt, true),
        packHeads(shape, v!.at, vt, true),
        packHeads(shape, k!.at, kPanels, false),
        gradKernel(tile, attrs.causal).command(values, pairs, pairs * m * n * d < SMALL),
      ],
    };
  },
};
export const attentionGradKernels = { attentionGrad };
