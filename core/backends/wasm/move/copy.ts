/** pad and concat: strided copies of views into parts of a row-major result. */
import type { DType } from '../../../ir/dtype.ts';
import { rowMajor, sizeOf } from '../../../ir/view.ts';
import type { ConcatAttrs } from '../../../ops/concat.ts';
import type { PadAttrs } from '../../../ops/slice.ts';
import { mapWork, type OutputView } from '../cluster/map.ts';
import type { Placed, WasmKernel } from '../kernel.ts';
import type { Work } from '../loops/walk.ts';

const join = (all: readonly Work[]): Work => ({
  commands: all.flatMap((w) => w.commands),
  kernels: all.flatMap((w) => w.kernels),
});

// A copy moves words of any dtype unchanged; only a fill must know how its value looks.
const WORD: DType = 'u32';
const copyView = (from: Placed, to: number, view: OutputView): Work =>
  mapWork(
    {
      shape: from.view.shape,
      inputs: [{ dtype: WORD, strides: from.view.strides, offset: from.view.offset }],
      steps: [{ kind: 'load', input: 0, dtype: WORD }],
      outputs: [0],
    },
    [from.address],
    [to],
    view,
  );
const fillView = (value: number, dtype: DType, shape: readonly number[], to: number, view: OutputView): Work =>
  mapWork({ shape, inputs: [], steps: [{ kind: 'const', value, dtype }], outputs: [0] }, [], [to], view);

/** y = x with `value` before, after and between its elements. Cost: writes every element of y about once. */
export const padWork = (x: Placed, y: Placed, a: PadAttrs): Work => {
  const strides = rowMajor(y.view.shape);
  const offsetOf = (index: readonly number[]): number => index.reduce((o, i, axis) => o + i * strides[axis]!, 0);
  const parts: Work[] = [];
  if (a.interior.some((n, i) => n > 0 && x.view.shape[i]! > 1) || sizeOf(x.view.shape) === 0)
    parts.push(fillView(a.value, x.dtype, y.view.shape, y.address, { strides, offset: 0 }));
  // the slabs before and after x on each axis, as long as x on the axes already done
  else
    for (const axis of y.view.shape.keys())
      for (const [from, size] of [
        [0, a.low[axis]!],
        [y.view.shape[axis]! - a.high[axis]!, a.high[axis]!],
      ] as const) {
        const shape = y.view.shape.map((n, i) => (i === axis ? size : i < axis ? x.view.shape[i]! : n));
        const start = y.view.shape.map((_, i) => (i === axis ? from : i < axis ? a.low[i]! : 0));
        parts.push(fillView(a.value, x.dtype, shape, y.address, { strides, offset: offsetOf(start) }));
      }
  const spaced = { strides: strides.map((s, i) => s * (a.interior[i]! + 1)), offset: offsetOf(a.low) };
  parts.push(copyView(x, y.address, spaced));
  return join(parts);
};

/** y = the inputs one after the other along `axis`. Cost: one read and one write of everything. */
export const concatWork = (inputs: readonly Placed[], y: Placed, axis: number): Work => {
  const strides = rowMajor(y.view.shape);
  let position = 0;
  return join(
    inputs.map((x) => {
      const part = copyView(x, y.address, { strides, offset: position * strides[axis]! });
      position += x.view.shape[axis]!;
      return part;
    }),
  );
};

const pad: WasmKernel<PadAttrs> = {
  strided: [true],
  work: ({ inputs: [x], outputs: [y], attrs }) => padWork(x!, y!, attrs),
};
const concat: WasmKernel<ConcatAttrs> = {
  // more operands than this are copied first
  strided: new Array<boolean>(64).fill(true),
  work: ({ inputs, outputs: [y], attrs }) => concatWork(inputs, y!, attrs.axis),
};
export const copyKernels = { pad, concat };
