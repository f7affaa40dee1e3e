/**
 * Clusters with a reduction. The inner loop runs along a reduced axis (`row` kernels: vector accumulators, then a sum of
 * lanes in fixed order) or along the last kept axis (`column` kernels: a strip of neighbouring results in registers).
 *
 * Long reductions are cut into segments of fixed length whose partial results a second pass combines: the bits do not
 * depend on the number of threads, and no accumulator adds up more than a few thousand numbers one by one.
 */

import { type Axis, accesses, bestInner, collapse, point } from '../../../compile/axes.ts';
import type { Cluster, ScalarStep } from '../../../compile/scalar.ts';
import type { DType } from '../../../ir/dtype.ts';
import { sizeOf } from '../../../ir/view.ts';
import { type KernelCommand, type Plan, plus, type Word } from '../kernel.ts';
import { cutUnits, type WalkAxis, walkWords } from '../loops/walk.ts';
import { movingOf } from './inner.ts';
import { coordinatesOf, mapCommands, walkAxis } from './map.ts';
import { generated } from './names.ts';
import { emitColumns, STRIP } from './reduceColumns.ts';
import { emitRows, type ReduceStructure, reduceWords } from './reduceRows.ts';
import { programKey, programPrice, programWords } from './scalarCode.ts';

/** longest stretch of an inner reduced axis in one item */
const PIECE = 4096;
/** numbers reduced by one segment of a row kernel, rows by one of a column kernel */
const ROW_SEGMENT = 32768;
const COLUMN_SEGMENT = 2048;

interface Passes {
  readonly kind: 'rows' | 'columns';
  readonly inner: Axis;
  readonly kept: readonly Axis[];
  /** without the inner axis */
  readonly reduced: readonly Axis[];
  /** stretches of the inner axis: counted by the reduced walk of a row kernel, by the kept one of a column kernel */
  readonly pieces: number;
  readonly length: number;
  readonly segments: number;
  /** reduced items in a segment */
  readonly perSegment: number;
  readonly reducedItems: number;
  readonly results: number;
}

const product = (axes: readonly Axis[]): number => axes.reduce((n, a) => n * a.size, 1);

/** undefined: nothing to reduce over, every result is one value of the expression */
const passesOf = (cluster: Cluster): Passes | undefined => {
  const axes = collapse(cluster);
  const keptAll = axes.filter((a) => !a.reduced);
  const reducedAll = axes.filter((a) => a.reduced);
  if (reducedAll.length === 0) return undefined;
  const lastKept = keptAll.at(-1);
  const inner = bestInner([...(lastKept ? [lastKept] : []), ...reducedAll]);
  const kind = inner.reduced ? 'rows' : 'columns';
  const kept = keptAll.filter((a) => a !== inner);
  const reduced = reducedAll.filter((a) => a !== inner);
  const length = Math.min(inner.size, kind === 'rows' ? PIECE : STRIP);
  const pieces = Math.ceil(inner.size / length);
  const reducedItems = product(reduced) * (kind === 'rows' ? pieces : 1);
  const most = kind === 'rows' ? Math.max(1, Math.floor(ROW_SEGMENT / length)) : COLUMN_SEGMENT;
  // half as much again is not worth a second pass
  const perSegment = reducedItems <= most * 1.5 ? reducedItems : most;
  const segments = Math.ceil(reducedItems / perSegment);
  return {
    kind,
    inner,
    kept,
    reduced,
    pieces,
    length,
    segments,
    perSegment,
    reducedItems,
    results: product(keptAll),
  };
};

const resultDType = (cluster: Cluster): DType => cluster.steps[cluster.outputs[0]!]!.dtype;

/** the second pass: partial results [segments, results] → results */
const combine = (cluster: Cluster, p: Passes): Cluster => ({
  shape: [p.segments, p.results],
  inputs: [{ dtype: resultDType(cluster), strides: [p.results, 1], offset: 0 }],
  steps: [{ kind: 'load', input: 0, dtype: resultDType(cluster) }],
  outputs: [0],
  reduce: { op: cluster.reduce!.op, axes: [0] },
});

/** what an empty reduction gives */
const emptyValue = (op: 'sum' | 'max', dtype: DType): number => {
  if (op === 'sum' || dtype === 'u32' || dtype === 'bool') return 0;
  return dtype === 'f32' ? -Infinity : -0x80000000;
};

