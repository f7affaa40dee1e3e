/** Clusters without reduction: rows of the output, four neighbours at a time. */

import { type Axis, accesses, collapse, point } from '../../../compile/axes.ts';
import type { Cluster } from '../../../compile/scalar.ts';
import { type Expr, type FunctionBuilder, i32, type Local, v128 } from '../assembler/assemble.ts';
import { type KernelCode, type KernelCommand, link, type Word, words } from '../kernel.ts';
import { type GatherStrides, gather, gatherTail, loadTail, scatter, storeTail } from '../loops/tails.ts';
import { cutUnits, unitNames, type WalkAxis, walkNames, walkUnits, walkWords } from '../loops/walk.ts';
import { stored } from './math.ts';
import { generated } from './names.ts';
import {
  type Coordinate,
  evaluator,
  type Program,
  programKey,
  programNames,
  programPrice,
  programWords,
} from './scalarCode.ts';

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

const pointersOf = (s: MapStructure): string[] => [
  ...s.program.access.flatMap((a, i) => (a === 'scalar' ? [] : [`x${i}`])),
  'y',
];
const gathers = (s: MapStructure): number[] => s.program.access.flatMap((a, i) => (a === 'gather' ? [i] : []));

const wordsOf = (s: MapStructure) =>
  words([
    ...unitNames,
    'piece',
    'lastPiece',
    ...s.program.access.map((_, i) => `x${i}`),
    ...gathers(s).map((i) => `x${i}.inner`),
    ...s.outputs.map((_, o) => `y${o}`),
    ...(s.scattered ? ['y.inner'] : []),
    ...programNames(s.program),
    ...walkNames('w', s.rank, pointersOf(s)),
  ]);

const emitMap = (code: KernelCode<string>, s: MapStructure): void => {
  const { f, m, read, splat } = code;
  const { program } = s;
  const values = evaluator(f, program, (step) => splat(`c${step}`));
  values.run(0, { load: (i) => v128.load32_splat(read(`x${i}`)) });

  const strides = gatherStrides(f, gathers(s), read);
  const pointers: Record<string, Local<'i32'>> = {};
  for (const p of pointersOf(s)) pointers[p] = p === 'y' ? f.local('i32') : f.let(read(p));

  walkUnits(f, read, code, 'w', s.rank, pointers, (coordinates) => {
    const piece = coordinates[s.piece]!;
    const length = f.let(read('piece'));
    f.if(i32.eq(i32.add(piece, 1), read(`w${s.piece}.size`)), () => f.set(length, read('lastPiece')));
    values.run(1, {
      load: (i) => v128.load32_splat(pointers[`x${i}`]!),
      coordinate: (_walk, axis) => coordinates[axis]!,
    });
    const moving = program.access.map((a, i) =>
      a === 'unit' || a === 'gather' ? f.let(pointers[`x${i}`]!) : undefined,
    );
    const out = s.outputs.map((_, o) => f.let(i32.add(pointers.y!, read(`y${o}`))));
    const index = usesInner(program) ? f.let(i32.mul(piece, read('piece'))) : undefined;
    const left = f.let(length);
    const outStride = s.scattered ? f.let(read('y.inner')) : undefined;

    const load = (i: number, u: number): Expr<'v128'> =>
      program.access[i] === 'unit' ? v128.load(moving[i]!, 16 * u) : gather(moving[i]!, strides[i]!);
    /** one vector, the u-th since the pointers moved; gathering pointers move every time */
    const vector = (u: number): void => {
      values.run(2, { load: (i) => load(i, u), inner: () => i32.add(index!, 4 * u) });
      for (const [o, step] of s.outputs.entries()) {
        const value = stored(values.value(step), program.steps[step]!.dtype);
        if (!outStride) f.emit(v128.store(out[o]!, value, 16 * u));
        else {
          f.emit(scatter(m, out[o]!, outStride, value, 4));
          f.inc(out[o]!, i32.shl(outStride, 2));
        }
      }
      for (const i of gathers(s)) f.inc(moving[i]!, strides[i]![3]);
    };
    const round = (vectors: number): void => {
      for (let u = 0; u < vectors; u++) vector(u);
      for (const [i, a] of program.access.entries()) if (a === 'unit') f.inc(moving[i]!, 16 * vectors);
      if (!outStride) for (const p of out) f.inc(p, 16 * vectors);
      if (index) f.inc(index, 4 * vectors);
      f.inc(left, -4 * vectors);
    };
    const unroll = unrollOf(program);
    if (unroll > 1) f.while(i32.ge_u(left, 4 * unroll), () => round(unroll));
    f.while(i32.ge_u(left, 4), () => round(1));
    f.if(left, () => {
      values.run(2, {
        load: (i) =>
          program.access[i] === 'unit'
            ? loadTail(m, moving[i]!, left)
            : gatherTail(m, moving[i]!, strides[i]![0], left),
        inner: () => index!,
      });
      for (const [o, step] of s.outputs.entries()) {
        const value = stored(values.value(step), program.steps[step]!.dtype);
        f.emit(outStride ? scatter(m, out[o]!, outStride, value, left) : storeTail(m, out[o]!, value, left));
      }
    });
  });
};

