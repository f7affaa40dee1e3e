/** Runs one WASM kernel on host arrays, with guard words around every result, and the same op on the reference backend. */
import { expect } from 'vitest';
import { type Address, install, type Plan, type WasmKernel } from '../../core/backends/wasm/kernel.ts';
import { kernels } from '../../core/backends/wasm/kernels.ts';
import type { Machine } from '../../core/backends/wasm/machine/machine.ts';
import { tensor } from '../../core/index.ts';
import { allocate, type DType, type HostArray } from '../../core/ir/dtype.ts';
import { type Attrs, bindAll, type Composite, type OutSpec, type Primitive } from '../../core/ir/tensor.ts';
import { contiguousView, sizeOf, type View } from '../../core/ir/view.ts';
import { numbers } from './gradcheck.ts';

export interface HostOperand {
  readonly data: HostArray;
  readonly dtype: DType;
  readonly view: View;
}
/** a row-major operand */
export const dense = (data: HostArray, shape: readonly number[], dtype: DType = 'f32'): HostOperand => ({
  data,
  dtype,
  view: contiguousView(shape),
});

const GUARD = 16;
const GUARD_WORD = 0x55555555;

/** a base of a plan */
export const base = (at: number): Address => ({ base: at, offset: 0 });

/** Runs a plan on the addresses of its operands and results, in a workspace of NaN with guard words behind it. */
export function runPlan(machine: Machine, { bytes, commands }: Plan, addresses: readonly number[]): void {
  const workspace = machine.alloc(bytes + GUARD * 4);
  machine.f32.fill(Number.NaN, workspace / 4, (workspace + bytes) / 4);
  machine.i32.fill(GUARD_WORD, (workspace + bytes) / 4, (workspace + bytes) / 4 + GUARD);
  install(machine, commands);
  const program = machine.prepare(commands, [...addresses, workspace]);
  machine.run(program);
  for (let g = 0; g < GUARD; g++)
    expect(machine.i32[(workspace + bytes) / 4 + g], 'word after the workspace').toBe(GUARD_WORD);
  machine.release(program);
  machine.free(workspace);
}

/** The results of an op's kernel; those that are not `wanted` get no place and stay at zero. */
export function runKernel<A extends Attrs>(
  machine: Machine,
  op: Primitive<A> | Composite<A>,
  operands: readonly HostOperand[],
  attrs: A,
  outs: readonly OutSpec[],
  wanted: readonly boolean[] = outs.map(() => true),
): HostArray[] {
  // what lies around an operand must not matter
  const surrounded = operands.map((o) => machine.alloc(o.data.byteLength + 2 * GUARD * 4));
  const inside = (blocks: readonly number[]): number[] => blocks.map((block) => block + GUARD * 4);
  const blocks = outs.map((o) => machine.alloc((sizeOf(o.shape) + 2 * GUARD) * 4));
  const count = operands.length;
  const kernel = kernels.get(op.name) as WasmKernel<A>;
  const plan = kernel.plan({
    machine,
    attrs,
    inputs: operands.map(({ view, dtype }, i) => ({ at: { base: i, offset: view.offset * 4 }, view, dtype })),
    outputs: outs.map(({ shape, dtype }, i) =>
      wanted[i] ? { at: base(count + i), view: contiguousView(shape), dtype } : undefined,
    ),
    workspace: base(count + outs.length),
  });
  for (const [i, o] of operands.entries()) {
    machine.i32.fill(GUARD_WORD, surrounded[i]! / 4, surrounded[i]! / 4 + o.data.length + 2 * GUARD);
    machine.u8.set(new Uint8Array(o.data.buffer, o.data.byteOffset, o.data.byteLength), surrounded[i]! + GUARD * 4);
  }
  for (const [i, o] of outs.entries())
    machine.i32.fill(GUARD_WORD, blocks[i]! / 4, blocks[i]! / 4 + sizeOf(o.shape) + 2 * GUARD);
  runPlan(machine, plan, inside([...surrounded, ...blocks]));
  const results = outs.map((o, i) => {
    const n = sizeOf(o.shape);
    const words = machine.i32.slice(blocks[i]! / 4, blocks[i]! / 4 + n + 2 * GUARD);
    for (let g = 0; g < GUARD; g++) {
      expect(words[g], 'word before the result').toBe(GUARD_WORD);
      expect(words[GUARD + n + g], 'word after the result').toBe(GUARD_WORD);
    }
    const values = allocate(o.dtype, n);
    if (!wanted[i]) {
      expect(
        words.every((w) => w === GUARD_WORD),
        `result ${i}, which nobody wants, untouched`,
      ).toBe(true);
      return values;
    }
    new Int32Array(values.buffer, 0, n).set(words.subarray(GUARD, GUARD + n));
    return values;
  });
  for (const block of [...surrounded, ...blocks]) machine.free(block);
  return results;
}

/** elements of an operand in row-major order */
export function flat({ data, view }: HostOperand): number[] {
  return Array.from({ length: sizeOf(view.shape) }, (_, p) => {
    let at = view.offset;
    for (let axis = view.shape.length - 1, rest = p; axis >= 0; axis--) {
      at += (rest % view.shape[axis]!) * view.strides[axis]!;
      rest = Math.floor(rest / view.shape[axis]!);
    }
    return data[at]!;
  });
}

/** The definition of an op on the same operands: floats in f64, on the reference backend. */
export async function definition<A extends Attrs>(
  op: Primitive<A> | Composite<A>,
  operands: readonly HostOperand[],
  attrs: A,
): Promise<{ readonly outs: readonly OutSpec[]; readonly values: readonly (readonly number[])[] }> {
  const wide = operands.map((o) => {
    const dtype = o.dtype === 'f32' ? 'f64' : o.dtype;
    const values = allocate(dtype, sizeOf(o.view.shape));
    values.set(flat(o));
    return tensor(values, o.view.shape, dtype);
  });
  const outs = bindAll(op, wide, attrs);
  return {
    outs: outs.map((o) => ({ shape: o.shape, dtype: o.dtype === 'f64' ? 'f32' : o.dtype })),
    values: await Promise.all(outs.map(async (o) => [...(await numbers(o))])),
  };
}

/** Runs an op's kernel on every machine: the same bits everywhere; the first result is given back with the definition. */
export async function runEverywhere<A extends Attrs>(
  machines: readonly Machine[],
  op: Primitive<A> | Composite<A>,
  operands: readonly HostOperand[],
  attrs: A,
): Promise<{ readonly got: readonly HostArray[]; readonly want: readonly (readonly number[])[] }> {
  const { outs, values } = await definition(op, operands, attrs);
  const [first, ...others] = machines.map((machine) => runKernel(machine, op, operands, attrs, outs));
  const words = (x: HostArray): Int32Array => new Int32Array(x.buffer, x.byteOffset, x.length);
  for (const other of others) for (const [i, y] of other.entries()) expect(words(y)).toEqual(words(first![i]!));
  return { got: first!, want: values };
}

/** deterministic numbers in [low, high) */
export function uniformNumbers(n: number, seed: number, low = -2, high = 2): Float32Array {
  let state = (seed * 2654435761) | 1;
  return Float32Array.from({ length: n }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return low + ((state >>> 0) / 2 ** 32) * (high - low);
  });
}
