/** f16 storage: the conversion, the rows of a table, what lowering keeps alive, and whole models against f32. */
import { describe, expect, it } from 'vitest';
import { wasmBackend } from '../../core/backends/wasm/index.ts';
import { makeGraph } from '../../core/compile/compile.ts';
import { interpret } from '../../core/compile/interpret.ts';
import { lower } from '../../core/compile/lower.ts';
import { arena, spans } from '../../core/compile/plan.ts';
import { reportKernels } from '../../core/compile/report.ts';
import {
  add,
  type Backend,
  cast,
  checkpoint,
  compile,
  conv,
  convInput,
  dot,
  evaluate,
  flip,
  gather,
  grad,
  mul,
  permute,
  read,
  reshape,
  sin,
  slice,
  sum,
  swap,
  type Tensor,
  tensor,
} from '../../core/index.ts';
import { hole, type Op } from '../../core/ir/tensor.ts';
import { dotOp } from '../../core/ops/dot.ts';
import { halfValue } from '../../core/ops/half.ts';
import { bfloatToFloat, floatToBfloat, floatToHalf, halfToFloat } from '../../models/io/dtypes.ts';
import { parseSafetensors } from '../../models/io/safetensors.ts';
import { cpu, rng } from '../support/gradcheck.ts';
import { encodeSafetensors } from '../support/safetensors-bytes.ts';

const wasm = wasmBackend({ threads: 2 }) as Backend;
const backends = [cpu, wasm];
const every = Uint16Array.from({ length: 65_536 }, (_, h) => h);
const random = rng(5);
const normalish = (n: number, scale = 1) => Float32Array.from({ length: n }, () => (random() - 0.5) * scale);
const half = (n: number, shape: readonly number[]) => tensor(floatToHalf(normalish(n)), shape);

describe('conversion', () => {
  it('all 65,536 patterns, against the table the file reader uses', async () => {
    const want = halfToFloat(every);
    expect([...every].map(halfValue)).toEqual([...want]);
    for (const b of backends) {
      const got = (await read(evaluate(cast(tensor(every, [65_536]), 'f32'), b))) as Float32Array;
      for (let h = 0; h < 65_536; h++)
        if (!Object.is(got[h], want[h])) expect([b.name, h, got[h]]).toEqual([b.name, h, want[h]]);
    }
  });
  it('any length and view, nothing written beyond', async () => {
    for (const n of [1, 3, 7, 8, 9, 4095, 4097, 20_001]) {
      const x = tensor(every.slice(0x3000, 0x3000 + n), [n]);
      expect(await read(evaluate(cast(x, 'f32'), wasm))).toEqual(await read(evaluate(cast(x, 'f32'), cpu)));
    }
    const x = half(5 * 6 * 7, [5, 6, 7]);
    for (const view of [
      permute(x, [2, 0, 1]),
      slice(x, { axis: 1, start: 1, stop: 4 }),
      slice(x, { axis: 0, start: 3 }),
    ])
      expect(await read(evaluate(cast(view, 'f32'), wasm))).toEqual(await read(evaluate(cast(view, 'f32'), cpu)));
  });
  it('rows of a table, even and odd widths, ids outside read zeros', async () => {
    for (const width of [1, 5, 8]) {
      const table = half(11 * width, [11, width]);
      const ids = tensor(Int32Array.of(3, 10, 0, 11, -1, 3), [2, 3]);
      const [a, b] = await Promise.all(backends.map((be) => read(evaluate(cast(gather(table, ids), 'f32'), be))));
      expect(b).toEqual(a);
      expect(a!.length).toBe(6 * width);
      expect([...a!.subarray(3 * width, 5 * width)].every((v) => v === 0)).toBe(true);
    }
  });
});

it('files in other formats are rounded chunk by chunk as they would be at once', { timeout: 30_000 }, async () => {
  // more than one chunk of 4 MiB, with a rest
  const x = Float32Array.from({ length: 2 ** 20 + 4097 }, (_, i) => Math.sin(i) * 2 ** ((i % 40) - 28));
  for (const [dtype, data, want] of [
    ['F32', x, floatToHalf(x)],
    ['F64', Float64Array.from(x), floatToHalf(x)],
    ['BF16', floatToBfloat(x), floatToHalf(bfloatToFloat(floatToBfloat(x)))],
    ['F16', floatToHalf(x), floatToHalf(x)],
  ] as const) {
    const file = parseSafetensors(await encodeSafetensors(new Map([['x', { dtype, shape: [x.length], data }]])), 'x');
    expect(await file.half('x')).toEqual(want);
  }
});

