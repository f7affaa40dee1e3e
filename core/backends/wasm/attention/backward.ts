/**
 * Derivatives of attention; scores are computed anew from q, k and the log-sum-exp. A unit is one head: it walks over
 * blocks of rows, whose P and dS stay in L2, and adds up dk and dv in fixed order.
 *   P = 2^(scale·log₂e·q·kᵀ − log₂e·lse), dP = g·vᵀ, dS = scale·P·(dP − Σ g·o);  dq = dS·k, dk = dSᵀ·q, dv = Pᵀ·g
 */
import type { AttentionAttrs } from '../../../fused/attention.ts';
import { call, type Expr, f32, i32, type Local, memoryFill } from '../assembler/assemble.ts';
import { kernel, plus, type WasmKernel, words } from '../kernel.ts';
import { alongRow } from '../loops/rows.ts';
import { f32Bits } from '../machine/machine.ts';
import { attentionShape, blockRows, checkScratch, packRows, panelBytes, SMALL, scoreStride } from './blocks.ts';
import { type HeadShape, packHeads, packPanels } from './panels.ts';
import { rowProduct, scoreRow, unpack } from './rows.ts';
import { one, PANEL, padded, ROWS, strips } from './tiles.ts';

type I32 = Local<'i32'>;

/** rows of a block at most, and bytes of one of its two matrices */
const MOST_ROWS = 64;
const SCORE_BYTES = 384 * 1024;

const gradWords = words([
  'g q o lse dq dk dv kt vt k dkPanels dvPanels m n d heads rows',
  'scale scoreScale rowBytes scoreStride transposedBytes panelBytes sumBytes',
]);

