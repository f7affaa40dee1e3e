/** gather and scatterAdd: rows of a table by number. */
import type { DType } from '../../../ir/dtype.ts';
import type { Attrs } from '../../../ir/tensor.ts';
import { sizeOf } from '../../../ir/view.ts';
import type { ScatterAttrs } from '../../../ops/gather.ts';
import {
  type Assembler,
  assembler,
  call,
  type Expr,
  f32x4,
  i32,
  i32x4,
  memoryCopy,
  memoryFill,
} from '../assembler/assemble.ts';
import { prepareTails } from '../cluster/scalarCode.ts';
import { at, type Call, type WasmKernel } from '../kernel.ts';
import { alongRow } from '../loops/rows.ts';
import { cutUnits, type KernelSource, unitNames, type Work, words } from '../loops/walk.ts';
import type { Command } from '../machine/machine.ts';
import { ensure } from '../product/units.ts';
import { importFetch } from './fetch.ts';

const gatherWords = words([...unitNames, 'table', 'ids', 'y', 'rows', 'width']);
const scatterWords = words(['g', 'ids', 'y', 'rows', 'width', 'count', 'strip']);

/** y[i] = table[ids[i]], zeros where ids[i] is not a row; a unit is some rows */
const gatherKernel: KernelSource = {
  name: 'gather rows',
  emit: (m: Assembler) => {
    prepareTails(m);
    m.kernel('gather rows', (f, { args, start, end }) => {
      const read = (name: string): Expr<'i32'> => gatherWords.read(args, name);
      const width = f.let(read('width'));
      const bytes = f.let(i32.shl(width, 2));
      const i = f.let(i32.mul(start, read('unit')));
      const last = f.let(i32.mul(end, read('unit')));
      f.if(i32.gt_u(last, read('items')), () => f.set(last, read('items')));
      f.while(i32.lt_u(i, last), () => {
        const id = f.let(i32.load(i32.add(read('ids'), i32.shl(i, 2))));
        const to = f.let(i32.add(read('y'), i32.mul(i, bytes)));
        // unsigned: negative ids are beyond the table too
        f.if(
          i32.lt_u(id, read('rows')),
          () => {
            const from = f.let(i32.add(read('table'), i32.mul(id, bytes)));
            alongRow(f, m, width, [from, to], (v) => f.emit(v.store(to, v.load(from))));
          },
          () => f.emit(memoryFill(to, 0, bytes)),
        );
        f.inc(i, 1);
      });
    });
  },
};

const halfWords = words([...unitNames, 'table', 'ids', 'y', 'rows', 'bytes', 'outside']);
/** the same for rows of any number of bytes (half floats), which may lie outside */
const halfModule = (): Uint8Array<ArrayBuffer> => {
  const m = assembler();
  const fetch = importFetch(m);
  m.kernel('gather rows of halves', (f, { args, start, end }) => {
    const read = (name: string): Expr<'i32'> => halfWords.read(args, name);
    const bytes = f.let(read('bytes'));
    const i = f.let(i32.mul(start, read('unit')));
    const last = f.let(i32.mul(end, read('unit')));
    f.if(i32.gt_u(last, read('items')), () => f.set(last, read('items')));
    f.while(i32.lt_u(i, last), () => {
      const id = f.let(i32.load(i32.add(read('ids'), i32.shl(i, 2))));
      const to = f.let(i32.add(read('y'), i32.mul(i, bytes)));
      f.if(
        i32.lt_u(id, read('rows')),
        () => {
          const from = f.let(i32.add(read('table'), i32.mul(id, bytes)));
          f.if(
            read('outside'),
            () => f.emit(call(fetch, [from, to, bytes])),
            () => f.emit(memoryCopy(to, from, bytes)),
          );
        },
        () => f.emit(memoryFill(to, 0, bytes)),
      );
      f.inc(i, 1);
    });
  });
  return m.bytes();
};

/**
 * y[ids[i]] += g[i], i in order: the same bits every time. A unit is a strip of columns, which it clears first and which no
 * other unit touches.
 */
