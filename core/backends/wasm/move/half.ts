/** fromHalf: stored half floats as f32. Limited by memory: two bytes in, four out, some 12 instructions for four values. */

import type { Attrs } from '../../../ir/tensor.ts';
import { isContiguous, sizeOf, type View } from '../../../ir/view.ts';
import {
  assembler,
  call,
  type Expr,
  type FunctionBuilder,
  f32,
  f32x4,
  i32,
  i32x4,
  v128,
} from '../assembler/assemble.ts';
import type { Placed, WasmKernel } from '../kernel.ts';
import {
  cutUnits,
  type KernelSource,
  unitNames,
  type WalkAxis,
  walkNames,
  walkUnits,
  walkWords,
  words,
} from '../loops/walk.ts';
import { ensure, SERIAL_WORK } from '../product/units.ts';
import { fetchCommand, importFetch } from './fetch.ts';

const HALF_BYTES = 2;
/** values in one unit of the contiguous kernel: fetched, they stay in the first-level cache */
const BLOCK = 8192;
/** difference of the exponents' biases, in place */
const BIAS = (127 - 15) << 23;
const INFINITE = 31 << 23;

/**
 * Four half patterns in 32-bit lanes → four f32. Exponent and fraction move into place and the bias is corrected; ∞ and NaN
 * need that twice. Subnormal halves get the exponent of the smallest normal half, whose value is then taken off.
 */
export const halfToFloat = (f: FunctionBuilder, halves: Expr<'v128'>): Expr<'v128'> => {
  const h = f.let(halves);
  const m = f.let(i32x4.shl(v128.and(h, i32x4.splat(0x7fff)), 13));
  const finite = i32x4.add(m, i32x4.splat(BIAS));
  const normal = i32x4.add(finite, v128.and(i32x4.ge_u(m, i32x4.splat(INFINITE)), i32x4.splat(BIAS)));
  const subnormal = f32x4.sub(i32x4.add(m, i32x4.splat(BIAS + (1 << 23))), 2 ** -14);
  const magnitude = v128.bitselect(subnormal, normal, i32x4.lt_u(m, i32x4.splat(1 << 23)));
  return v128.or(magnitude, i32x4.shl(v128.and(h, i32x4.splat(0x8000)), 16));
};
/** the half at an address as f32 */
const oneHalf = (f: FunctionBuilder, address: Expr<'i32'>): Expr<'f32'> =>
  f32x4.extract_lane(halfToFloat(f, i32x4.splat(i32.load16_u(address))), 0);

const rowWords = words(['x', 'y', 'count', 'outside']);
/** y[i] = f32(x[i]), both without gaps; a unit is a block, which is fetched into scratch memory when x lies outside */
const rowModule = (): Uint8Array<ArrayBuffer> => {
  const m = assembler();
  const fetch = importFetch(m);
  m.kernel('fromHalf', (f, { args, start, end, scratch }) => {
    const w = Object.fromEntries(['x', 'y', 'count', 'outside'].map((n) => [n, f.let(rowWords.read(args, n))]));
    const u = f.local('i32');
    f.for(u, start, end, 1, () => {
      const first = f.let(i32.mul(u, BLOCK));
      const left = f.let(i32.sub(w.count!, first));
      f.if(i32.gt_u(left, BLOCK), () => f.set(left, BLOCK));
      const x = f.let(i32.add(w.x!, i32.shl(first, 1)));
      f.if(w.outside!, () => {
        f.emit(call(fetch, [x, scratch, i32.shl(left, 1)]));
        f.set(x, scratch);
      });
      const y = f.let(i32.add(w.y!, i32.shl(first, 2)));
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
  return m.bytes();
};

const viewWords = (rank: number) => words([...unitNames, 'x', 'y', ...walkNames('w', rank, ['x', 'y'])]);
/** the same through any strides, one value at a time */
const viewKernel = (rank: number): KernelSource => ({
  name: `fromHalf of a view, ${rank} axes`,
  emit: (m) => {
    const w = viewWords(rank);
    m.kernel(`fromHalf of a view, ${rank} axes`, (f, params) => {
      const read = (name: string): Expr<'i32'> => w.read(params.args, name);
      const pointers = { x: f.let(read('x')), y: f.let(read('y')) };
      walkUnits(f, read, params, 'w', rank, pointers, () => f.emit(f32.store(pointers.y, oneHalf(f, pointers.x))));
    });
  },
});

/** first and last element a view reads */
const extent = ({ shape, strides, offset }: View): readonly [number, number] => {
  const ends = shape.map((size, i) => (size - 1) * strides[i]!);
  const sum = (of: (end: number) => number): number => ends.reduce((n, end) => n + of(end), offset);
  return [sum((end) => Math.min(0, end)), sum((end) => Math.max(0, end))];
};
/** bytes inside for a view whose elements lie apart, outside */
const fetchedBytes = ({ view, outside }: Placed): number => {
  if (!outside || isContiguous(view) || sizeOf(view.shape) === 0) return 0;
  const [first, last] = extent(view);
  return (last - first + 1) * HALF_BYTES;
};

const fromHalf: WasmKernel<Attrs> = {
  strided: [true],
  workspace: ({ inputs: [x] }) => fetchedBytes(x!),
  work: ({ machine, inputs: [x], outputs: [y], workspace }) => {
    const { view, address, outside } = x!;
    const { shape, strides, offset } = view;
    const count = sizeOf(shape);
    if (count === 0) return { commands: [] };
    if (isContiguous(view)) {
      const args = { x: address + offset * HALF_BYTES, y: y!.address, count, outside: outside ? 1 : 0 };
      const grid = Math.ceil(count / BLOCK);
      return {
        commands: [
          {
            kernel: ensure(machine, 'fromHalf', rowModule),
            args: rowWords.pack(args),
            grid,
            ...(count * 4 < SERIAL_WORK && { chunk: grid }),
          },
        ],
      };
    }
    const first = extent(view)[0];
    const fetched = fetchedBytes(x!);
    const from = outside ? workspace + (offset - first) * HALF_BYTES : address + offset * HALF_BYTES;
    const fetching = outside ? [fetchCommand(machine, address + first * HALF_BYTES, workspace, fetched)] : [];
    const rank = shape.length;
    const axes = shape.map((size, i): WalkAxis => {
      const step = strides[i]! * HALF_BYTES;
      return { size, strides: { x: step, y: y!.view.strides[i]! * 4 } };
    });
    const { grid, ...unit } = cutUnits(count, 20);
    const kernel = viewKernel(rank);
    const args = viewWords(rank).pack({ ...unit, x: from, y: y!.address, ...walkWords('w', axes, ['x', 'y']) });
    return { commands: [...fetching, { kernel: kernel.name, args, grid }], kernels: [kernel] };
  },
};
export const halfKernels = { fromHalf };
