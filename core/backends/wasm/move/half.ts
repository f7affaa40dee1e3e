/** fromHalf: stored half floats as f32. Limited by memory: two bytes in, four out, some 12 instructions for four values. */

import type { Attrs } from '../../../ir/tensor.ts';
import { isContiguous, sizeOf, type View } from '../../../ir/view.ts';
import { call, f32, i32, i32x4, v128 } from '../assembler/assemble.ts';
import { type Address, kernel, nothing, type Placed, type Plan, plus, type WasmKernel, words } from '../kernel.ts';
import { halfToFloat, oneHalf } from '../loops/halves.ts';
import { cutUnits, readAll, unitNames, type WalkAxis, walkNames, walkUnits, walkWords } from '../loops/walk.ts';
import { fetchCommand } from '../product/fetch.ts';
import { SERIAL_WORK } from '../product/units.ts';

const HALF_BYTES = 2;
/** values in one unit of the contiguous kernel: fetched, they stay in the first-level cache */
const BLOCK = 8192;

const blockWords = words(['x y count outside']);
/** y[i] = f32(x[i]), both without gaps; a unit is a block, which is fetched into scratch memory when x lies outside */
const widenBlocks = kernel('fromHalf', blockWords, ({ f, fetch, start, end, scratch, locals }) => {
  const w = locals();
  const u = f.local('i32');
  f.for(u, start, end, 1, () => {
    const first = f.let(i32.mul(u, BLOCK));
    const left = f.let(i32.sub(w.count, first));
    f.if(i32.gt_u(left, BLOCK), () => f.set(left, BLOCK));
    const x = f.let(i32.add(w.x, i32.shl(first, 1)));
    f.if(w.outside, () => {
      f.emit(call(fetch, [x, scratch, i32.shl(left, 1)]));
      f.set(x, scratch);
    });
    const y = f.let(i32.add(w.y, i32.shl(first, 2)));
    f.while(i32.ge_u(left, 8), () => {
      const eight = f.let(v128.load(x));
      f.emit(v128.store(y, halfToFloat(f, i32x4.extend_low_i16x8_u(eight))));
      f.emit(v128.store(y, halfToFloat(f, i32x4.extend_high_i16x8_u(eight)), 16));
      f.inc(x, 16);
      f.inc(y, 32);
      f.inc(left, -8);
    });
    f.while(left, () => {
      f.emit(f32.store(y, oneHalf(f, x)));
      f.inc(x, 2);
      f.inc(y, 4);
      f.inc(left, -1);
    });
  });
});

/** the same through any strides, one value at a time */
const widenView = (rank: number) => {
  const layout = words([...unitNames, 'x', 'y', ...walkNames('w', rank, ['x', 'y'])]);
  return kernel(`fromHalf of a view, ${rank} axes`, layout, (code) => {
    const { x, y } = readAll(code, ['x', 'y']);
    walkUnits(code, 'w', rank, { x, y }, () => code.f.emit(f32.store(y, oneHalf(code.f, x))));
  });
};

/** first and last element a view reads, from its own first on */
const extent = ({ shape, strides }: View): readonly [number, number] => {
  const ends = shape.map((size, i) => (size - 1) * strides[i]!);
  const sum = (of: (end: number) => number): number => ends.reduce((n, end) => n + of(end), 0);
  return [sum((end) => Math.min(0, end)), sum((end) => Math.max(0, end))];
};
/** a view whose elements lie apart */
const widenApart = (x: Placed, y: Placed, workspace: Address): Plan => {
  const { shape, strides } = x.view;
  const [first, last] = extent(x.view);
  const bytes = x.outside ? (last - first + 1) * HALF_BYTES : 0;
  // outside, all it spans is fetched first
  const from = x.outside ? plus(workspace, -first * HALF_BYTES) : x.at;
  const axes = shape.map((size, i): WalkAxis => {
    const step = strides[i]! * HALF_BYTES;
    return { size, strides: { x: step, y: y.view.strides[i]! * 4 } };
  });
  const { grid, ...unit } = cutUnits(sizeOf(shape), 20);
  const values = { ...unit, x: from, y: y.at, ...walkWords('w', axes, ['x', 'y']) };
  return {
    bytes,
    commands: [
      ...(x.outside ? [fetchCommand(plus(x.at, first * HALF_BYTES), workspace, bytes)] : []),
      widenView(shape.length).command(values, grid),
    ],
  };
};

const fromHalf: WasmKernel<Attrs> = {
  strided: [true],
  plan: ({ inputs, outputs, workspace }) => {
    const [x, y] = [inputs[0]!, outputs[0]!];
    const count = sizeOf(x.view.shape);
    if (count === 0) return nothing;
    if (!isContiguous(x.view)) return widenApart(x, y, workspace);
    const values = { x: x.at, y: y.at, count, outside: x.outside ? 1 : 0 };
    return { bytes: 0, commands: [widenBlocks.command(values, Math.ceil(count / BLOCK), count * 4 < SERIAL_WORK)] };
  },
};
export const halfKernels = { fromHalf };