export const gatherStrides = (
  f: FunctionBuilder,
  inputs: readonly number[],
  read: (word: string) => Expr<'i32'>,
): Readonly<Record<number, GatherStrides>> =>
  Object.fromEntries(
    inputs.map((i) => {
      const one = f.let(read(`x${i}.inner`));
      return [i, [one, ...[2, 3, 4].map((n) => f.let(i32.mul(one, n)))] as unknown as GatherStrides];
    }),
  );
export const usesInner = (p: Program): boolean =>
  p.steps.some((s) => s.kind === 'iota' && p.coordinates[s.axis] === 'inner');
/** vectors per round: enough to hide the loop, few enough that the registers hold one */
export const unrollOf = (p: Program): number => {
  const price = programPrice(p);
  return price <= 8 ? 4 : price <= 12 ? 2 : 1;
};

/** where the coordinates of a cluster come from */
export const coordinatesOf = (
  cluster: Cluster,
  find: (clusterAxis: number) => Coordinate,
): Readonly<Record<number, Coordinate>> =>
  Object.fromEntries(cluster.steps.flatMap((s) => (s.kind === 'iota' ? [[s.axis, find(s.axis)]] : [])));

/** Plans by what they depend on: the leaves of a model are few in kind, and a new program repeats most of an old one's. */
const plans = new Map<string, KernelCommand>();
const MOST_PLANS = 4096;
const commandOf = (cluster: Cluster, view: OutputView | undefined): KernelCommand => {
  const steps = cluster.steps.map((s) =>
    s.kind === 'load'
      ? s.input
      : s.kind === 'const'
        ? `c${Object.is(s.value, -0) ? '-0' : s.value}${s.dtype}`
        : s.kind === 'iota'
          ? `i${s.axis}${s.dtype}`
          : `${s.fn}${s.dtype}(${s.args})`,
  );
  const inputs = cluster.inputs.map((x) => `${x.dtype}${x.offset}:${x.strides}`);
  const key = `${cluster.shape}|${inputs.join(';')}|${steps.join(' ')}|${cluster.outputs}|${view ? `${view.offset}:${view.strides}` : ''}`;
  const known = plans.get(key);
  if (known) return known;
  if (plans.size >= MOST_PLANS) plans.clear();
  const made = makeCommand(cluster, view);
  plans.set(key, made);
  return made;
};

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
  cluster.shape.includes(0) ? [] : [link(commandOf(cluster, view), [...inputs, ...outputs])];

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
  const bytes = (a: Axis, scale: number): WalkAxis => ({
    size: a.size,
    strides: {
      ...Object.fromEntries(a.strides.map((s, i) => [`x${i}`, s * scale * 4])),
      y: a.out * scale * 4,
    },
  });
  // The axis along which a gathered input lies contiguous runs inside the pieces, so that its cache lines are used up.
  const contiguous = outer.findIndex((a) => access.some((x, i) => x === 'gather' && Math.abs(a.strides[i]!) === 1));
  const piece = contiguous >= 0 ? contiguous : outer.length;
  const walkAxes = outer.map((a) => bytes(a, 1));
  walkAxes.splice(piece, 0, { ...bytes(inner, length), size: pieces });
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
