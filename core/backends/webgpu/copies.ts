/**
 * Ops that move words without computing: gather, pad, concat; and the two that are nearly so, scatterAdd and randomBits.
 * Every dtype is 32 bits wide in memory, so one kernel serves all of them as u32.
 */
import type { DType } from '../../ir/dtype.ts';
import { rowMajor, sizeOf, type View } from '../../ir/view.ts';
import type { PadAttrs } from '../../ops/slice.ts';
import {
  type Binding,
  ceilDiv,
  createParams,
  floatBits,
  input,
  type Kernel,
  makeKernel,
  output,
  overIndices,
  type Params,
  type Recipe,
} from './kernel.ts';
import { typeName } from './math.ts';
import { printCoordinates } from './printWgsl.ts';
import type { AdapterClass } from './target.ts';

export const word = (name: string) => ({ name, type: 'u32' });

/** A kernel that runs `body` for every `i` in [0, count). */
export const forEach = (
  name: string,
  adapter: AdapterClass,
  count: number,
  params: Params,
  reads: readonly Binding[],
  output: Binding,
  body: string,
): Kernel => {
  const { code, groups } = overIndices(adapter, count, params, body);
  return makeKernel(name, params, reads, [output], groups, code);
};

/** y[…, i, …] = x[…, i, …] where x and y are views of two buffers with the same shape. */
const copyInto = (from: View, to: View, adapter: AdapterClass): Kernel => {
  const p = createParams();
  const axes = from.shape.flatMap((n, a) => (n === 1 ? [] : [a]));
  const names = axes.map((_, i) => `c${i}`);
  const coordinates = printCoordinates(
    'i',
    names,
    axes.map((a) => from.shape[a]!),
    p,
  );
  const at = (v: View) => [p.word(v.offset), ...axes.map((a, i) => `c${i} * ${p.word(v.strides[a]!)}`)].join(' + ');
  const body = `${coordinates}\n    y[${at(to)}] = x[${at(from)}];`;
  return forEach('copy', adapter, sizeOf(from.shape), p, [word('x')], word('y'), body);
};

/** Matrices [count, rows, cols] whose columns are neighbours in memory; strides and offset are multiples of 4. */
export interface Matrices {
  readonly count: number;
  readonly rows: number;
  readonly cols: number;
  readonly stride: number;
  readonly rowStride: number;
  readonly offset: number;
}
/** y[g, c, r] = x[g, r, c], in blocks of 4×4; rows and cols are multiples of 4. Cost: one read and one write. */
export const transposeKernel = (m: Matrices, adapter: AdapterClass): Kernel => {
  const p = createParams();
  const [blockRows, blockCols] = [p.word(m.rows / 4), p.word(m.cols / 4)];
  const rowStride = p.word(m.rowStride / 4);
  const vec = (name: string) => ({ name, type: 'vec4<f32>' });
  const body = `let r = i % ${blockRows}; let c = i / ${blockRows} % ${blockCols}; let g = i / (${blockRows} * ${blockCols});
    let at = ${p.word(m.offset / 4)} + g * ${p.word(m.stride / 4)} + 4u * r * ${rowStride} + c;
    let a = x[at]; let b = x[at + ${rowStride}]; let d = x[at + 2u * ${rowStride}]; let e = x[at + 3u * ${rowStride}];
    let to = (g * ${blockCols} + c) * 4u * ${blockRows} + r;
    ${['x', 'y', 'z', 'w'].map((k, n) => `y[to + ${n}u * ${blockRows}] = vec4(a.${k}, b.${k}, d.${k}, e.${k});`).join('\n    ')}`;
  return forEach('transpose', adapter, (m.count * m.rows * m.cols) / 16, p, [vec('x')], vec('y'), body);
};

const fill = (count: number, bits: number, adapter: AdapterClass): Kernel => {
  const p = createParams();
  return forEach('fill', adapter, count, p, [], word('y'), `y[i] = ${p.word(bits)};`);
};