describe('refusals', () => {
  it('arithmetic names the op and says what to do', () => {
    const h = half(4, [4]);
    for (const f of [
      () => add(h, h),
      () => sum(h),
      () => sin(h),
      () => dot(reshape(h, [1, 2, 2]), reshape(h, [1, 2, 2])),
    ])
      expect(f).toThrow(/f16 is for storage: use cast\(x, 'f32'\)/);
  });
  it('f16 is never made by a program', () => {
    expect(() => cast(tensor([1]), 'f16')).toThrow(/make it on the host/);
    expect(() => tensor([0.5], [1], 'f16')).toThrow(/bit patterns/);
  });
});

/** a deep stack of layers with frozen weights and a trained shift, forward and backward */
const WIDTH = 128;
const LAYERS = 12;
const network = (weights: readonly Tensor[], shift: Tensor, x: Tensor, block: typeof checkpoint): Tensor => {
  let h = add(x, shift);
  for (const w of weights)
    h = block((h: Tensor) => sin(dot(h, swap(reshape(cast(w, 'f32'), [1, WIDTH, WIDTH])))))(h) as Tensor;
  return sum(mul(h, h));
};
const plain = ((f: unknown) => f) as typeof checkpoint;

describe('lowering: a conversion runs again for each reader', () => {
  const rows = 4;
  const bytesOf = (block: typeof checkpoint) => {
    const holes = Array.from({ length: LAYERS }, () => hole({ shape: [WIDTH, WIDTH], dtype: 'f16' }));
    const shift = hole({ shape: [1, 1, WIDTH], dtype: 'f32' });
    const x = hole({ shape: [1, rows, WIDTH], dtype: 'f32' });
    const g = grad((s: Tensor) => network(holes, s, x, block))(shift);
    const { graph } = makeGraph([g], [...holes, shift, x], new Set(), wasm);
    const program = lower(graph, { strided: () => true, maxLoads: 16 });
    return {
      bytes: arena(spans(program), 64).bytes,
      conversions: program.kernels.filter((k) => k.kind === 'op' && k.node.op.name === 'fromHalf').length,
    };
  };
  it('at most one wide weight is alive, with checkpoints (which capture conversions) and without', () => {
    const wide = WIDTH * WIDTH * 4;
    const activations = (3 * LAYERS + 6) * rows * WIDTH * 4;
    for (const block of [plain, checkpoint]) {
      const { bytes, conversions } = bytesOf(block);
      expect(bytes).toBeLessThanOrEqual(wide + activations);
      expect(conversions).toBe((block === plain ? 2 : 3) * LAYERS);
    }
  });
});

describe('lowering: a kernel that reads halves itself is given them as they lie', () => {
  const w = hole({ shape: [20, 30], dtype: 'f16' });
  const x = hole({ shape: [1, 4, 30], dtype: 'f32' });
  const wide = cast(w, 'f32');
  const outputs = [dot(x, swap(reshape(wide, [1, 20, 30]))), sum(wide, 0)];
  const { graph } = makeGraph(outputs, [w, x], new Set(), wasm);
  const widens = (op: Op, operand: number) => op === dotOp && operand === 1;
  const kernelsOf = (taken: boolean) => {
    const options = { strided: () => true, maxLoads: 16, ...(taken ? { widens } : {}) };
    const { kernels, inputs } = lower(graph, options);
    return { kernels: kernels.filter((k) => k.kind === 'op'), stored: inputs[0]! };
  };
  it('every other reader gets them widened', () => {
    const { kernels, stored } = kernelsOf(true);
    expect(kernels.map((k) => k.node.op.name)).toEqual(['dot', 'fromHalf']);
    expect(kernels[0]!.inputs[1]!.buffer).toBe(stored);
    expect(kernels[0]!.inputs[1]!.view).toMatchObject({ shape: [1, 30, 20], offset: 0 });
    expect(kernels[0]!.inputs[1]!.view.strides.slice(1)).toEqual([1, 30]);
    expect(kernelsOf(false).kernels.map((k) => k.node.op.name)).toEqual(['fromHalf', 'dot', 'fromHalf']);
  });
  it('a report counts what is made f32 of, whichever kernel does it', () => {
    const count = (taken: boolean) => reportKernels(kernelsOf(taken).kernels, {}).map((k) => k.widened);
    expect(count(true)).toEqual([600, 600]);
    expect(count(false)).toEqual([600, 0, 600]);
  });
});

