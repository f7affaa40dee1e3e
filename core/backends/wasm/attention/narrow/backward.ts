/**
 * Derivatives of attention for heads of four numbers, keys in lanes. A unit is one head; for a block of rows and of keys, first
 * P and dS of each row in one pass over the keys, without stops in memory between scores, exponential and product; then dq = dS·k
 * of each row over the keys, and dk = dSᵀ·q, dv = Pᵀ·g of eight keys over the rows.
 */

import type { AttentionAttrs } from '../../../../fused/attention.ts';
import { type Assembler, call, type Func, f32x4, i32, type Local, memoryFill, v128 } from '../../assembler/assemble.ts';
import { exp2ShortF32x4, multiplyAdd } from '../../assembler/vectorMath.ts';
import { kernel, plus, type WasmKernel, type Word, words } from '../../kernel.ts';
import { combineAll, ZERO } from '../../loops/rows.ts';
import { f32Bits } from '../../machine/machine.ts';
import { attentionShape, blockRows, checkScratch, SMALL, scoreStride } from '../blocks.ts';
import { padded } from '../tiles.ts';
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
  type Pair,
  pairOf,
  repeat,
  rowTimesPanel,
  spread,
  storeLine,
  zeroSums,
} from './lanes.ts';
import { headBytes, packNarrow, unpackNarrow } from './panels.ts';

type I32 = Local<'i32'>;
/** a row as it is worked on: q·scale·log₂e [4], g [4], −log₂e·lse, −Σ g·o, and room up to whole vectors */
const ROW_BYTES = 48;
const G = 16;
const LSE = 32;
const PRODUCT = 36;

/** (row, kt, vt, p, ds, groups, rest): P and dS/scale of `groups` whole panels, and of `rest` keys of one more */
const rowStrip = (m: Assembler): Func =>
  m.func('', ['i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32'], 'void', (f, row, kt, vt, p, ds, groups, rest) => {
    const [q, g] = [spread(f, row), spread(f, row, G)];
    const [lse, product] = [f.let(v128.load32_splat(row, LSE)), f.let(v128.load32_splat(row, PRODUCT))];
    const panel = (mask?: Pair): void => {
      // to the bit the forward kernel's scores, whose sums lse has: of large ones the last digits decide
      const s = rowTimesPanel(f, q, kt, ZERO);
      const power = (i: 0 | 1) => exp2ShortF32x4(f, f32x4.add(s[i], lse));
      const e = pairOf(f, (i) => (mask ? v128.and(power(i), mask[i]) : power(i)));
      storeLine(f, p, e);
      const t = rowTimesPanel(f, g, vt, product);
      storeLine(
        f,
        ds,
        pairOf(f, (i) => f32x4.mul(e[i], t[i])),
      );
    };
    eachPanel(f, groups, [kt, vt], [p, ds], () => panel());
    // padded keys have a score, 0, too
    f.if(rest, () => panel(firstLanes(f, rest)));
  });

/** (ds, groups, kt, dq, room): dq[4] += Σ over keys of dS·k */
const queryStrip = (m: Assembler): Func =>
  m.func('', ['i32', 'i32', 'i32', 'i32', 'i32'], 'void', (f, ds, groups, kt, dq, room) => {
    const sums = zeroSums(f);
    eachPanel(f, groups, [kt], [ds], () => {
      const line = pairOf(f, (i) => inLine(ds, i));
      addTimesPanel(f, sums, line, kt);
    });
    f.emit(v128.store(dq, f32x4.add(v128.load(dq), addLanes(f, sums, room))));
  });

