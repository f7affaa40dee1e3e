/** Clusters without reduction: rows of the output, four neighbours at a time. */

import { type Axis, accesses, collapse, point } from '../../../compile/axes.ts';
import type { Cluster } from '../../../compile/scalar.ts';
import { i32, type Local, v128 } from '../assembler/assemble.ts';
import { type KernelCode, type KernelCommand, link, type Word, words } from '../kernel.ts';
import { scatter, storeTail } from '../loops/tails.ts';
import { cutUnits, readAll, unitNames, type WalkAxis, walkNames, walkUnits, walkWords } from '../loops/walk.ts';
import { alongPiece, begin, inputNames, movingOf, pieceLength } from './inner.ts';
import { stored } from './math.ts';
import { generated } from './names.ts';
import { type Coordinate, type Program, programKey, programNames, programPrice, programWords } from './scalarCode.ts';

/** longest stretch of a row in one item */
const PIECE = 8192;
/** the same when an input is read by a stride: few enough cache lines to stay in L1 until the neighbouring row wants them */
const GATHER_PIECE = 64;
/** strides that fall on few cache sets leave room for fewer */
const ALIASED_PIECE = 8;
const aliases = (stride: number): boolean => stride % 256 === 0;

interface MapStructure {
  readonly program: Program;
  readonly rank: number;
  /** which axis of the walk counts the pieces of a row */
  readonly piece: number;
  readonly outputs: readonly number[];
  /** results are written by a stride along the inner axis */
  readonly scattered: boolean;
}

/** where results are written: `offset + Σ index[axis]·strides[axis]`, in elements */
export interface OutputView {
  readonly strides: readonly number[];
  readonly offset: number;
}

const pointersOf = (s: MapStructure): string[] => [...movingOf(s.program), 'y'];

const wordsOf = (s: MapStructure) =>
  words([
    ...unitNames,
    'piece',
    'lastPiece',
    ...inputNames(s.program),
    ...s.outputs.map((_, o) => `y${o}`),
    ...(s.scattered ? ['y.inner'] : []),
    ...programNames(s.program),
    ...walkNames('w', s.rank, pointersOf(s)),
  ]);

const emitMap = (code: KernelCode<string>, s: MapStructure): void => {
  const { f, m, read } = code;
  const begun = begin(code, s.program);
  const { program, values } = begun;
  const pointers: Record<string, Local<'i32'>> = { ...readAll(code, movingOf(program)), y: f.local('i32') };
  walkUnits(code, 'w', s.rank, pointers, (coordinates) => {
    const piece = coordinates[s.piece]!;
    const length = pieceLength(code, piece, `w${s.piece}.size`);
    values.run(1, {
      load: (i) => v128.load32_splat(pointers[`x${i}`]!),
      coordinate: (_walk, axis) => coordinates[axis]!,
    });
    const out = s.outputs.map((_, o) => f.let(i32.add(pointers.y!, read(`y${o}`))));
    const outStride = s.scattered ? f.let(read('y.inner')) : undefined;
    alongPiece(code, begun, pointers, piece, length, outStride ? [] : out, (u, left) => {
      for (const [o, step] of s.outputs.entries()) {
        const to = out[o]!;
        const value = stored(values.value(step), program.steps[step]!.dtype);
        if (!outStride) f.emit(left ? storeTail(m, to, value, left) : v128.store(to, value, 16 * u));
        else {
          f.emit(scatter(m, to, outStride, value, left ?? 4));
          if (!left) f.inc(to, i32.shl(outStride, 2));
        }
      }
    });
  });
};

/** where the coordinates of a cluster come from */
export const coordinatesOf = (
  cluster: Cluster,
  find: (clusterAxis: number) => Coordinate,
): Readonly<Record<number, Coordinate>> =>
  Object.fromEntries(cluster.steps.flatMap((s) => (s.kind === 'iota' ? [[s.axis, find(s.axis)]] : [])));

/** an axis of a cluster as one of a walk, in steps of `scale` elements */
export const walkAxis = (a: Axis, scale: number): WalkAxis => ({
  size: a.size,
  strides: { ...Object.fromEntries(a.strides.map((s, i) => [`x${i}`, s * scale * 4])), y: a.out * scale * 4 },
});

/**
 * Commands that write `outputs[o][i] = steps[cluster.outputs[o]]` at every point. Results are row-major, or lie as `view`
 * says.
 */
export const mapCommands = (
  cluster: Cluster,
  inputs: readonly Word[],
  outputs: readonly Word[],
  view?: OutputView,
): readonly KernelCommand[] =>
  cluster.shape.includes(0) ? [] : [link(makeCommand(cluster, view), [...inputs, ...outputs])];

/** with the inputs, then the outputs, as bases */
const makeCommand = (cluster: Cluster, view: OutputView | undefined): KernelCommand => {
  const axes = collapse(cluster, view?.strides);
  const inner = axes.at(-1) ?? point(cluster.inputs.length);
  const outer = axes.slice(0, -1);
  const access = accesses(axes, inner);
  const gathered = inner.strides.filter((_, i) => access[i] === 'gather');
  const longest = gathered.length === 0 ? PIECE : gathered.some(aliases) ? ALIASED_PIECE : GATHER_PIECE;
  const pieces = Math.ceil(inner.size / longest);
  const length = pieces === 1 ? inner.size : longest;
  // The axis along which a gathered input lies contiguous runs inside the pieces, so that its cache lines are used up.
  const contiguous = outer.findIndex((a) => access.some((x, i) => x === 'gather' && Math.abs(a.strides[i]!) === 1));
  const piece = contiguous >= 0 ? contiguous : outer.length;
  const walkAxes = outer.map((a) => walkAxis(a, 1));
  walkAxes.splice(piece, 0, { ...walkAxis(inner, length), size: pieces });
  const structure: MapStructure = {
    program: {
      steps: cluster.steps,
      dtypes: cluster.inputs.map((x) => x.dtype),
      access,
      coordinates: coordinatesOf(cluster, (i) => {
        if (inner.iota === i) return 'inner';
        const at = outer.findIndex((a) => a.iota === i);
        return at < 0 ? 'none' : { walk: 'w', axis: at < piece ? at : at + 1 };
      }),
    },
    rank: walkAxes.length,
    piece,
    outputs: cluster.outputs,
    scattered: inner.out !== 1,
  };
  const items = walkAxes.reduce((n, a) => n * a.size, 1);
  const cost = programPrice(structure.program) * Math.ceil(length / 4) + 20;
  const { grid, ...unit } = cutUnits(items, cost);
  const kernel = generated(
    'map',
    cluster,
    `${programKey(structure.program)}|${structure.rank}|${piece}|${cluster.outputs.join()}|${structure.scattered}`,
    () => wordsOf(structure),
    (code) => emitMap(code, structure),
  );
  const values = {
    ...unit,
    piece: length,
    lastPiece: inner.size - (pieces - 1) * length,
    ...Object.fromEntries(cluster.inputs.map((x, i) => [`x${i}`, { base: i, offset: x.offset * 4 }])),
    ...Object.fromEntries(inner.strides.map((s, i) => [`x${i}.inner`, s * 4])),
    ...Object.fromEntries(
      cluster.outputs.map((_, o) => [`y${o}`, { base: cluster.inputs.length + o, offset: (view?.offset ?? 0) * 4 }]),
    ),
    'y.inner': inner.out * 4,
    ...programWords(structure.program),
    ...walkWords('w', walkAxes, pointersOf(structure)),
  };
  return kernel.command(values, grid);
};