/** @throws RangeError for a sum of bools */
export const reducePlan = (cluster: Cluster, inputs: readonly Word[], output: Word, workspace: Word): Plan => {
  const { reduce, ...rest } = cluster;
  const dtype = resultDType(cluster);
  if (reduce!.op === 'sum' && dtype === 'bool') throw new RangeError('the wasm backend does not add bools: cast them');
  const results = cluster.shape.map((n, i) => (reduce!.axes.includes(i) ? 1 : n));
  if (cluster.shape.includes(0)) {
    const fill: ScalarStep = { kind: 'const', value: emptyValue(reduce!.op, dtype), dtype };
    const filled = { shape: [sizeOf(results)], inputs: [], steps: [fill], outputs: [0] };
    return { bytes: 0, commands: mapCommands(filled, [], [output]) };
  }
  const p = passesOf(cluster);
  if (!p) return { bytes: 0, commands: mapCommands(rest, inputs, [output]) };
  if (p.segments === 1) return { bytes: 0, commands: [pass(cluster, p, inputs, output)] };

  const first = pass(cluster, p, inputs, workspace);
  const partialBytes = Math.ceil((p.segments * p.results * 4) / 64) * 64;
  const second = reducePlan(combine(cluster, p), [workspace], output, plus(workspace, partialBytes));
  return { bytes: partialBytes + second.bytes, commands: [first, ...second.commands] };
};

/** one command that reduces each segment */
const pass = (cluster: Cluster, p: Passes, inputs: readonly Word[], output: Word): KernelCommand => {
  const { kind, inner, kept, reduced, pieces, length } = p;
  const axes = [...kept, ...reduced, inner];
  const access = accesses(axes, inner.size === 1 ? point(cluster.inputs.length) : inner);
  const strips = { ...walkAxis(inner, length), size: pieces };
  const segment: WalkAxis = { size: p.segments, strides: { y: p.results * 4 } };
  const keptAxes = [...kept.map((a) => walkAxis(a, 1)), segment, ...(kind === 'columns' ? [strips] : [])];
  const reducedAxes = [...reduced.map((a) => walkAxis(a, 1)), ...(kind === 'rows' ? [strips] : [])];
  const structure: ReduceStructure = {
    program: {
      steps: cluster.steps,
      dtypes: cluster.inputs.map((x) => x.dtype),
      access,
      coordinates: coordinatesOf(cluster, (i) => {
        if (inner.iota === i) return 'inner';
        const at = kept.findIndex((a) => a.iota === i);
        if (at >= 0) return { walk: 'k', axis: at };
        const r = reduced.findIndex((a) => a.iota === i);
        return r < 0 ? 'none' : { walk: 'r', axis: r };
      }),
    },
    op: cluster.reduce!.op,
    dtype: resultDType(cluster),
    step: cluster.outputs[0]!,
    keptRank: keptAxes.length,
    reducedRank: reducedAxes.length,
    segmentAxis: kept.length,
  };
  const price = programPrice(structure.program) + 1;
  const cost = Math.min(p.perSegment, p.reducedItems) * (price * Math.ceil(length / 4) + 10) + 30;
  const items = keptAxes.reduce((n, a) => n * a.size, 1);
  const { grid, ...unit } = cutUnits(items, cost);
  const { keptRank, reducedRank, segmentAxis, op, step } = structure;
  const kernel = generated(
    `${op} ${kind}`,
    cluster,
    `${programKey(structure.program)}|${[keptRank, reducedRank, segmentAxis, step].join()}`,
    () => reduceWords(structure),
    (code) => (kind === 'rows' ? emitRows : emitColumns)(code, structure),
  );
  const pointers = movingOf(structure.program);
  const values = {
    ...unit,
    perSegment: p.perSegment,
    reducedItems: p.reducedItems,
    piece: length,
    lastPiece: inner.size - (pieces - 1) * length,
    ...Object.fromEntries(cluster.inputs.map((x, i) => [`x${i}`, plus(inputs[i]!, x.offset * 4)])),
    ...Object.fromEntries(inner.strides.map((s, i) => [`x${i}.inner`, s * 4])),
    y: output,
    ...programWords(structure.program),
    ...walkWords('k', keptAxes, [...pointers, 'y']),
    ...walkWords('r', reducedAxes, pointers),
  };
  return kernel.command(values, grid);
};