/** concat: each operand is copied to its place. Cost: one read and one write of everything. */
export const concatRecipe = (inputs: readonly View[], axis: number, adapter: AdapterClass): Recipe => {
  const shape = inputs[0]!.shape.map((n, a) => (a === axis ? inputs.reduce((s, x) => s + x.shape[a]!, 0) : n));
  const strides = rowMajor(shape);
  let start = 0;
  const launches = inputs.map((x, index) => {
    const to = { shape: x.shape, strides, offset: start * strides[axis]! };
    start += x.shape[axis]!;
    return { kernel: copyInto(x, to, adapter), operands: [input(index), output(0)] };
  });
  return { launches, scratch: [] };
};

/** pad: the result is filled, then the operand copied to its place. */
export const padRecipe = (
  x: View,
  shape: readonly number[],
  a: PadAttrs,
  bits: number,
  adapter: AdapterClass,
): Recipe => {
  const strides = rowMajor(shape);
  const to = {
    shape: x.shape,
    strides: strides.map((s, i) => s * (a.interior[i]! + 1)),
    offset: a.low.reduce((o, low, i) => o + low * strides[i]!, 0),
  };
  return {
    launches: [
      { kernel: fill(sizeOf(shape), bits, adapter), operands: [output(0)] },
      { kernel: copyInto(x, to, adapter), operands: [input(0), output(0)] },
    ],
    scratch: [],
  };
};
/** The 32-bit word that stands for `value` in a dtype. */
export const wordOf = (value: number, float: boolean): number => (float ? floatBits(value) : value >>> 0);

/** gather: rows of a contiguous table; ids outside it read zeros. `width` words per row. */
export const gatherKernel = (rows: number, width: number, ids: number, adapter: AdapterClass): Kernel => {
  const p = createParams();
  const w = p.word(width);
  const body = `let row = ids[i / ${w}];
    y[i] = select(0u, x[min(row, ${p.word(Math.max(rows, 1) - 1)}) * ${w} + i % ${w}], row < ${p.word(rows)});`;
  return forEach('gather', adapter, ids * width, p, [word('x'), word('ids')], word('y'), body);
};

/** scatterAdd: every result looks through all ids in order, so the sum has the same bits every time. Integers wrap. */
export const scatterAddKernel = (
  dtype: DType,
  rows: number,
  width: number,
  ids: number,
  adapter: AdapterClass,
): Kernel => {
  const p = createParams();
  const w = p.word(width);
  const type = typeName(dtype, 1);
  const number = (name: string) => ({ name, type });
  const body = `let row = i / ${w}; let column = i % ${w};
    var sum = ${type}(0);
    for (var k = 0u; k < ${p.word(ids)}; k++) { if (ids[k] == row) { sum += g[k * ${w} + column]; } }
    y[i] = sum;`;
  return forEach('scatterAdd', adapter, rows * width, p, [number('g'), word('ids')], number('y'), body);
};

const rotations = [13, 15, 26, 6, 17, 29, 16, 24];
/** randomBits: Threefry-2x32-20, one thread per pair of words. */
export const randomBitsKernel = (keys: number, count: number, stream: number, adapter: AdapterClass): Kernel => {
  const p = createParams();
  const pairs = p.word(ceilDiv(count, 2));
  const total = p.word(count);
  const rounds = Array.from({ length: 20 }, (_, r) => {
    const turn = rotations[r % 8]!;
    const mix = `x += y; y = ((y << ${turn}u) | (y >> ${32 - turn}u)) ^ x;`;
    const s = (r + 1) / 4;
    return Number.isInteger(s) ? `${mix} x += k${s % 3}; y += k${(s + 1) % 3} + ${s}u;` : mix;
  });
  const body = `let row = i / ${pairs}; let block = i % ${pairs};
    let k0 = key[2u * row]; let k1 = key[2u * row + 1u]; let k2 = k0 ^ k1 ^ 0x1bd11bdau;
    var x = offset[row] + block + k0; var y = ${p.word(stream)} + k1;
    ${rounds.join('\n    ')}
    bits[row * ${total} + 2u * block] = x;
    if (2u * block + 1u < ${total}) { bits[row * ${total} + 2u * block + 1u] = y; }`;
  return forEach('randomBits', adapter, keys * ceilDiv(count, 2), p, [word('key'), word('offset')], word('bits'), body);
};
