/** gather and scatterAdd: rows of a table by number. */
import { bytesOf, type DType, isStored } from '../../../ir/dtype.ts';
import type { Attrs } from '../../../ir/tensor.ts';
import { sizeOf } from '../../../ir/view.ts';
import type { ScatterAttrs } from '../../../ops/gather.ts';
import { call, f32x4, i32, i32x4, type Local, memoryCopy, memoryFill } from '../assembler/assemble.ts';
import { type KernelCode, kernel, nothing, type WasmKernel, words } from '../kernel.ts';
import { alongRow } from '../loops/rows.ts';
import { cutUnits, unitNames } from '../loops/walk.ts';

const gatherWords = words([...unitNames, 'table', 'ids', 'y', 'rows', 'rowBytes', 'outside']);

/** y[i] = table[ids[i]], zeros where ids[i] is not a row; a unit is some rows, `copy` copies one */
const rowsById = (
  name: string,
  copy: (code: KernelCode<string>, from: Local<'i32'>, to: Local<'i32'>, bytes: Local<'i32'>) => void,
) =>
  kernel(name, gatherWords, (code) => {
    const { f, start, end, read } = code;
    const bytes = f.let(read('rowBytes'));
    const i = f.let(i32.mul(start, read('unit')));
    const last = f.let(i32.mul(end, read('unit')));
    f.if(i32.gt_u(last, read('items')), () => f.set(last, read('items')));
    f.while(i32.lt_u(i, last), () => {
      const id = f.let(i32.load(i32.add(read('ids'), i32.shl(i, 2))));
      const to = f.let(i32.add(read('y'), i32.mul(i, bytes)));
      // unsigned: negative ids are beyond the table too
      f.if(
        i32.lt_u(id, read('rows')),
        () => copy(code as KernelCode<string>, f.let(i32.add(read('table'), i32.mul(id, bytes))), to, bytes),
        () => f.emit(memoryFill(to, 0, bytes)),
      );
      f.inc(i, 1);
    });
  });
const gatherWide = rowsById('gather rows', ({ f, m }, from, to, bytes) =>
  alongRow(f, m, 1, i32.shr_u(bytes, 2), [from, to], (v) => f.emit(v.store(to, v.load(from)))),
);
/** rows of any number of bytes (half floats), which may lie outside */
const gatherHalves = rowsById('gather rows of halves', ({ f, fetch, read }, from, to, bytes) =>
  f.if(
    read('outside'),
    () => f.emit(call(fetch, [from, to, bytes])),
    () => f.emit(memoryCopy(to, from, bytes)),
  ),
);

const gather: WasmKernel<Attrs> = {
  strided: [],
  plan: ({ inputs: [x, ids], outputs: [y] }) => {
    const [rows, ...rest] = x!.view.shape as [number, ...number[]];
    const [count, width] = [sizeOf(ids!.view.shape), sizeOf(rest)];
    if (count * width === 0) return nothing;
    const rowBytes = bytesOf(x!.dtype, width);
    const { grid, ...unit } = cutUnits(count, rowBytes / 4 + 20);
    const places = { table: x!.at, ids: ids!.at, y: y!.at };
    const values = { ...unit, ...places, rows, rowBytes, outside: x!.outside ? 1 : 0 };
    const kernel = isStored(x!.dtype) ? gatherHalves : gatherWide;
    return { bytes: 0, commands: [kernel.command(values, grid)] };
  },
};

const scatterWords = words(['g ids y rows width count strip']);
/**
 * y[ids[i]] += g[i], i in order: the same bits every time. A unit is a strip of columns, which it clears first and which no
 * other unit touches.
 */
const scatterKernel = (dtype: DType) => {
  const float = dtype === 'f32';
  const add = float ? f32x4.add : i32x4.add;
  return kernel(`scatterAdd ${float ? 'f32' : 'integers'}`, scatterWords, ({ f, m, start, end, read }) => {
    const width = f.let(read('width'));
    const bytes = f.let(i32.shl(width, 2));
    const first = f.let(i32.mul(start, read('strip')));
    const length = f.let(i32.mul(end, read('strip')));
    f.if(i32.gt_u(length, width), () => f.set(length, width));
    f.set(length, i32.sub(length, first));
    const base = f.let(i32.add(read('y'), i32.shl(first, 2)));
    const i = f.local('i32');
    f.for(i, 0, read('rows'), 1, () => f.emit(memoryFill(i32.add(base, i32.mul(i, bytes)), 0, i32.shl(length, 2))));
    const from = f.let(i32.add(read('g'), i32.shl(first, 2)));
    f.for(i, 0, read('count'), 1, () => {
      const id = f.let(i32.load(i32.add(read('ids'), i32.shl(i, 2))));
      f.if(i32.lt_u(id, read('rows')), () => {
        const x = f.let(from);
        const y = f.let(i32.add(base, i32.mul(id, bytes)));
        alongRow(f, m, 1, length, [x, y], (v) => f.emit(v.store(y, add(v.load(y), v.load(x)))));
      });
      f.inc(from, bytes);
    });
  });
};

/** columns in a unit of scatterAdd: whole cache lines */
const STRIP = 64;
/** Cost: y once, g once. */
const scatterAdd: WasmKernel<ScatterAttrs> = {
  strided: [],
  plan: ({ inputs: [g, ids], outputs: [y], attrs: { rows } }) => {
    const count = sizeOf(ids!.view.shape);
    const width = sizeOf(y!.view.shape.slice(1));
    if (rows * width === 0) return nothing;
    const values = { g: g!.at, ids: ids!.at, y: y!.at, rows, width, count, strip: STRIP };
    return { bytes: 0, commands: [scatterKernel(g!.dtype).command(values, Math.ceil(width / STRIP))] };
  },
};
export const gatherKernels = { gather, scatterAdd };