/** (x, stride, rows, y, sums): sums[4][8] += Σ over rows of x[8]·y[4], rows of y `ROW_BYTES` apart */
const keyStrip = (m: Assembler): Func =>
  m.func('', ['i32', 'i32', 'i32', 'i32', 'i32'], 'void', (f, x, stride, rows, y, to) => {
    const sums = loadPanel(f, to);
    repeat(
      f,
      rows,
      [
        [x, stride],
        [y, ROW_BYTES],
      ],
      () => {
        const line = pairOf(f, (i) => inLine(x, i));
        for (let c = 0; c < HEAD; c++) {
          const number = f.let(v128.load32_splat(y, 4 * c));
          for (const i of [0, 1] as const) f.set(sums[c]![i], multiplyAdd(number, line[i], sums[c]![i]));
        }
      },
    );
    for (const [c, pair] of sums.entries())
      for (const i of [0, 1] as const) f.emit(v128.store(to, pair[i], GROUP * 4 * c + 16 * i));
  });

const narrowGradWords = words([
  'g q o lse dq dk dv kt vt dkPanels dvPanels m n heads rows keys scale scoreScale rowBytes scoreStride headBytes',
]);

const narrowBackward = kernel('attentionGrad of 4', narrowGradWords, ({ f, m, start, end, scratch, locals, splat }) => {
  const [row, query, key] = [rowStrip(m), queryStrip(m), keyStrip(m)];
  const word = locals();
  const { n, rowBytes, scoreStride: stride } = word;
  const scale = f.let(splat('scale'));
  const scoreScale = f.let(splat('scoreScale'));
  // scratch: rows, room, dq, P, dS
  const room = f.let(i32.add(scratch, i32.mul(word.rows, ROW_BYTES)));
  const dq = f.let(i32.add(room, HEAD * PAIR_BYTES));
  const p = f.let(i32.and(i32.add(i32.add(dq, i32.shl(word.rows, 4)), 63), -64));
  const ds = f.let(i32.add(p, i32.mul(word.rows, stride)));
  const [u, first, from, column] = f.locals('i32');
  f.for(u, start, end, 1, () => {
    const inRow = f.let(i32.shl(i32.rem_u(u, word.heads), 4));
    const batch = f.let(i32.div_u(u, word.heads));
    const qHead = f.let(i32.add(i32.mul(i32.mul(batch, word.m), rowBytes), inRow));
    const kHead = f.let(i32.add(i32.mul(i32.mul(batch, n), rowBytes), inRow));
    const panels = f.let(i32.mul(u, word.headBytes));
    const [dk, dv] = [f.let(i32.add(word.dkPanels, panels)), f.let(i32.add(word.dvPanels, panels))];
    f.emit(memoryFill(dk, 0, word.headBytes), memoryFill(dv, 0, word.headBytes));

    f.for(first, 0, word.m, word.rows, () => {
      const rows = f.let(i32.sub(word.m, first));
      f.if(i32.gt_u(rows, word.rows), () => f.set(rows, word.rows));
      const offset = f.let(i32.add(qHead, i32.mul(first, rowBytes)));
      const [q, g, o, to] = [
        ...[word.q, word.g, word.o].map((x) => f.let(i32.add(x, offset))),
        f.let(scratch),
      ] as const;
      const lse = f.let(i32.add(word.lse, i32.shl(i32.add(i32.mul(u, word.m), first), 2)));
      repeat(
        f,
        rows,
        [
          [q!, rowBytes],
          [g!, rowBytes],
          [o!, rowBytes],
          [lse, 4],
          [to!, ROW_BYTES],
        ],
        () => {
          const slope = f.let(v128.load(g!));
          f.emit(v128.store(to!, f32x4.mul(v128.load(q!), scoreScale)));
          f.emit(v128.store(to!, slope, G));
          f.emit(v128.store32_lane(to!, f32x4.mul(v128.load32_splat(lse), -Math.LOG2E), 0, LSE));
          const total = combineAll(f, [f.let(f32x4.mul(slope, v128.load(o!)))], f32x4.add);
          f.emit(v128.store32_lane(to!, f32x4.neg(total), 0, PRODUCT));
        },
      );
      f.emit(memoryFill(dq, 0, i32.shl(rows, 4)));

      f.for(from, 0, n, word.keys, () => {
        const count = f.let(i32.sub(n, from));
        f.if(i32.gt_u(count, word.keys), () => f.set(count, word.keys));
        const whole = f.let(i32.shr_u(count, 3));
        const groups = f.let(i32.shr_u(i32.add(count, 7), 3));
        const ahead = f.let(i32.shl(from, 4));
        const [kt, vt] = [word.kt, word.vt].map((x) => f.let(i32.add(i32.add(x, panels), ahead))) as [I32, I32];
        {
          const [at, s, t, sum] = [f.let(scratch), f.let(p), f.let(ds), f.let(dq)];
          repeat(
            f,
            rows,
            [
              [at, ROW_BYTES],
              [s, stride],
              [t, stride],
              [sum, 16],
            ],
            () => {
              f.emit(call(row, [at, kt, vt, s, t, whole, i32.and(count, 7)]));
              f.emit(call(query, [t, groups, kt, sum, room]));
            },
          );
        }
        const [s, t, dkAt, dvAt] = [p, ds, i32.add(dk, ahead), i32.add(dv, ahead)].map((x) => f.let(x)) as [
          I32,
          I32,
          I32,
          I32,
        ];
        f.for(column, 0, groups, 1, () => {
          f.emit(call(key, [t, stride, rows, scratch, dkAt]));
          f.emit(call(key, [s, stride, rows, i32.add(scratch, G), dvAt]));
          for (const x of [s, t]) f.inc(x, GROUP * 4);
          for (const x of [dkAt, dvAt]) f.inc(x, PANEL_BYTES);
        });
      });
      const [sum, out] = [f.let(dq), f.let(i32.add(word.dq, offset))];
      repeat(
        f,
        rows,
        [
          [sum, 16],
          [out, rowBytes],
        ],
        () => f.emit(v128.store(out, f32x4.mul(v128.load(sum), scale))),
      );
    });
    // dS is without `scale`, the rows of q have it times log₂e
    unpackNarrow(
      f,
      dk,
      n,
      f.let(f32x4.const(Math.LN2, Math.LN2, Math.LN2, Math.LN2)),
      i32.add(word.dk, kHead),
      rowBytes,
    );
    unpackNarrow(f, dv, n, f.let(f32x4.const(1, 1, 1, 1)), i32.add(word.dv, kHead), rowBytes);
  });
});

