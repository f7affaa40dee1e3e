/** Random clusters for the kernels of wasm: data, views, and what a scalar program means, in f64. */
import fc from 'fast-check';
import type { Cluster } from '../../core/compile/scalar.ts';
import { allocate, type DType } from '../../core/ir/dtype.ts';
import { type ElementwiseName, table } from '../../core/ops/elementwise.ts';

export type Data = Float32Array | Int32Array | Uint32Array;
export const outShape = (c: Cluster): number[] => c.shape.map((n, i) => (c.reduce?.axes.includes(i) ? 1 : n));
export const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** what the scalar program means, in f64; `sizes` is the sum of the absolute values of a reduction */
export const meaning = (c: Cluster, inputs: readonly Data[]): { values: Float64Array[]; sizes: Float64Array } => {
  const shape = outShape(c);
  const n = size(shape);
  const start = c.reduce?.op === 'max' ? -Infinity : 0;
  const values = c.outputs.map(() => new Float64Array(n).fill(start));
  const sizes = new Float64Array(n);
  for (let p = 0; p < size(c.shape); p++) {
    const index: number[] = [];
    for (let axis = c.shape.length - 1, rest = p; axis >= 0; axis--) {
      index[axis] = rest % c.shape[axis]!;
      rest = Math.floor(rest / c.shape[axis]!);
    }
    const v: number[] = [];
    for (const s of c.steps) {
      if (s.kind === 'load') {
        const x = c.inputs[s.input]!;
        v.push(inputs[s.input]![index.reduce((o, i, axis) => o + i * x.strides[axis]!, x.offset)]!);
      } else if (s.kind === 'const') v.push(s.dtype === 'f32' ? Math.fround(s.value) : s.value);
      else if (s.kind === 'iota') v.push(index[s.axis]!);
      else {
        const x = s.args.map((a) => v[a]!);
        if (s.fn === 'cast')
          v.push(s.dtype === 'bool' ? (x[0] ? 1 : 0) : s.dtype === 'f32' ? x[0]! : Math.trunc(x[0]!));
        else {
          const form = table[s.fn as ElementwiseName].form;
          const y = form.kind === 'elementwise' ? form.js(...x) : Number.NaN;
          v.push(s.dtype === 'i32' ? y | 0 : s.dtype === 'u32' ? y >>> 0 : y);
        }
      }
    }
    const o = index.reduce((at, i, axis) => at * shape[axis]! + (shape[axis] === 1 ? 0 : i), 0);
    for (const [k, step] of c.outputs.entries()) {
      const y = v[step]!;
      if (!c.reduce) values[k]![o] = y;
      else if (c.reduce.op === 'sum') values[k]![o]! += y;
      else values[k]![o] = Math.max(values[k]![o]!, y);
      sizes[o]! += Math.abs(y);
    }
  }
  return { values, sizes };
};

export const randomData = (dtype: DType, n: number, seed: number): Data => {
  let state = seed | 1;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
  const x = allocate(dtype, n) as Data;
  for (let i = 0; i < n; i++)
    x[i] = dtype === 'f32' ? next() * 4 - 2 : dtype === 'bool' ? Math.floor(next() * 2) : Math.floor(next() * 100);
  return x;
};

/** a random view: permuted, broadcast, flipped or stepped axes over a buffer just large enough */
export const view = fc.record({
  seed: fc.integer(),
  kinds: fc.array(fc.constantFrom('full', 'repeat', 'flip', 'step'), { minLength: 4, maxLength: 4 }),
  order: fc.shuffledSubarray([0, 1, 2, 3], { minLength: 4 }),
});
export type ViewChoice = { seed: number; kinds: string[]; order: number[] };
export const makeInput = (dtype: DType, shape: readonly number[], choice: ViewChoice) => {
  const strides = shape.map(() => 0);
  let length = 1;
  let offset = 3;
  for (const axis of choice.order) {
    if (axis >= shape.length) continue;
    const kind = choice.kinds[axis]!;
    if (kind === 'repeat') continue;
    const step = kind === 'step' ? 2 : 1;
    strides[axis] = length * step;
    length *= Math.max(1, shape[axis]! * step);
    if (kind === 'flip') {
      offset += (shape[axis]! - 1) * strides[axis]!;
      strides[axis] = -strides[axis]!;
    }
  }
  return { input: { dtype, strides, offset }, data: randomData(dtype, length + 3, choice.seed) };
};
export const shapes = fc
  .array(fc.oneof(fc.integer({ min: 1, max: 5 }), fc.constantFrom(16, 17, 31, 67)), { maxLength: 4 })
  .filter((s) => size(s) < 20000);
