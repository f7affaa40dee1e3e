/** Sliding windows over the axes between the first (samples) and the last (channels): pooling, and convolution of sequences. */
import { lowest } from '../ir/dtype.ts';
import { shapeError } from '../ir/errors.ts';
import { checkDtypes, checkWhole } from '../ir/rules.ts';
import type { Tensor } from '../ir/tensor.ts';
import { sizeOf } from '../ir/view.ts';
import { conv } from '../ops/conv.ts';
import { full } from '../ops/fill.ts';
import { reshape } from '../ops/layout.ts';
import { add, div, less, mul, select } from '../ops/math.ts';
import { padTo, slice } from '../ops/slice.ts';
import { logicalOr, notEqual } from './comparisons.ts';

/** Windows of a pooling: one entry for each axis between samples and channels. */
export interface Windows {
  /** its size along each axis */
  readonly window: readonly number[];
  /** default: the window's size, so that windows lie side by side */
  readonly stride?: readonly number[];
  /** [before, after] of each axis; default none */
  readonly pad?: readonly (readonly [number, number])[];
}

/** what stands at each place of the window, for all windows: a strided view of the padded picture for each */
function views(
  op: string,
  x: Tensor,
  { window, stride = window, pad = window.map(() => [0, 0] as const) }: Windows,
  value: number,
): Tensor[] {
  const rank = x.shape.length - 2;
  if (rank < 1 || [window, stride, pad].some((w) => w.length !== rank))
    throw shapeError(op, [x], `the operand must be x[n, …, c] with as many axes between as windows: ${window.length}`);
  checkWhole(op, [x], 'windows', window, 1);
  checkWhole(op, [x], 'strides', stride, 1);
  checkWhole(op, [x], 'pads', pad.flat());
  const low = [0, ...pad.map((p) => p[0]), 0];
  const high = [0, ...pad.map((p) => p[1]), 0];
  const padded = padTo(x, { low, high, interior: low.map(() => 0), value });
  const out = window.map((w, i) => Math.floor((padded.shape[i + 1]! - w) / stride[i]!) + 1);
  if (out.some((n) => n < 1))
    throw shapeError(op, [x], `the window [${window.join(', ')}] is larger than the padded picture`);
  return Array.from({ length: sizeOf(window) }, (_, at) => {
    let rest = at;
    const ranges = window.map((w, i) => {
      const start = rest % w;
      rest = Math.floor(rest / w);
      return { axis: i + 1, start, stop: start + (out[i]! - 1) * stride[i]! + 1, step: stride[i]! };
    });
    return slice(padded, ...ranges);
  });
}

/**
 * `maxPool(x[1,8,8,3], { window: [2, 2] })` → [1,4,4,3]: the largest of each window, for any number of axes between
 * samples and channels; padding never wins, NaN always does. The gradient goes to the first of equal elements. @throws ShapeError when
 * windows do not fit. Cost: one read for each place of the window.
 */
export function maxPool(x: Tensor, windows: Windows): Tensor {
  checkDtypes('maxPool', [x], 'number');
  return views('maxPool', x, windows, lowest(x.dtype)).reduce((a, b) =>
    select(logicalOr(less(a, b), notEqual(b, b)), b, a),
  );
}
/**
 * `averagePool(x[1,8,8,3], { window: [2, 2] })` → [1,4,4,3]: the mean of each window; `countPadding: false` leaves padding
 * out of it. @throws ShapeError when windows do not fit, and for integers. Cost: one read for each place of the window.
 */
export function averagePool(
  x: Tensor,
  { countPadding = true, ...windows }: Windows & { readonly countPadding?: boolean },
): Tensor {
  checkDtypes('averagePool', [x], 'float');
  const total = (t: Tensor): Tensor => views('averagePool', t, windows, 0).reduce((a, b) => add(a, b));
  return countPadding ? mul(total(x), 1 / sizeOf(windows.window)) : div(total(x), total(full(x.shape, 1, x.dtype)));
}

/** What `conv1d` may be told; left out: stride 1, no padding, one group, neighbouring taps. */
export interface Conv1dOptions {
  /** positions from one window to the next; default 1 */
  readonly stride?: number;
  /** zeros before and after; default none */
  readonly pad?: readonly [number, number];
  /** parts of the channels that are convolved by themselves; default 1 */
  readonly groups?: number;
  /** positions from one tap to the next; default 1 */
  readonly dilation?: number;
}
/**
 * `conv1d(x[n,l,c], w[k,c/groups,o], options)` → [n,l',o]: y[n,l,o] = Σ_{i,c} x[n, l·s+i·d−p, c]·w[i,c,o], a `conv` over
 * pictures of one row. @throws ShapeError as `conv`. Cost: 2·n·l'·k·(c/groups)·o flop.
 */
export function conv1d(
  x: Tensor,
  w: Tensor,
  { stride = 1, pad = [0, 0], groups = 1, dilation = 1 }: Conv1dOptions = {},
): Tensor {
  if (x.shape.length !== 3 || w.shape.length !== 3)
    throw shapeError('conv1d', [x, w], 'operands must be x[n,l,c] and w[k,c/groups,o]');
  const row = (t: Tensor, axis: number): Tensor => reshape(t, [...t.shape.slice(0, axis), 1, ...t.shape.slice(axis)]);
  const y = conv(row(x, 1), row(w, 0), { stride: [1, stride], pad: [[0, 0], pad], groups, dilation: [1, dilation] });
  return reshape(y, [y.shape[0]!, y.shape[2]!, y.shape[3]!]);
}
