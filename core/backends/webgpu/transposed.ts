/**
 * Contractions whose right operand lies the wrong way round in memory (x·Wᵀ, the input gradient of a convolution): a copy
 * with rows and columns exchanged costs little beside the product and lets it read four columns at once.
 */
import { rowMajor, sizeOf, type View } from '../../ir/view.ts';
import { type ConvProblem, printConv } from './conv.ts';
import { type Matrices, transposeKernel } from './copies.ts';
import { printDot } from './dot.ts';
import type { DotProblem } from './dotPlan.ts';
import { input, type Kernel, MAX_GROUPS, output, type Recipe, scratch, single } from './kernel.ts';
import { printReduce } from './printReduce.ts';
import type { AdapterClass } from './target.ts';

/** Rows of the product from which on the copy pays. */
const WORTH = 32;

const withCopy = (m: Matrices, adapter: AdapterClass, product: Kernel): Recipe => ({
  launches: [
    { kernel: transposeKernel(m, adapter), operands: [input(1), scratch] },
    { kernel: product, operands: [input(0), scratch, output(0)] },
  ],
  scratch: [4 * m.count * m.rows * m.cols],
});

/** b[g,k,n] as matrices [g, n, k] with k in memory order, when it is stored that way. */
const storedByColumns = ({ shape, strides, offset }: View): Matrices | undefined => {
  const [g, k, n] = shape as readonly [number, number, number];
  const [bg, bk, bn] = strides as readonly [number, number, number];
  const shared = g === 1 || bg === 0;
  const fits = bk === 1 && [k, n, bn, offset, shared ? 0 : bg].every((x) => x % 4 === 0);
  return fits ? { count: shared ? 1 : g, rows: n, cols: k, stride: shared ? 0 : bg, rowStride: bn, offset } : undefined;
};

/** More products than a launch has groups on an axis: a sum of products like any other. */
const manySmall = ({ a, b }: DotProblem, adapter: AdapterClass): Recipe => {
  const [g, m, k] = a.shape as readonly [number, number, number];
  const [ag, am, ak] = a.strides as readonly [number, number, number];
  const [bg, bk, bn] = b.strides as readonly [number, number, number];
  const load = (input: number) => ({ kind: 'load', input, dtype: 'f32' }) as const;
  return printReduce(
    {
      shape: [g, m, b.shape[2]!, k],
      inputs: [
        { dtype: 'f32', strides: [ag, am, 0, ak], offset: a.offset },
        { dtype: 'f32', strides: [bg, 0, bn, bk], offset: b.offset },
      ],
      steps: [load(0), load(1), { kind: 'call', fn: 'mul', args: [0, 1], dtype: 'f32' }],
      outputs: [2],
      reduce: { op: 'sum', axes: [3] },
    },
    adapter,
  );
};

/** GPUs transpose on the way into workgroup memory; software drivers read columns faster from a copy. */
export const dotRecipe = ({ a, b }: DotProblem, adapter: AdapterClass): Recipe => {
  if (a.shape[0]! > MAX_GROUPS) return manySmall({ a, b }, adapter);
  const m = adapter === 'cpu' && a.shape[1]! >= WORTH ? storedByColumns(b) : undefined;
  if (!m) return single(printDot({ a, b }, adapter));
  const strides = [m.count === 1 ? 0 : m.rows * m.cols, m.rows, 1];
  return withCopy(m, adapter, printDot({ a, b: { shape: b.shape, strides, offset: 0 } }, adapter));
};

/** convInput sums over o while its columns are c: w[i,j,c,o] → w[i,j,o,c]. */
export const convInputRecipe = (problem: ConvProblem, adapter: AdapterClass): Recipe => {
  const { w } = problem;
  const [kh, kw, c, o] = w.shape as readonly [number, number, number, number];
  const dense = rowMajor(w.shape).every((s, i) => w.shape[i] === 1 || s === w.strides[i]);
  if (!dense || [c, o, w.offset].some((x) => x % 4 !== 0) || sizeOf(problem.out) < WORTH * c)
    return single(printConv(problem, adapter));
  const m = { count: kh * kw, rows: c, cols: o, stride: c * o, rowStride: o, offset: w.offset };
  const turned: View = { shape: w.shape, strides: [kw * c * o, c * o, 1, c], offset: 0 };
  return withCopy(m, adapter, printConv({ ...problem, w: turned }, adapter));
};
