/** pad and concat: strided copies of views into parts of a row-major result. */
import type { DType } from '../../../ir/dtype.ts';
import { rowMajor, sizeOf } from '../../../ir/view.ts';
import type { ConcatAttrs } from '../../../ops/concat.ts';
import type { PadAttrs } from '../../../ops/slice.ts';
import { mapCommands, type OutputView } from '../cluster/map.ts';
import { type KernelCommand, type Placed, plus, type WasmKernel, type Word } from '../kernel.ts';

// A copy moves words of any dtype unchanged; only a fill must know how its value looks.
const WORD: DType = 'u32';
const copyView = ({ at, view: { shape, strides } }: Placed, to: Word, view: OutputView): readonly KernelCommand[] =>
  mapCommands(
    {
      shape,
      inputs: [{ dtype: WORD, strides, offset: 0 }],
      steps: [{ kind: 'load', input: 0, dtype: WORD }],
      outputs: [0],
    },
    [at],
    [to],
    view,
  );

/** y = x with `value` before, after and between its elements. Cost: writes every element of y about once. */
const pad: WasmKernel<PadAttrs> = {
  strided: [true],
  plan: ({ inputs, outputs, attrs: a }) => {
    const [x, y] = [inputs[0]!, outputs[0]!];
    const shape = y.view.shape;
    const strides = rowMajor(shape);
    const offsetOf = (index: readonly number[]): number => index.reduce((o, i, axis) => o + i * strides[axis]!, 0);
    const fill = (of: readonly number[], offset: number): readonly KernelCommand[] => {
      const steps = [{ kind: 'const', value: a.value, dtype: x.dtype } as const];
      return mapCommands({ shape: of, inputs: [], steps, outputs: [0] }, [], [y.at], { strides, offset });
    };
    const commands: KernelCommand[] = [];
    if (a.interior.some((n, i) => n > 0 && x.view.shape[i]! > 1) || sizeOf(x.view.shape) === 0)
      commands.push(...fill(shape, 0));
    // the slabs before and after x on each axis, as long as x on the axes already done
    else
      for (const axis of shape.keys())
        for (const [from, size] of [
          [0, a.low[axis]!],
          [shape[axis]! - a.high[axis]!, a.high[axis]!],
        ] as const) {
          const slab = shape.map((n, i) => (i === axis ? size : i < axis ? x.view.shape[i]! : n));
          const start = shape.map((_, i) => (i === axis ? from : i < axis ? a.low[i]! : 0));
          commands.push(...fill(slab, offsetOf(start)));
        }
    const spaced = { strides: strides.map((s, i) => s * (a.interior[i]! + 1)), offset: offsetOf(a.low) };
    commands.push(...copyView(x, y.at, spaced));
    return { bytes: 0, commands };
  },
};

/** y = the inputs one after the other along `axis`. Cost: one read and one write of everything. */
const concat: WasmKernel<ConcatAttrs> = {
  // more operands than this are copied first
  strided: new Array<boolean>(64).fill(true),
  plan: ({ inputs, outputs, attrs: { axis } }) => {
    const y = outputs[0]!;
    const strides = rowMajor(y.view.shape);
    let position = 0;
    const commands = inputs.flatMap((x) => {
      const to = plus(y.at, position * strides[axis]! * 4);
      position += x.view.shape[axis]!;
      return copyView(x, to, { strides, offset: 0 });
    });
    return { bytes: 0, commands };
  },
};
export const copyKernels = { pad, concat };