describe('products and convolutions on wasm', () => {
  const same = { stride: [1, 1], pad: [[1, 1], [1, 1]], groups: 1 } as const; // biome-ignore format: one line
  it.each([
    ['a linear layer', [1, 5, 70], [40, 70], (x: Tensor, w: Tensor) => dot(x, swap(reshape(w, [1, 40, 70])))],
    ['its input gradient', [1, 5, 40], [40, 70], (g: Tensor, w: Tensor) => dot(g, reshape(w, [1, 40, 70]))],
    [
      'rows of a table',
      [1, 5, 70],
      [40, 70],
      (x: Tensor, w: Tensor) => dot(x, swap(reshape(slice(w, { axis: 0, start: 3, stop: 30 }), [1, 27, 70]))),
    ],
    ['a convolution by transform', [2, 9, 9, 20], [3, 3, 20, 36], (x: Tensor, w: Tensor) => conv(x, w, same)],
    [
      'its input gradient',
      [2, 9, 9, 36],
      [3, 3, 20, 36],
      (g: Tensor, w: Tensor) => convInput(g, w, { ...same, size: [9, 9] }),
    ],
    [
      'a convolution with stride',
      [2, 9, 9, 12],
      [3, 3, 12, 20],
      (x: Tensor, w: Tensor) => conv(x, w, { ...same, stride: [2, 2] }),
    ],
  ] as const)('%s reads halves itself, without a wide copy, to the same bits', async (_name, xShape, wShape, f) => {
    const numbers = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
    const x = tensor(normalish(numbers(xShape)), [...xShape]);
    const w = half(numbers(wShape), [...wShape]);
    const wide = tensor(halfToFloat((await read(w)) as Uint16Array), [...wShape]);
    const program = compile((x: Tensor, w: Tensor) => f(x, w.dtype === 'f16' ? cast(w, 'f32') : w), { backend: wasm });
    expect(program.inspect(x, w).kernels.map((k) => k.name)).toEqual(
      program.inspect(x, wide).kernels.map((k) => k.name),
    );
    expect(await read(program(x, w))).toEqual(await read(program(x, wide)));
  });
  it('a view that does not lie in one piece is widened first', async () => {
    const [x, w] = [tensor(normalish(20), [1, 2, 10]), half(200, [20, 10])];
    const odd = compile((x: Tensor, w: Tensor) => dot(x, swap(reshape(flip(cast(w, 'f32'), [1]), [1, 20, 10]))), {
      backend: wasm,
    });
    expect(odd.inspect(x, w).kernels.map((k) => k.name)).toContain('fromHalf');
    expect(await read(odd(x, w))).toEqual(
      await read(
        evaluate(
          dot(x, swap(reshape(flip(tensor(halfToFloat((await read(w)) as Uint16Array), [20, 10]), [1]), [1, 20, 10]))),
          wasm,
        ),
      ),
    );
  });
});

describe('a compiled step', () => {
  it('equals the step on the widened weights to the bit, with and without checkpoints, on both backends', async () => {
    const halves = Array.from({ length: 3 }, () => half(WIDTH * WIDTH, [WIDTH, WIDTH]));
    const floats = await Promise.all(
      halves.map(async (h) => tensor(halfToFloat((await read(h)) as Uint16Array), [WIDTH, WIDTH])),
    );
    const shift = tensor(normalish(WIDTH), [1, 1, WIDTH]);
    const x = tensor(normalish(2 * WIDTH), [1, 2, WIDTH]);
    for (const backend of backends)
      for (const block of [plain, checkpoint]) {
        const step = compile(
          (ws: readonly Tensor[], s: Tensor, x: Tensor) => grad((s: Tensor) => network(ws, s, x, block))(s),
          { backend },
        );
        expect(await read(step(halves, shift, x))).toEqual(await read(step(floats, shift, x)));
      }
  });
  it('interpreted kernels agree with the reference backend', async () => {
    const [h, x] = [half(12, [3, 4]), tensor(normalish(8), [1, 2, 4])];
    const y = dot(x, swap(reshape(cast(h, 'f32'), [1, 3, 4])));
    const { graph, captured } = makeGraph([y], [], new Set(), cpu);
    const inputs = await Promise.all(captured.map((t) => read(t)));
    expect(interpret(lower(graph, { strided: () => true, maxLoads: 8 }), inputs)[0]).toEqual(
      await read(evaluate(y, cpu)),
    );
  });
});