/** rows and keys of a block at most (16 to 64 and 64 to 256 were within 6%) */
const MOST_ROWS = 32;
const MOST_KEYS = 128;

/** the plan of `attentionGrad` for heads of four numbers */
export const narrowGradPlan: WasmKernel<AttentionAttrs>['plan'] = ({ machine, inputs, outputs, attrs, workspace }) => {
  const [g, q, k, v, o, lse] = inputs;
  const [dq, dk, dv] = outputs;
  const shape = attentionShape(q!.view.shape, k!.view.shape, attrs.heads);
  const { batch, heads, m, n } = shape;
  const pairs = batch * heads;
  const bytes = headBytes(shape);
  const at = (i: number): Word => plus(workspace, i * pairs * bytes);
  const keys = Math.min(MOST_KEYS, padded(n));
  const rows = blockRows(m, MOST_ROWS, 1);
  checkScratch(machine, n, HEAD * PAIR_BYTES + rows * (ROW_BYTES + HEAD * 4 + 2 * scoreStride(keys)) + 64);
  return {
    bytes: 4 * pairs * bytes,
    commands: [
      packNarrow(shape, k!.at, at(0)),
      packNarrow(shape, v!.at, at(1)),
      narrowBackward.command(
        {
          g: g!.at,
          q: q!.at,
          o: o!.at,
          lse: lse!.at,
          dq: dq!.at,
          dk: dk!.at,
          dv: dv!.at,
          kt: at(0),
          vt: at(1),
          dkPanels: at(2),
          dvPanels: at(3),
          m,
          n,
          heads,
          rows,
          keys,
          scale: f32Bits(attrs.scale),
          scoreScale: f32Bits(attrs.scale * Math.LOG2E),
          rowBytes: heads * HEAD * 4,
          scoreStride: scoreStride(keys),
          headBytes: bytes,
        },
        pairs,
        pairs * m * n * HEAD < SMALL,
      ),
    ],
  };
};