const scatterKernel = (dtype: DType): KernelSource => {
  const float = dtype === 'f32';
  const name = `scatterAdd ${float ? 'f32' : 'integers'}`;
  const add = float ? f32x4.add : i32x4.add;
  return {
    name,
    emit: (m) => {
      prepareTails(m);
      m.kernel(name, (f, { args, start, end }) => {
        const read = (word: string): Expr<'i32'> => scatterWords.read(args, word);
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
            alongRow(f, m, length, [x, y], (v) => f.emit(v.store(y, add(v.load(y), v.load(x)))));
          });
          f.inc(from, bytes);
        });
      });
    },
  };
};

export interface GatherDescription {
  /** byte addresses; rows lie one after the other, all words of 4 bytes */
  readonly table: number;
  readonly ids: number;
  readonly y: number;
  /** rows of the table */
  readonly rows: number;
  /** words in a row */
  readonly width: number;
  /** number of ids */
  readonly count: number;
}
/** y[count, width] = table[ids] */
export const gatherWork = (g: GatherDescription): Work => {
  if (g.count * g.width === 0) return { commands: [], kernels: [] };
  const { grid, ...unit } = cutUnits(g.count, g.width + 20);
  const { table, ids, y, rows, width } = g;
  return {
    commands: [{ kernel: gatherKernel.name, args: gatherWords.pack({ ...unit, table, ids, y, rows, width }), grid }],
    kernels: [gatherKernel],
  };
};

/** columns in a unit of scatterAdd: whole cache lines */
const STRIP = 64;
/** y[rows, width] = Σ g[i] over ids[i] = row. Cost: y once, g once. */
export const scatterWork = (
  s: { g: number; ids: number; y: number; rows: number; width: number; count: number },
  dtype: DType,
): Work => {
  if (s.rows * s.width === 0) return { commands: [], kernels: [] };
  const kernel = scatterKernel(dtype);
  const args = scatterWords.pack({ ...s, strip: STRIP });
  return { commands: [{ kernel: kernel.name, args, grid: Math.ceil(s.width / STRIP) }], kernels: [kernel] };
};

/** y[count, bytes] = table[ids] for rows of `width` half floats */
const gatherHalves = ({ machine, inputs: [x, ids], outputs: [y] }: Call): Command[] => {
  const [rows, ...rest] = x!.view.shape as [number, ...number[]];
  const [count, width] = [sizeOf(ids!.view.shape), sizeOf(rest)];
  if (count * width === 0) return [];
  const { grid, ...unit } = cutUnits(count, width / 2 + 20);
  const args = {
    ...unit,
    table: x!.address + x!.view.offset * 2,
    ids: at(ids!),
    y: y!.address,
    rows,
    bytes: width * 2,
    outside: x!.outside ? 1 : 0,
  };
  return [{ kernel: ensure(machine, 'gather rows of halves', halfModule), args: halfWords.pack(args), grid }];
};

const gather: WasmKernel<Attrs> = {
  strided: [],
  work: (call) => {
    const {
      inputs: [x, ids],
      outputs: [y],
    } = call;
    if (x!.dtype === 'f16') return { commands: gatherHalves(call) };
    const [rows, ...rest] = x!.view.shape as [number, ...number[]];
    return gatherWork({
      table: at(x!),
      ids: at(ids!),
      y: y!.address,
      rows,
      width: sizeOf(rest),
      count: sizeOf(ids!.view.shape),
    });
  },
};
const scatterAdd: WasmKernel<ScatterAttrs> = {
  strided: [],
  work: ({ inputs: [g, ids], outputs: [y], attrs }) => {
    const count = sizeOf(ids!.view.shape);
    const width = sizeOf(y!.view.shape.slice(1));
    return scatterWork({ g: at(g!), ids: at(ids!), y: y!.address, rows: attrs.rows, width, count }, g!.dtype);
  },
};
export const gatherKernels = { gather, scatterAdd };