const gradKernel = (causal: boolean) =>
  kernel(
    causal ? 'attentionGrad causal' : 'attentionGrad',
    gradWords,
    ({ f, m, args, start, end, scratch, locals }) => {
      const strip = strips(m);
      const word = locals();
      const { d, n, rowBytes, scoreStride: stride } = word;
      const scale = f.let(f32.load(args, gradWords.at('scale')));
      const scoreScale = f.let(f32.load(args, gradWords.at('scoreScale')));
      const wide = f.let(i32.and(i32.add(d, PANEL - 1), -PANEL));
      const blockBytes = f.let(i32.shl(i32.mul(word.rows, wide), 2));
      // scratch: q and g as rows and as panels, dq, P, dS
      const parts = [scratch];
      for (let i = 0; i < 5; i++) parts.push(f.let(i32.add(parts[i]!, blockBytes)));
      const [q, g, qPanels, gPanels, dq] = parts as [I32, I32, I32, I32, I32];
      const p = f.let(i32.and(i32.add(parts[5]!, 63), -64));
      const ds = f.let(i32.add(p, i32.mul(word.rows, stride)));
      const groups = f.let(i32.shr_u(i32.add(n, PANEL - 1), 3));
      const [u, i, column, first] = f.locals('i32');

      /** `visit` for every panel of 8 columns of d, with pointers that move by the given bytes */
      const eachPanel = (
        moving: readonly (readonly [Expr<'i32'>, Expr<'i32'>])[],
        visit: (at: I32[]) => void,
      ): void => {
        const pointers = moving.map(([from]) => f.let(from));
        f.for(column, 0, d, PANEL, () => {
          visit(pointers);
          for (const [k, [, bytes]] of moving.entries()) f.inc(pointers[k]!, bytes);
        });
      };
      const nPanelBytes = f.let(i32.shl(n, 5));
      const sumPanelBytes = f.let(i32.shl(groups, 8));

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
          const tiles = f.let(i32.shr_u(i32.add(rows, ROWS - 1), 2));
          const offset = f.let(i32.add(qHead, i32.mul(first, rowBytes)));
          const rowPanels = i32.shl(word.rows, 5);
          for (const [from, asRows, asPanels] of [
            [word.q, q, qPanels],
            [word.g, g, gPanels],
          ] as const) {
            packRows(f, m, i32.add(from, offset), rowBytes, rows, d, asRows);
            packPanels(f, m, asRows, i32.shl(d, 2), rows, d, asPanels, rowPanels);
          }
          const keys = f.let(n);
          if (causal) f.if(i32.lt_u(i32.add(first, rows), n), () => f.set(keys, i32.add(first, rows)));

          const [kt, vt] = [f.let(i32.add(word.kt, transposed)), f.let(i32.add(word.vt, transposed))];
          const [s, t] = [f.let(p), f.let(ds)];
          const dBytes = f.let(i32.shl(d, 2));
          f.for(column, 0, keys, PANEL, () => {
            f.emit(call(strip.rows, [q, dBytes, tiles, kt, d, s, stride, scoreScale]));
            f.emit(call(strip.rows, [g, dBytes, tiles, vt, d, t, stride, one]));
            for (const x of [kt, vt]) f.inc(x, i32.shl(d, 5));
            for (const x of [s, t]) f.inc(x, PANEL * 4);
          });

          f.set(s, p);
          f.set(t, ds);
          const lse = f.let(i32.add(word.lse, i32.shl(i32.add(i32.mul(u, word.m), first), 2)));
          const [gRow, oRow] = [f.let(i32.add(word.g, offset)), f.let(i32.add(word.o, offset))];
          f.for(i, 0, rows, 1, () => {
            const length = f.let(keys);
            if (causal)
              f.if(i32.lt_u(i32.add(first, i), i32.sub(n, 1)), () => f.set(length, i32.add(i32.add(first, i), 1)));
            scoreRow(f, m, s, t, length, rowProduct(f, m, gRow, oRow, d), lse, scale);
            // the strips below read whole panels
            const rest = f.let(i32.sub(i32.and(i32.add(keys, PANEL - 1), -PANEL), length));
            f.if(rest, () => {
              for (const x of [s, t]) f.emit(memoryFill(i32.add(x, i32.shl(length, 2)), 0, i32.shl(rest, 2)));
            });
            for (const x of [s, t]) f.inc(x, stride);
            for (const x of [gRow, oRow]) f.inc(x, rowBytes);
            f.inc(lse, 4);
          });

          const wideBytes = f.let(i32.shl(wide, 2));
          eachPanel(
            [
              [kPanels, nPanelBytes],
              [dq, i32.const(PANEL * 4)],
            ],
            ([b, c]) => f.emit(call(strip.rows, [ds, stride, tiles, b!, keys, c!, wideBytes, one])),
          );
          const keyTiles = f.let(i32.shl(i32.shr_u(i32.add(keys, PANEL - 1), 3), 1));
          eachPanel(
            [
              [qPanels, rowPanels],
              [dk, sumPanelBytes],
            ],
            ([b, c]) => f.emit(call(strip.columns, [ds, stride, keyTiles, b!, rows, c!])),
          );
          eachPanel(
            [
              [gPanels, rowPanels],
              [dv, sumPanelBytes],
            ],
            ([b, c]) => f.emit(call(strip.columns, [p, stride, keyTiles, b!, rows, c!])),
          );
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
    },
  );

/** bytes of dk or dv of one head while they add up: whole panels both ways */
const sumBytes = ({ n, d }: HeadShape): number => padded(n) * padded(d) * 4;

const attentionGrad: WasmKernel<AttentionAttrs> = {
  strided: [],
  plan: ({ machine, inputs: [g, q, k, v, o, lse], outputs: [dq, dk, dv], attrs, workspace }) => {
    const shape = attentionShape(q!.view.shape, k!.view.shape, attrs.heads);
    const { batch, heads, m, n, d } = shape;
    const pairs = batch * heads;
    const [transposedBytes, straightBytes] = [panelBytes(shape, true), panelBytes(shape, false)];
    const kt = workspace;
    const vt = plus(kt, pairs * transposedBytes);
    const kPanels = plus(vt, pairs * transposedBytes);
    const dkPanels = plus(kPanels, pairs * straightBytes);
    const rows = blockRows(m, n, MOST_ROWS, SCORE_BYTES);
    checkScratch(machine, n, rows * (5 * padded(d) * 4 + 2 * scoreStride(n)) + 64);
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
      scale: f32Bits(attrs.scale),
      scoreScale: f32Bits(attrs.scale * Math.LOG2E),
      rowBytes: heads * d * 4,
      scoreStride: scoreStride(n),
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
        gradKernel(attrs.causal).command(values, pairs, pairs * m * n * d < SMALL),
      ],
    };
  },
};
export const attentionGradKernels = { attentionGrad };
