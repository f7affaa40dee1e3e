/**
 * Grouped matrix products y[g,m,n] = Σ_k a[g,m,k]·b[g,k,n] on strided operands, so that transposed and sliced operands
 * cost nothing. Two families: register tiles without workgroup memory for software drivers (here), and workgroup tiles
 * for GPUs (dotShared.ts).
 */
import type { View } from '../../ir/view.ts';
import type { AdapterClass } from './device.ts';
import { sharedDot } from './dotShared.ts';
import { assemble, ceilDiv, createParams, type Kernel, MAX_GROUPS } from './kernel.ts';
import { declareTile, loadColumns, multiplyTile, range, storeTile, type Tile, tileFor } from './registerTile.ts';

/** Views of rank 3: a[g,m,k] and b[g,k,n]. */
export interface DotProblem {
  readonly a: View;
  readonly b: View;
}

/** How an operand's rows are read: four along k, four along its free axis (m or n), or one by one. */
export type Order = 'alongK' | 'alongFree' | 'single';

/** Strides by role: the group axis, the free axis (m of a, n of b), and k. */
export interface Side {
  readonly group: number;
  readonly free: number;
  readonly k: number;
  readonly offset: number;
  readonly order: Order;
}

const side = (v: View, free: 1 | 2): Side => {
  const stride = (axis: number) => (v.shape[axis] === 1 ? 0 : v.strides[axis]!);
  const [group, f, k] = [stride(0), stride(free), stride(3 - free)];
  const aligned = (...others: number[]) => others.every((s) => s % 4 === 0) && v.offset % 4 === 0;
  const order: Order =
    k === 1 && v.shape[3 - free]! % 4 === 0 && aligned(group, f)
      ? 'alongK'
      : f === 1 && v.shape[free]! % 4 === 0 && aligned(group, k)
        ? 'alongFree'
        : 'single';
  return { group, free: f, k, offset: v.offset, order };
};

export interface DotSizes {
  readonly g: number;
  readonly m: number;
  readonly k: number;
  readonly n: number;
}
export interface DotPlan extends DotSizes {
  readonly left: Side;
  readonly right: Side;
}

export const planDot = ({ a, b }: DotProblem): DotPlan => {
  const [g, m, k] = a.shape as readonly [number, number, number];
  return { g, m, k, n: b.shape[2]!, left: side(a, 1), right: side(b, 2) };
};

/** Kernel of one dot. Cost 2·g·m·k·n flop. */
export const printDot = (problem: DotProblem, adapter: AdapterClass): Kernel => {
  const plan = planDot(problem);
  return adapter === 'gpu' ? sharedDot(plan) : registerDot(plan);
};

/** Neighbouring threads walk along n or along m, whichever the result has more of. */
export interface RegisterTile extends Tile {
  readonly across: 'n' | 'm';
}
/** Narrow results (LoRA ranks) get a block of their width. */
const chooseTile = ({ m, n, right }: DotPlan): RegisterTile => {
  const small = { rows: 4, vecs: 1 };
  if (n <= 4) return { ...small, across: 'm' };
  if (m <= 4) return { ...small, across: 'n' };
  return {
    ...(right.order === 'alongFree' ? tileFor(true) : right.order === 'alongK' ? tileFor(true) : small),
    across: n >= m || n >= 64 ? 'n' : 'm',
  };
};

/** Threads per workgroup: a software driver runs them as the lanes of one vector. */
const LANES = 8;

/**
 * One thread makes a block of sums, one k at a time: reading several k ahead spills registers on software drivers and
 * halves the rate (measured on lavapipe and SwiftShader).
 */
export const registerDot = (plan: DotPlan, tile: RegisterTile = chooseTile(plan)): Kernel => {
  const { g, m, k, n, left, right } = plan;
  const { rows, vecs, across } = tile;
  const cols = 4 * vecs;
  const p = createParams();
  const [pm, pn, pk] = [p.word(m), p.word(n), p.word(k)];
  const tilesM = ceilDiv(m, rows);
  const tilesN = ceilDiv(n, cols);
  const [groupsM, groupsN] = across === 'n' ? [tilesM, ceilDiv(tilesN, LANES)] : [ceilDiv(tilesM, LANES), tilesN];
  const countN = p.word(groupsN);
  const total = groupsM * groupsN;
  const vectorLoad = right.order === 'alongFree';
  const vectorStore = n % 4 === 0;
  const unit = vectorLoad ? 4 : 1;

  const [aOffset, aGroup, aRow, aStep] = [left.offset, left.group, left.free, left.k].map((x) => p.word(x));
  const [bOffset, bGroup, bStep] = [right.offset, right.group, right.k].map((x) => p.word(x / unit));
  const bCol = vectorLoad ? '' : p.word(right.free);
  // positions are clamped to the matrix: what an edge block reads too much is never stored
  const setup = [
    ...range(rows).map((r) => `let ia${r} = a0 + min(row + ${r}u, ${pm} - 1u) * ${aRow};`),
    ...(vectorLoad
      ? range(vecs).map((v) => `let ib${4 * v} = b0 + min(col + ${4 * v}u, ${pn} - 4u) / 4u;`)
      : range(cols).map((c) => `let ib${c} = b0 + min(col + ${c}u, ${pn} - 1u) * ${bCol};`)),
  ];
  const code = `@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
  let at = id.x + id.y * ${MAX_GROUPS}u;
  let row = at / ${countN} * ${rows * (across === 'm' ? LANES : 1)}u${across === 'm' ? ` + local.x * ${rows}u` : ''};
  let col = at % ${countN} * ${cols * (across === 'n' ? LANES : 1)}u${across === 'n' ? ` + local.x * ${cols}u` : ''};
  if (row >= ${pm} || col >= ${pn}) { return; }
  let a0 = ${aOffset} + id.z * ${aGroup};
  let b0 = ${bOffset} + id.z * ${bGroup};
  ${setup.join('\n  ')}
  ${declareTile(tile)}
  var ka = 0u; var kb = 0u;
  for (var kk = 0u; kk < ${pk}; kk++) {
        ${loadColumns(tile, vectorLoad, (c) => `b[ib${c} + kb]`)}
        ${multiplyTile(tile, (r) => `a[ia${r} + ka]`)}
        ka += ${aStep}; kb += ${bStep};
  }
  ${storeTile(tile, { vector: vectorStore, rows: pm, cols: pn, rowStart: `(id.z * ${pm} + r_out) * ${pn}` })}
}
`;
  return {
    name: 'dot',
    code: assemble(
      p,
      [
        { name: 'a', type: 'f32' },
        { name: 'b', type: vectorLoad ? 'vec4<f32>' : 'f32' },
      ],
      [{ name: 'y', type: vectorStore ? 'vec4<f32>' : 'f32' }],
      code,
    ),
    params: p.words(),
    groups: [Math.min(total, MAX_GROUPS), ceilDiv(total, MAX_GROUPS), g],
    reads: 2,
    writes: 1,
  };
};
